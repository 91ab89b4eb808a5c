/**
 * The in-flight record of a split ring.
 *
 * @module
 */

import { InflightError, InflightRecord, type InflightRegion } from "../inflight.ts";

/** `struct QueueRegionSplit` up to its array. */
const HEADER_BYTES = 16;
/** `struct DescStateSplit`. */
const ENTRY_BYTES = 16;

// Places in the header, in units of u16.
const LAST_BATCH_HEAD = 6, USED_IDX = 7;

/** A descriptor's `next`, in units of u16 from its entry. */
const NEXT = 3;

/** Bytes of the in-flight record of a queue of this size. */
export function splitInflightBytes(descriptors: number): number {
  return HEADER_BYTES + descriptors * ENTRY_BYTES;
}

/** The part of a split ring that a record is read beside. */
export interface SplitRingState {
  /** The number of descriptors. */
  size: number;
  /** The used index. */
  used: number;
  /** The available index. */
  available: number;
  /** The ring is at its beginning: the record may be of another one. */
  isAnew: boolean;
  /** The head at an index of the available ring. */
  headAt(index: number): number;
}

/**
 * Keeps the record of a split ring. Chains have the numbers of their heads.
 *
 * A chain is in flight from {@linkcode SplitInflight.taken} until the used index that shows it to
 * the driver is stored. The batch that an index shows is linked by `next`, so that after a crash
 * just behind that store its chains can be told from those that are still in flight.
 *
 * Taking a chain is three plain stores: one by `Atomics` takes as long as all the rest (19 ns of
 * 24, on a request of 310 ns). They are done when the next used index is stored. Until then they
 * may be, one by one and in any order, but the available ring still has those chains.
 */
export class SplitInflight extends InflightRecord {
  readonly unfinished: readonly number[];
  /** The chains that are used and not visible to the driver yet. */
  readonly #batch: Uint16Array<ArrayBuffer>;
  #batchSize = 0;
  #lastBatchHead: number;

  /**
   * Takes a record over as it was left.
   *
   * @throws {InflightError} When it cannot be the record of this ring.
   */
  constructor(region: InflightRegion, ring: SplitRingState) {
    const { size, used } = ring;
    super(region, size, splitInflightBytes(region.descriptors));
    this.#batch = new Uint16Array(size);
    if (ring.isAnew && !this.isFresh && !this.#fits(ring)) this.begin();
    if (this.isFresh) {
      this.u16[USED_IDX] = used;
      this.initialized();
    }
    this.#commitBatch(size, used);
    this.#lastBatchHead = this.u16[LAST_BATCH_HEAD];
    this.unfinished = this.#takeOver(ring);
  }

  protected wordAt(head: number): number {
    return wordAt(head);
  }

  /** Whether something is in flight, and can be in this ring. */
  #fits({ size, used, available }: SplitRingState): boolean {
    const batch = this.#lastBatch(size, used);
    if (batch === null) return false;
    const inFlight = this.#inFlight().difference(batch);
    return inFlight.size > 0 && inFlight.size <= ((available - used) & 0xffff) &&
      [...inFlight].every((head) => head < size);
  }

  /** Completes what a crash may have left undone after the store of a used index. */
  #commitBatch(size: number, used: number): void {
    // The ring may have been reset since. That loses nothing if nothing was in flight.
    if (this.#inFlight().size > 0) {
      const batch = this.#lastBatch(size, used);
      if (batch === null) {
        throw new InflightError(
          `Expected the last batch to link the chains from used index ${
            this.u16[USED_IDX]
          } to ${used}, as chains are in flight in a queue of ${size}`,
        );
      }
      for (const head of batch) this.u8[byteAt(head)] = 0;
    }
    if (this.u16[USED_IDX] !== used) Atomics.store(this.u16, USED_IDX, used);
  }

  /** The chains between the recorded used index and `used`; null where they are not linked so. */
  #lastBatch(size: number, used: number): Set<number> | null {
    const count = (used - this.u16[USED_IDX]) & 0xffff;
    if (count > size) return null;
    const batch = new Set<number>();
    for (let head = this.u16[LAST_BATCH_HEAD]; batch.size < count; head = this.#next(head)) {
      if (head >= size || batch.has(head)) return null;
      batch.add(head);
    }
    return batch;
  }

  #next(head: number): number {
    return this.u16[halfAt(head) + NEXT];
  }

  #inFlight(): Set<number> {
    const heads = Array.from({ length: this.descriptors }, (_, head) => head);
    return new Set(heads.filter((head) => this.u8[byteAt(head)] !== 0));
  }

  /** Finds the chains in flight and the order in which they were taken. */
  #takeOver({ size, used, available, headAt }: SplitRingState): number[] {
    const inFlight = this.#inFlight();
    const ahead = (available - used) & 0xffff;
    // As many were taken and not used as are in flight: they come first. One that stands behind
    // them is there because one before it is not marked yet. It was not taken then, nor was any
    // after it.
    for (let i = ahead - 1; i >= inFlight.size; i--) {
      const head = headAt((used + i) & 0xffff);
      if (inFlight.delete(head)) this.u8[byteAt(head)] = 0;
    }
    const wrong = [...inFlight].find((head) => head >= size);
    if (wrong !== undefined || inFlight.size > ahead) {
      throw new InflightError(
        `Expected at most ${ahead} chains in flight below ${size}, as so many are available, got ${inFlight.size}: ${
          [...inFlight].join(", ")
        }`,
      );
    }
    // Those that the available ring still has were taken in its order, the others before them. A
    // head that stands there twice came back in between.
    const taken = Array.from(inFlight, (_, i) => headAt((used + i) & 0xffff)).reverse();
    const newer = [...new Set(taken)].filter((head) => inFlight.has(head)).reverse();
    const older = [...inFlight.difference(new Set(newer))];
    const unfinished = this.inOrder(older);
    this.countFrom([...inFlight]);
    for (const head of newer) this.count(wordAt(head));
    return [...unfinished, ...newer];
  }

  /** The ring took a chain. */
  taken(head: number): void {
    this.count(wordAt(head));
    this.u8[byteAt(head)] = 1;
  }

  /** The ring gave a chain back, unused. */
  untaken(head: number): void {
    Atomics.store(this.u8, byteAt(head), 0);
  }

  /** The ring put a chain back; the driver does not see it yet. */
  used(head: number): void {
    this.u16[halfAt(head) + NEXT] = this.#lastBatchHead;
    this.u16[LAST_BATCH_HEAD] = this.#lastBatchHead = head;
    // Only a driver that reuses descriptors in flight can fill it.
    if (this.#batchSize < this.#batch.length) this.#batch[this.#batchSize++] = head;
  }

  /** The ring stored its used index, by `Atomics`: the driver sees the batch. */
  published(used: number): void {
    for (let i = 0; i < this.#batchSize; i++) this.u8[byteAt(this.#batch[i])] = 0;
    this.#batchSize = 0;
    // From here on no chain of the batch may be found in flight.
    Atomics.store(this.u16, USED_IDX, used);
  }
}

// Where the entry of a descriptor begins, in each unit: dividing is not free.

function byteAt(descriptor: number): number {
  return HEADER_BYTES + descriptor * ENTRY_BYTES;
}

function halfAt(descriptor: number): number {
  return HEADER_BYTES / 2 + descriptor * (ENTRY_BYTES / 2);
}

function wordAt(descriptor: number): number {
  return HEADER_BYTES / 4 + descriptor * (ENTRY_BYTES / 4);
}
