/**
 * The in-flight record of a packed ring.
 *
 * @module
 */

import { InflightError, InflightRecord, type InflightRegion } from "../inflight.ts";
import { availableFlags, OWNER_FLAGS } from "./places.ts";

/** `struct QueueRegionPacked` up to its array, which is aligned to 8. */
const HEADER_BYTES = 32;
/** `struct DescStatePacked`. */
const ENTRY_BYTES = 32;

// Places in the header, in units of u16.
const FREE_HEAD = 6, OLD_FREE_HEAD = 7, USED_IDX = 8, OLD_USED_IDX = 9, WRAP_COUNTERS = 10;
/** The four fields of where the ring stands and stood, in units of u64. */
const POSITIONS = 2;

// Places in an entry, in units of u16.
const NEXT = 1, LAST = 2, NUM = 3;
// Places in an entry, in units of u32: buffer ID and flags, length, address.
const ID_AND_FLAGS = 4, LENGTH = 5, ADDRESS = 6;

/** Bytes of the in-flight record of a queue of this size. */
export function packedInflightBytes(descriptors: number): number {
  return HEADER_BYTES + descriptors * ENTRY_BYTES;
}

/** The part of a packed ring that a record is read beside. */
export interface PackedRingState {
  /** The number of descriptors. */
  size: number;
  /** Where the next used descriptor goes, for a fresh record. */
  usedPlace: number;
  /** The ring is at its beginning and no device has used it, so the record is of another one. */
  isAnew: boolean;
  /** The flags of the descriptor at an index. */
  flagsAt(index: number): number;
}

/**
 * Keeps the record of a packed ring: a copy of each descriptor in flight, in entries from a list of
 * free ones. A chain has the number of its first entry.
 *
 * One store, of `old_free_head`, records all chains taken so far; until then their entries are
 * still in the free list. It has to come before the ring writes used descriptors over those of the
 * chains. It need not come sooner, as chains that are not recorded are taken from the ring again. A
 * batch becomes used by one store too, that of the first used descriptor in the ring. A crash
 * before it drops the values in the fields without "old".
 *
 * The specification describes this for one chain at a time. Here it is done per published batch:
 * chains taken in between must not be recorded in entries of chains that are only put back.
 */
export class PackedInflight extends InflightRecord {
  readonly unfinished: readonly number[];
  /** Where the next used descriptor went when the ring was placed. */
  readonly usedPlace: number;
  /** How many descriptors of the ring the unfinished chains have. */
  readonly unfinishedDescriptors: number;
  readonly #size: number;
  // By entry. The front-end can change those in the record.
  readonly #next: Uint16Array<ArrayBuffer>;
  readonly #last: Uint16Array<ArrayBuffer>;
  readonly #num: Uint16Array<ArrayBuffer>;
  /** By buffer ID: the first entry of the chain. */
  readonly #entry: Uint16Array<ArrayBuffer>;
  #freeHead: number;
  /** The chains that were used and are not visible to the driver yet. */
  readonly #batch: Uint16Array<ArrayBuffer>;
  #batchSize = 0;
  /**
   * Used index, wrap counter and what they were before, as they stand in the record: at one moment,
   * so they are written by one store of 64 bits. Its upper bytes are padding and stay zero, so as a
   * float it is a number.
   */
  readonly #positions: Float64Array<ArrayBuffer>;
  readonly #nextPositions: Float64Array<ArrayBuffer>;
  readonly #nextPosition: Uint16Array<ArrayBuffer>;

  /**
   * Takes a record over as it was left.
   *
   * @throws {InflightError} When it cannot be the record of this ring.
   */
  constructor(region: InflightRegion, ring: PackedRingState) {
    const { size } = ring;
    const { descriptors } = region;
    super(region, size, packedInflightBytes(descriptors));
    this.#positions = new Float64Array(this.u8.buffer, this.u8.byteOffset, POSITIONS + 1);
    this.#nextPositions = new Float64Array(1);
    this.#nextPosition = new Uint16Array(this.#nextPositions.buffer);
    this.#size = size;
    this.#next = new Uint16Array(descriptors);
    this.#last = new Uint16Array(descriptors);
    this.#num = new Uint16Array(descriptors);
    this.#entry = new Uint16Array(size);
    this.#batch = new Uint16Array(size);
    // At the place where it begins, a ring that was recorded looks the same.
    if (ring.isAnew && !this.isFresh && !this.#beganHere()) this.begin();
    if (this.isFresh) {
      for (let entry = 0; entry < descriptors; entry++) {
        // The list ends behind the last entry.
        this.u16[halfAt(entry) + NEXT] = entry + 1;
      }
      this.#store(ring.usedPlace, ring.usedPlace);
      this.initialized();
    }
    this.usedPlace = this.#settle(ring);
    this.#freeHead = this.u16[OLD_FREE_HEAD];
    const free = this.#checkFree();
    const heads = this.#checkInFlight(free);
    this.unfinished = this.inOrder(heads);
    this.countFrom(heads);
    this.unfinishedDescriptors = heads.reduce((sum, entry) => sum + this.#num[entry], 0);
    if (this.unfinishedDescriptors > size) {
      throw new InflightError(
        `Expected at most ${size} descriptors in flight, got ${this.unfinishedDescriptors}`,
      );
    }
  }

  protected wordAt(entry: number): number {
    return wordAt(entry);
  }

  /** Whether the record has the ring where rings begin. */
  #beganHere(): boolean {
    return this.u16[OLD_USED_IDX] === 0 && this.u16[WRAP_COUNTERS] >>> 8 !== 0;
  }

  /** Completes or reverts what a crash may have left half done; returns where the ring stands. */
  #settle({ size, flagsAt }: PackedRingState): number {
    const place = (at: number, wrapCounter: number) => {
      const index = this.u16[at];
      if (index >= size) {
        throw new InflightError(`Expected a used index below ${size}, got ${index}`);
      }
      return wrapCounter !== 0 ? index : index + size;
    };
    const wrapCounters = this.u16[WRAP_COUNTERS];
    const used = place(USED_IDX, wrapCounters & 0xff);
    const oldUsed = place(OLD_USED_IDX, wrapCounters >>> 8);
    const isVisible = used !== oldUsed &&
      (flagsAt(oldUsed % size) & OWNER_FLAGS) !== availableFlags(oldUsed, size);
    if (isVisible) {
      Atomics.store(this.u16, OLD_FREE_HEAD, this.u16[FREE_HEAD]);
    } else {
      Atomics.store(this.u16, FREE_HEAD, this.u16[OLD_FREE_HEAD]);
    }
    const settled = isVisible ? used : oldUsed;
    this.#store(settled, settled);
    return settled;
  }

  /** Walks the list of free entries, which must not be in flight; returns them. */
  #checkFree(): Set<number> {
    const { descriptors } = this;
    const free = new Set<number>();
    for (let entry = this.#freeHead; entry < descriptors; entry = this.#next[entry]) {
      if (free.has(entry)) {
        throw new InflightError(`Expected a list of free entries, got entry ${entry} in it twice`);
      }
      free.add(entry);
      this.#next[entry] = this.u16[halfAt(entry) + NEXT];
      this.u8[byteAt(entry)] = 0;
    }
    return free;
  }

  /** Walks the chains in flight; every entry is in one or free. */
  #checkInFlight(free: ReadonlySet<number>): number[] {
    const { descriptors } = this;
    const seen = new Set(free);
    const heads: number[] = [];
    for (let head = 0; head < descriptors; head++) {
      if (this.u8[byteAt(head)] === 0) continue;
      heads.push(head);
      this.#num[head] = this.u16[halfAt(head) + NUM];
      let last = descriptors;
      for (let i = 0, entry = head; i < this.#num[head]; i++, entry = this.#next[entry]) {
        if (entry >= descriptors || seen.has(entry)) {
          throw new InflightError(
            `Expected chain ${head} in entries of its own, got entry ${entry} in it`,
          );
        }
        seen.add(entry);
        this.#next[entry] = this.u16[halfAt(entry) + NEXT];
        last = entry;
      }
      this.#last[head] = last;
      if (this.#num[head] === 0 || last !== this.u16[halfAt(head) + LAST]) {
        throw new InflightError(
          `Expected chain ${head} to end at entry ${last}, got ${this.u16[halfAt(head) + LAST]}`,
        );
      }
    }
    if (seen.size < descriptors) {
      throw new InflightError(
        `Expected ${descriptors} entries free or in flight, got ${seen.size}`,
      );
    }
    return heads;
  }

  /** Writes where the ring stands and what counts after a crash. */
  #store(used: number, oldUsed: number): void {
    const size = this.#size;
    const next = this.#nextPosition;
    next[0] = used < size ? used : used - size;
    next[1] = oldUsed < size ? oldUsed : oldUsed - size;
    next[2] = (used < size ? 1 : 0) | (oldUsed < size ? 1 << 8 : 0);
    this.#positions[POSITIONS] = this.#nextPositions[0];
  }

  /**
   * The ring took a chain.
   *
   * @param id Its buffer ID
   * @param words The descriptors of the ring
   * @param idAndFlags Those of the chain's descriptors, in their order
   * @param first The index of the first descriptor
   * @param count How many there are; at least so many entries are free, as no more of the ring is
   * in flight than it has
   */
  taken(
    id: number,
    words: Uint32Array,
    idAndFlags: Int32Array,
    first: number,
    count: number,
  ): void {
    const u32 = this.u32;
    const head = this.#freeHead;
    let entry = head, last = head;
    for (let i = 0, at = first; i < count; i++) {
      const word = wordAt(entry);
      u32[word + ID_AND_FLAGS] = idAndFlags[i];
      u32[word + LENGTH] = words[at * 4 + 2];
      u32[word + ADDRESS] = words[at * 4];
      u32[word + ADDRESS + 1] = words[at * 4 + 1];
      last = entry;
      entry = this.#next[entry];
      if (++at === this.#size) at = 0;
    }
    const word = wordAt(head);
    this.#last[head] = last;
    // In flight, with the next entry; the last entry and how many there are.
    u32[word] = 1 | this.#next[head] << 16;
    u32[word + 1] = last | count << 16;
    this.count(word);
    this.#freeHead = entry;
    this.#entry[id] = head;
  }

  /**
   * Reads an unfinished chain, as `taken` got it.
   *
   * @returns How many descriptors there are.
   */
  read(head: number, words: Uint32Array, idAndFlags: Int32Array): number {
    const count = this.#num[head];
    for (let i = 0, entry = head; i < count; i++, entry = this.#next[entry]) {
      const word = wordAt(entry);
      idAndFlags[i] = this.u32[word + ID_AND_FLAGS];
      words[i * 4] = this.u32[word + ADDRESS];
      words[i * 4 + 1] = this.u32[word + ADDRESS + 1];
      words[i * 4 + 2] = this.u32[word + LENGTH];
    }
    return count;
  }

  /** The ring took an unfinished chain again. */
  takenAgain(id: number, head: number): void {
    this.#entry[id] = head;
  }

  /** The ring gave back, unused, the chain of a buffer ID, which it took last. */
  untaken(id: number): void {
    const head = this.#entry[id];
    const last = this.#last[head];
    this.u16[halfAt(last) + NEXT] = this.#next[last] = this.#freeHead;
    this.#freeHead = head;
    // A free entry is not in flight, even if its mark is still set.
    Atomics.store(this.u16, OLD_FREE_HEAD, head);
    this.u8[byteAt(head)] = 0;
  }

  /** The ring put the chain of a buffer ID back; the driver does not see it yet. */
  used(id: number): void {
    this.#batch[this.#batchSize++] = this.#entry[id];
  }

  /** The ring is about to write over descriptors of chains that it took. */
  commit(): void {
    Atomics.store(this.u16, OLD_FREE_HEAD, this.#freeHead);
  }

  /** The ring is about to show the batch to the driver, by `Atomics`. */
  publishing(oldUsedPlace: number, usedPlace: number): void {
    for (let i = 0; i < this.#batchSize; i++) {
      const head = this.#batch[i];
      const last = this.#last[head];
      this.u16[halfAt(last) + NEXT] = this.#next[last] = this.#freeHead;
      this.#freeHead = head;
    }
    this.u16[FREE_HEAD] = this.#freeHead;
    this.#store(usedPlace, oldUsedPlace);
  }

  /** The driver sees the batch. */
  published(usedPlace: number): void {
    for (let i = 0; i < this.#batchSize; i++) this.u8[byteAt(this.#batch[i])] = 0;
    this.#batchSize = 0;
    // Before the positions: if these are equal after a crash, this was not undone.
    Atomics.store(this.u16, OLD_FREE_HEAD, this.#freeHead);
    this.#store(usedPlace, usedPlace);
  }
}

// Where an entry begins, in each unit: dividing is not free.

function byteAt(entry: number): number {
  return HEADER_BYTES + entry * ENTRY_BYTES;
}

function halfAt(entry: number): number {
  return HEADER_BYTES / 2 + entry * (ENTRY_BYTES / 2);
}

function wordAt(entry: number): number {
  return HEADER_BYTES / 4 + entry * (ENTRY_BYTES / 4);
}
