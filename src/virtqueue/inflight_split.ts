/**
 * The in-flight record of a split ring.
 *
 * @module
 */

import { InflightError, InflightMemory, type InflightRegion } from "./inflight.ts";

/** `struct QueueRegionSplit` up to its array. */
const HEADER_BYTES = 16;
/** `struct DescStateSplit`. */
const ENTRY_BYTES = 16;

// Places in the header, in units of u16.
const LAST_BATCH_HEAD = 6, USED_IDX = 7;

/** A descriptor's `next`, in units of u16 from its entry. */
const NEXT = 3;

/** The bytes that the record of a queue with so many descriptors takes. */
export function splitInflightBytes(descriptors: number): number {
  return HEADER_BYTES + descriptors * ENTRY_BYTES;
}

/**
 * Keeps the record of a split ring. Chains have the numbers of their heads.
 *
 * A chain is in flight from {@linkcode SplitInflight.taken} until the used
 * index that shows it to the driver is stored. The batch that an index shows
 * hangs together by `next`, so that after a crash just behind that store its
 * chains can be told from those that are still in flight.
 */
export class SplitInflight {
  /** The chains that were in flight when the ring was placed, in the order in which they were taken. */
  readonly unfinished: readonly number[];
  /** The ring begins with this record. */
  readonly isFresh: boolean;
  readonly #u8: Uint8Array<ArrayBuffer>;
  readonly #u16: Uint16Array<ArrayBuffer>;
  readonly #memory: InflightMemory;
  /** What was used and is not visible to the driver yet. */
  readonly #batch: Uint16Array<ArrayBuffer>;
  #batchSize = 0;
  #lastBatchHead: number;

  /**
   * Takes a record over as it was left.
   *
   * @param size The number of descriptors of the ring
   * @param used The used index of the ring
   * @throws {InflightError} When it cannot be the record of this ring.
   */
  constructor(region: InflightRegion, size: number, used: number) {
    const memory = new InflightMemory(region, size, splitInflightBytes(region.descriptors));
    this.#memory = memory;
    this.#u8 = memory.u8;
    this.#u16 = memory.u16;
    this.#batch = new Uint16Array(size);
    this.isFresh = memory.isFresh;
    if (memory.isFresh) {
      this.#u16[USED_IDX] = used;
      memory.initialized();
    }
    this.#commitBatch(size, used);
    this.#lastBatchHead = this.#u16[LAST_BATCH_HEAD];
    const heads = this.#inFlight();
    if (heads.some((head) => head >= size)) {
      throw new InflightError(
        `Expected chains in flight below ${size}, got ${heads.find((head) => head >= size)}`,
      );
    }
    this.unfinished = memory.inOrder(heads, (head) => entryAt(head) / 4);
  }

  /** Ends what a crash may have left undone behind the store of a used index. */
  #commitBatch(size: number, used: number): void {
    const count = (used - this.#u16[USED_IDX]) & 0xffff;
    if (count > size) {
      // The ring was begun anew since. That is no loss if nothing was in flight.
      if (this.#inFlight().length > 0) {
        throw new InflightError(
          `Expected a used index up to ${size} behind ${
            this.#u16[USED_IDX]
          } as chains are in flight, got ${used}`,
        );
      }
    } else {
      const batch = new Set<number>();
      for (let head = this.#u16[LAST_BATCH_HEAD]; batch.size < count; head = this.#next(head)) {
        if (head >= size || batch.has(head)) {
          throw new InflightError(
            `Expected ${count} chains in the last batch, got ${[...batch, head].join(", ")}`,
          );
        }
        batch.add(head);
      }
      for (const head of batch) this.#u8[entryAt(head)] = 0;
    }
    if (count !== 0) Atomics.store(this.#u16, USED_IDX, used);
  }

  #next(head: number): number {
    return this.#u16[entryAt(head) / 2 + NEXT];
  }

  #inFlight(): number[] {
    const { descriptors } = this.#memory;
    return Array.from({ length: descriptors }, (_, head) => head)
      .filter((head) => this.#u8[entryAt(head)] !== 0);
  }

  /** The ring took a chain. */
  taken(head: number): void {
    const at = entryAt(head);
    this.#memory.count(at / 4);
    // Where the ring goes on after a crash follows from how many chains are in
    // flight, so they become so one by one, and each after its counter.
    Atomics.store(this.#u8, at, 1);
  }

  /** The ring put a chain back; the driver does not see it yet. */
  used(head: number): void {
    this.#u16[entryAt(head) / 2 + NEXT] = this.#lastBatchHead;
    this.#u16[LAST_BATCH_HEAD] = this.#lastBatchHead = head;
    // Only a driver that makes available what it did not get back can fill it.
    if (this.#batchSize < this.#batch.length) this.#batch[this.#batchSize++] = head;
  }

  /** The ring stored its used index, by `Atomics`: the driver sees the batch. */
  published(used: number): void {
    for (let i = 0; i < this.#batchSize; i++) this.#u8[entryAt(this.#batch[i])] = 0;
    this.#batchSize = 0;
    // From here on no chain of the batch may be found in flight.
    Atomics.store(this.#u16, USED_IDX, used);
  }
}

/** Where the entry of a descriptor begins. */
function entryAt(descriptor: number): number {
  return HEADER_BYTES + descriptor * ENTRY_BYTES;
}
