/**
 * The split virtqueue: virtio 1.3, 2.7.
 *
 * @module
 */

import type { MemoryView } from "../../memory/mod.ts";
import { Chain } from "../chain.ts";
import { CompletionOrder } from "../completion_order.ts";
import {
  copyDescriptor,
  DESCRIPTOR_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "../descriptor.ts";
import type { InflightRegion } from "../inflight.ts";
import { SplitInflight } from "./inflight.ts";
import { RingError } from "../rules.ts";
import {
  MAX_PARTS_IN_FLIGHT,
  MAX_QUEUE_SIZE,
  maxChainParts,
  type RingBytes,
  type RingOptions,
  type Virtqueue,
} from "../virtqueue.ts";

const VIRTQ_AVAIL_F_NO_INTERRUPT = 1; // virtio 1.3, 2.7.6
const VIRTQ_USED_F_NO_NOTIFY = 1; // virtio 1.3, 2.7.8

// Places in the rings, in units of u16.
const FLAGS = 0;
const IDX = 1;
const RING = 2;

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
 * Indexes and event fields that both sides poll go through Atomics: V8 and the
 * processor reorder plain accesses. Everything else is plain, ordered by them.
 * Each part of the ring has its own small views, so that their indexes are
 * small integers to V8 wherever in the span the ring lies.
 */
export class SplitRing implements Virtqueue {
  readonly size: number;
  readonly #mask: number;
  readonly #eventIndex: boolean;
  readonly #indirect: boolean;
  readonly #descriptors: Uint32Array<ArrayBuffer>;
  readonly #available: Uint16Array<ArrayBuffer>;
  readonly #used: Uint16Array<ArrayBuffer>;
  readonly #usedElements: Uint32Array<ArrayBuffer>;
  readonly #usedEvent: number;
  readonly #availableEvent: number;
  readonly #chains: (Chain | undefined)[];
  /** With VIRTIO_F_IN_ORDER. */
  readonly #order: CompletionOrder | null;
  /** The indirect table of the chain that is being read. */
  readonly #table = new Uint32Array(4);
  readonly #memory: MemoryView;
  /** Guest memory, for indirect tables. */
  readonly #view: DataView<ArrayBuffer>;
  /** The next entry of the available ring to take. */
  #next: number;
  /** The slot of the chain that was taken last. */
  #lastTaken = -1;
  /** The available index as last read. */
  #seen: number;
  /** The next entry of the used ring to fill. */
  #usedNext: number;
  /** The used index when the driver was last asked whether it wants to know. */
  #signalled: number;
  #signalledValid = false;
  inFlight = 0;
  isHeldUp = false;
  /** How many parts the chains in flight have. */
  #parts = 0;
  /** How many descriptors an indirect chain may have, and parts any one. */
  readonly #mostParts: number;
  readonly isResumed: boolean;
  /** The record of what is in flight, where the front-end keeps one. */
  readonly #inflight: SplitInflight | null;
  /** Heads of chains that are taken again. */
  readonly #unfinished: readonly number[];
  /** How many of them were. */
  #takenAgain = 0;

  /**
   * Places a ring.
   *
   * @throws {RingError} When its size, alignment or place is wrong.
   * @throws {InflightError} When the record makes no sense, or none for this ring.
   */
  constructor(memory: MemoryView, options: RingOptions, inflight?: InflightRegion) {
    const { size, descriptorIndex, availableIndex, usedIndex } = options;
    if (size < 1 || size > MAX_QUEUE_SIZE || (size & (size - 1)) !== 0) {
      throw new RingError("queue-size", `The queue size is ${size}`);
    }
    if (descriptorIndex % 16 !== 0 || availableIndex % 2 !== 0 || usedIndex % 4 !== 0) {
      const at = [descriptorIndex, availableIndex, usedIndex].map((i) => `0x${i.toString(16)}`);
      throw new RingError("ring-alignment", `The ring's parts are at ${at.join(", ")}`);
    }
    const buffer = memory.u8.buffer;
    this.#memory = memory;
    this.#view = new DataView(buffer);
    this.size = size;
    this.#mask = size - 1;
    this.#mostParts = maxChainParts(size);
    this.#eventIndex = options.eventIndex;
    this.#indirect = options.indirect;
    this.#descriptors = new Uint32Array(buffer, descriptorIndex, size * 4);
    this.#available = new Uint16Array(buffer, availableIndex, RING + size + 1);
    this.#used = new Uint16Array(buffer, usedIndex, RING + size * 4 + 1);
    this.#usedElements = new Uint32Array(buffer, usedIndex + 4, size * 2);
    this.#usedEvent = RING + size;
    this.#availableEvent = RING + size * 4;
    this.#chains = new Array(size).fill(undefined);
    this.#order = options.inOrder ? new CompletionOrder(size) : null;
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
    this.#unfinished = record?.unfinished ?? [];
    this.#next = this.#seen = record === null || record.isFresh
      ? resumeAt(options, used)
      : (used + record.unfinished.length) & 0xffff;
    // An index comes again; a record does not become fresh again.
    this.isResumed = record === null ? used !== 0 : !record.isFresh;
  }

  get resubmitted(): number {
    return this.#unfinished.length;
  }

  get base(): number {
    return this.#next;
  }

  get isAvailable(): boolean {
    return this.#hasRoom && (this.#next !== this.#seen || this.#hasMore);
  }

  get #hasRoom(): boolean {
    return this.#parts < MAX_PARTS_IN_FLIGHT;
  }

  /** Whether there is something behind what was last seen. */
  get #hasMore(): boolean {
    return Atomics.load(this.#available, IDX) !== this.#next ||
      this.#takenAgain < this.#unfinished.length;
  }

  take(): Chain | null {
    if ((this.isHeldUp = !this.#hasRoom)) return null;
    if (this.#takenAgain < this.#unfinished.length) {
      return this.#takeChain(this.#unfinished[this.#takenAgain++], true);
    }
    const next = this.#next;
    if (next === this.#seen) {
      const index = Atomics.load(this.#available, IDX);
      if (index === next) return null;
      const ahead = (index - next) & 0xffff;
      if (ahead > this.size) {
        throw new RingError(
          "available-index",
          `The available index went from ${next} to ${index}, which is ${ahead} buffers in a queue of ${this.size}`,
        );
      }
      this.#seen = index;
    }
    const head = this.#available[RING + (next & this.#mask)];
    const chain = this.#takeChain(head, false);
    this.#inflight?.taken(head);
    this.#next = (next + 1) & 0xffff;
    return chain;
  }

  #takeChain(head: number, isResubmitted: boolean): Chain {
    if (head >= this.size) {
      throw new RingError("descriptor-index", `The head is ${head} in a queue of ${this.size}`);
    }
    const chain = this.#chains[head] ??= new Chain(head, this.#memory.u8, this.#mostParts);
    if (chain.inFlight || chain.held >= 0) {
      throw new RingError("head-in-flight", `Descriptor ${head} is in flight`);
    }
    this.#read(chain, head);
    chain.inFlight = true;
    chain.isResubmitted = isResubmitted;
    chain.previous = this.#lastTaken;
    this.#lastTaken = chain.slot;
    this.inFlight++;
    this.#parts += chain.parts;
    this.#order?.taken(chain);
    return chain;
  }

  /** Reads the descriptors of a chain, each once, and checks them. */
  #read(chain: Chain, head: number): void {
    const memory = this.#memory;
    const table = this.#descriptors;
    chain.begin(memory.u8, "split");
    let at = head;
    for (;;) {
      const low = table[at * 4], high = table[at * 4 + 1];
      const bytes = table[at * 4 + 2];
      const flagsAndNext = table[at * 4 + 3];
      const gpa = low + high * 2 ** 32;
      if (flagsAndNext & VIRTQ_DESC_F_INDIRECT) {
        if (!this.#indirect) {
          throw new RingError("indirect-negotiated", `Descriptor ${at} has the INDIRECT flag`);
        }
        if (flagsAndNext & VIRTQ_DESC_F_NEXT) {
          throw new RingError(
            "indirect-next",
            `Descriptor ${at} has the INDIRECT and the NEXT flag`,
          );
        }
        this.#readIndirect(chain, at, gpa, bytes);
        break;
      }
      this.#count(chain, head, this.size);
      chain.add(memory, gpa, bytes, (flagsAndNext & VIRTQ_DESC_F_WRITE) !== 0);
      if (!(flagsAndNext & VIRTQ_DESC_F_NEXT)) break;
      const next = flagsAndNext >>> 16;
      if (next >= this.size) {
        throw new RingError(
          "descriptor-next",
          `Descriptor ${at} goes on at ${next} in a table of ${this.size}`,
        );
      }
      at = next;
    }
    chain.end();
  }

  #readIndirect(chain: Chain, at: number, gpa: number, tableBytes: number): void {
    const memory = this.#memory;
    if (tableBytes === 0 || tableBytes % DESCRIPTOR_BYTES !== 0) {
      throw new RingError(
        "indirect-length",
        `Descriptor ${at} has an indirect table of ${tableBytes} bytes`,
      );
    }
    const start = memory.regions.translate(gpa, tableBytes);
    if (start < 0) {
      throw new RingError(
        "indirect-address",
        `Descriptor ${at} has an indirect table at 0x${gpa.toString(16)}+0x${
          tableBytes.toString(16)
        }`,
      );
    }
    const entries = tableBytes / DESCRIPTOR_BYTES;
    const table = this.#table;
    let entry = 0;
    for (;;) {
      copyDescriptor(this.#view, start + entry * DESCRIPTOR_BYTES, table);
      const flagsAndNext = table[3];
      if (flagsAndNext & VIRTQ_DESC_F_INDIRECT) {
        throw new RingError(
          "indirect-nested",
          `Entry ${entry} of the indirect table of descriptor ${at} has the INDIRECT flag`,
        );
      }
      this.#count(chain, at, this.#mostParts);
      chain.add(
        memory,
        table[0] + table[1] * 2 ** 32,
        table[2],
        (flagsAndNext & VIRTQ_DESC_F_WRITE) !== 0,
      );
      if (!(flagsAndNext & VIRTQ_DESC_F_NEXT)) return;
      const next = flagsAndNext >>> 16;
      if (next >= entries) {
        throw new RingError(
          "descriptor-next",
          `Entry ${entry} of the indirect table of descriptor ${at} goes on at ${next} of ${entries}`,
        );
      }
      entry = next;
    }
  }

  #count(chain: Chain, at: number, most: number): void {
    if (++chain.descriptors > most) {
      throw new RingError(
        "chain-length",
        `The chain of descriptor ${at} has more than ${most} descriptors`,
      );
    }
  }

  put(chain: Chain, written: number): void {
    this.#returned(chain);
    const order = this.#order;
    if (order === null) return this.#use(chain, written);
    chain.held = written;
    for (let next = order.next(); next !== null; next = order.next()) {
      this.#use(next, next.held);
      next.held = -1;
    }
  }

  /** Fills the next element of the used ring. */
  #use(chain: Chain, written: number): void {
    const at = (this.#usedNext & this.#mask) * 2;
    this.#usedElements[at] = chain.slot;
    this.#usedElements[at + 1] = written;
    this.#usedNext = (this.#usedNext + 1) & 0xffff;
    this.#inflight?.used(chain.slot);
  }

  abandon(chain: Chain): void {
    // Its slot stays taken, so that the driver cannot use it again, and in order
    // nothing behind it goes back.
    chain.abandon();
    this.#parts -= chain.parts;
    this.inFlight--;
  }

  get held(): Chain[] {
    return this.#chains.filter((chain) => chain?.isHeld === true) as Chain[];
  }

  untake(chain: Chain): void {
    if (this.#chains[this.#lastTaken] !== chain || !chain.isHeld) {
      throw new Error(`Expected the chain that was taken last, got that of slot ${chain.slot}`);
    }
    this.#lastTaken = chain.previous;
    this.#returned(chain);
    this.#order?.untaken();
    if (chain.isResubmitted) {
      this.#takenAgain--;
      return;
    }
    this.#next = (this.#next - 1) & 0xffff;
    this.#inflight?.untaken(chain.slot);
  }

  giveBack(): void {
    for (;;) {
      const last = this.#chains[this.#lastTaken];
      if (last === undefined || !last.isHeld) break;
      this.untake(last);
    }
    for (const chain of this.held) {
      // The record still has one that was in flight when the ring began.
      if (chain.isResubmitted) this.#returned(chain);
      else this.put(chain, 0);
    }
  }

  #returned(chain: Chain): void {
    this.#parts -= chain.parts;
    chain.returned();
    this.inFlight--;
  }

  release(): void {
    for (const chain of this.#chains) chain?.release();
  }

  publish(): boolean {
    const next = this.#usedNext;
    const previous = this.#signalled;
    if (next === previous) return false;
    Atomics.store(this.#used, IDX, next);
    this.#inflight?.published(next);
    this.#signalled = next;
    if (!this.#eventIndex) {
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
    if (this.#eventIndex) Atomics.store(this.#used, this.#availableEvent, this.#next);
    else Atomics.store(this.#used, FLAGS, 0);
    return this.#hasRoom && this.#hasMore;
  }

  disarm(): void {
    if (!this.#eventIndex) Atomics.store(this.#used, FLAGS, VIRTQ_USED_F_NO_NOTIFY);
  }
}

/**
 * Where a ring goes on of which no record is kept. What stands between the used
 * index and the base was taken and never used. A device that stopped in good
 * order leaves nothing there; of one that died it is known only if it used
 * buffers in order: it has to be done again. A base that is further away than
 * the ring is long is no base: front-ends that cannot ask a device that died
 * may say anything.
 */
function resumeAt({ base, size, inOrder }: RingOptions, used: number): number {
  const isPlausible = base !== null && ((base - used) & 0xffff) <= size;
  return isPlausible && !inOrder ? base & 0xffff : used;
}
