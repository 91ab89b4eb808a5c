/**
 * The split virtqueue: virtio 1.3, 2.7.
 *
 * @module
 */

import type { MemoryView } from "../../memory/mod.ts";
import type { Chain } from "../chain.ts";
import {
  copyDescriptor,
  DESCRIPTOR_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "../descriptor.ts";
import type { InflightRegion } from "../inflight.ts";
import { type RingBytes, type RingOptions, Virtqueue } from "../virtqueue.ts";
import { SplitInflight } from "./inflight.ts";

const VIRTQ_AVAIL_F_NO_INTERRUPT = 1; // virtio 1.3, 2.7.6
const VIRTQ_USED_F_NO_NOTIFY = 1; // virtio 1.3, 2.7.8

// Places in the rings, in units of u16.
const FLAGS = 0;
const IDX = 1;
const RING = 2;

/**
 * How many entries of the available ring are read at once. The driver keeps writing to the same
 * line of memory, so each look at it may wait until that comes from the driver's processor.
 */
const MAX_HEADS = 16;

/** The bytes that each part of a split ring of `size` descriptors takes: virtio 1.3, 2.7. */
export function splitRingBytes(size: number): RingBytes {
  return { descriptor: DESCRIPTOR_BYTES * size, available: 6 + 2 * size, used: 6 + 8 * size };
}

/** Whether an event index asks for a notification: virtio 1.3, 2.7.7.2. */
export function needsEvent(event: number, next: number, previous: number): boolean {
  return ((next - event - 1) & 0xffff) < ((next - previous) & 0xffff);
}

/**
 * The device's side of a split virtqueue.
 *
 * Indexes and event fields that both sides poll go through Atomics, as V8 and the processor reorder
 * plain accesses. Everything else is plain, ordered by them. Each part of the ring has its own
 * small views, so that indexes are small integers to V8 wherever in the span the ring lies.
 */
export class SplitRing extends Virtqueue {
  readonly isResumed: boolean;
  readonly #mask: number;
  readonly #descriptors: Uint32Array<ArrayBuffer>;
  readonly #available: Uint16Array<ArrayBuffer>;
  readonly #used: Uint16Array<ArrayBuffer>;
  readonly #usedElements: Uint32Array<ArrayBuffer>;
  readonly #usedEvent: number;
  readonly #availableEvent: number;
  /** The descriptor of an indirect table that is being read. */
  readonly #entry = new Uint32Array(4);
  /** The next entry of the available ring to take. */
  #next: number;
  /** The available index as last read. */
  #seen: number;
  /** Entries of the available ring that were read, how many, and the index of the first. */
  readonly #heads = new Uint16Array(MAX_HEADS);
  #headCount = 0;
  #headsFrom = 0;
  /** The next entry of the used ring to fill. */
  #usedNext: number;
  /** The used index of the last publication. */
  #signalled: number;
  #signalledValid = false;
  /** The in-flight record, where the front-end keeps one. */
  readonly #inflight: SplitInflight | null;

  /**
   * Places a ring.
   *
   * @throws {RingError} When its size, alignment or place is wrong.
   * @throws {InflightError} When the record makes no sense, or none for this ring.
   */
  constructor(memory: MemoryView, options: RingOptions, inflight?: InflightRegion) {
    super(memory, options);
    const { size, descriptorIndex, availableIndex, usedIndex } = options;
    const { buffer } = memory.u8;
    this.#mask = size - 1;
    this.#descriptors = new Uint32Array(buffer, descriptorIndex, size * 4);
    this.#available = new Uint16Array(buffer, availableIndex, RING + size + 1);
    this.#used = new Uint16Array(buffer, usedIndex, RING + size * 4 + 1);
    this.#usedElements = new Uint32Array(buffer, usedIndex + 4, size * 2);
    this.#usedEvent = RING + size;
    this.#availableEvent = RING + size * 4;
    const used = Atomics.load(this.#used, IDX);
    this.#usedNext = this.#signalled = used;
    const record = inflight === undefined ? null : new SplitInflight(inflight, {
      size,
      used,
      available: Atomics.load(this.#available, IDX),
      isAnew: used === 0 && (options.base ?? 0) === 0,
      headAt: (index) => this.#available[RING + (index & this.#mask)],
    });
    this.#inflight = record;
    this.unfinished = record?.unfinished ?? [];
    this.#next = this.#seen = record === null || record.isFresh
      ? resumeIndex(options, used)
      : (used + record.unfinished.length) & 0xffff;
    // An index comes again; a record does not become fresh again.
    this.isResumed = record === null ? used !== 0 : !record.isFresh;
  }

  get base(): number {
    return this.#next;
  }

  get isAvailable(): boolean {
    return this.hasRoom && (this.#next !== this.#seen || this.#hasMore);
  }

  /** Whether there are chains beyond the next one as last seen. */
  get #hasMore(): boolean {
    return Atomics.load(this.#available, IDX) !== this.#next ||
      this.takenAgain < this.unfinished.length;
  }

  take(): Chain | null {
    if ((this.isHeldUp = !this.hasRoom)) return null;
    if (this.takenAgain < this.unfinished.length) {
      const chain = this.#read(this.unfinished[this.takenAgain++]);
      this.taken(chain, true);
      return chain;
    }
    const next = this.#next;
    if (next === this.#seen) {
      const index = Atomics.load(this.#available, IDX);
      if (index === next) return null;
      const ahead = (index - next) & 0xffff;
      if (ahead > this.size) {
        this.refuse(
          "available-index",
          `The available index went from ${next} to ${index}, which is ${ahead} buffers in a queue of ${this.size}`,
        );
      }
      this.#seen = index;
    }
    let place = (next - this.#headsFrom) & 0xffff;
    if (place >= this.#headCount) {
      this.#readHeads();
      place = 0;
    }
    const head = this.#heads[place];
    const chain = this.#read(head);
    this.taken(chain, false);
    this.#inflight?.taken(head);
    this.#next = (next + 1) & 0xffff;
    return chain;
  }

  /** Reads the entries of the available ring that come next. */
  #readHeads(): void {
    const next = this.#headsFrom = this.#next;
    const count = this.#headCount = Math.min((this.#seen - next) & 0xffff, MAX_HEADS);
    for (let i = 0; i < count; i++) {
      this.#heads[i] = this.#available[RING + ((next + i) & this.#mask)];
    }
  }

  /** Reads the descriptors of a chain, each once, and checks them. */
  #read(head: number): Chain {
    const chain = this.chainFor(head);
    const table = this.#descriptors;
    for (let at = head;;) {
      const flagsAndNext = table[at * 4 + 3];
      if (flagsAndNext & VIRTQ_DESC_F_INDIRECT) {
        const gpa = table[at * 4] + table[at * 4 + 1] * 2 ** 32;
        const bytes = table[at * 4 + 2];
        const isAlone = (flagsAndNext & VIRTQ_DESC_F_NEXT) === 0;
        const start = this.tableAt(at, gpa, bytes, isAlone);
        this.#readTable(chain, at, start, bytes / DESCRIPTOR_BYTES);
        return chain;
      }
      this.#count(chain, head, this.size);
      chain.add(this.memory, table, at * 4, (flagsAndNext & VIRTQ_DESC_F_WRITE) !== 0);
      if (!(flagsAndNext & VIRTQ_DESC_F_NEXT)) return chain;
      const next = flagsAndNext >>> 16;
      if (next >= this.size) {
        this.refuse(
          "descriptor-next",
          `Descriptor ${at} continues at ${next} in a table of ${this.size}`,
        );
      }
      at = next;
    }
  }

  /** Reads the indirect table of descriptor `at`. */
  #readTable(chain: Chain, at: number, start: number, entries: number): void {
    const words = this.#entry;
    for (let entry = 0;;) {
      copyDescriptor(this.view, start + entry * DESCRIPTOR_BYTES, words);
      const flagsAndNext = words[3];
      if (flagsAndNext & VIRTQ_DESC_F_INDIRECT) {
        this.refuse(
          "indirect-nested",
          `Entry ${entry} of the indirect table of descriptor ${at} has the INDIRECT flag`,
        );
      }
      this.#count(chain, at, this.mostParts);
      chain.add(this.memory, words, 0, (flagsAndNext & VIRTQ_DESC_F_WRITE) !== 0);
      if (!(flagsAndNext & VIRTQ_DESC_F_NEXT)) return;
      const next = flagsAndNext >>> 16;
      if (next >= entries) {
        this.refuse(
          "descriptor-next",
          `Entry ${entry} of the indirect table of descriptor ${at} continues at ${next} of ${entries}`,
        );
      }
      entry = next;
    }
  }

  #count(chain: Chain, at: number, most: number): void {
    if (++chain.descriptors > most) {
      this.refuse(
        "chain-length",
        `The chain of descriptor ${at} has more than ${most} descriptors`,
      );
    }
  }

  protected use(chain: Chain, written: number): void {
    const at = (this.#usedNext & this.#mask) * 2;
    this.#usedElements[at] = chain.id;
    this.#usedElements[at + 1] = written;
    this.#usedNext = (this.#usedNext + 1) & 0xffff;
    this.#inflight?.used(chain.id);
  }

  protected untaken(chain: Chain): void {
    this.#next = (this.#next - 1) & 0xffff;
    this.#inflight?.untaken(chain.id);
  }

  publish(): boolean {
    const next = this.#usedNext;
    const previous = this.#signalled;
    if (next === previous) return false;
    Atomics.store(this.#used, IDX, next);
    this.#inflight?.published(next);
    this.#signalled = next;
    if (!this.eventIndex) {
      return (Atomics.load(this.#available, FLAGS) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    }
    const event = Atomics.load(this.#available, this.#usedEvent);
    if (!this.#signalledValid) {
      this.#signalledValid = true;
      return true;
    }
    return needsEvent(event, next, previous);
  }

  arm(): boolean {
    if (this.eventIndex) Atomics.store(this.#used, this.#availableEvent, this.#next);
    else Atomics.store(this.#used, FLAGS, 0);
    return this.hasRoom && this.#hasMore;
  }

  disarm(): void {
    if (!this.eventIndex) Atomics.store(this.#used, FLAGS, VIRTQ_USED_F_NO_NOTIFY);
  }
}

/**
 * The resume index without an in-flight record. Chains between the used index and the base were
 * taken and never used. A device that stopped in good order leaves none; one that died may, and if
 * it used buffers in order, these are to be done again. A base that is further away than the ring
 * is long is none: front-ends that cannot ask a device that died may send anything.
 */
function resumeIndex({ base, size, inOrder }: RingOptions, used: number): number {
  const isPlausible = base !== null && ((base - used) & 0xffff) <= size;
  return isPlausible && !inOrder ? base & 0xffff : used;
}
