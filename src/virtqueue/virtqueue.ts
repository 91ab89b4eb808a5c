/**
 * What the split and the packed ring have in common.
 *
 * @module
 */

import type { MemoryView } from "../memory/mod.ts";
import { Chain } from "./chain.ts";
import { CompletionOrder } from "./completion_order.ts";
import { DESCRIPTOR_BYTES, MAX_INDIRECT_DESCRIPTORS } from "./descriptor.ts";
import { RingError, type RingLayout, type RingRule } from "./rules.ts";

/** The most descriptors a queue may have: virtio 1.3, 2.7 and 2.8.10.1. */
export const MAX_QUEUE_SIZE = 32768;

/**
 * The most parts of the chains of a queue that are in flight; further chains wait. Indirect tables
 * can share their memory, so a guest needs little memory to name that many.
 */
export const MAX_PARTS_IN_FLIGHT = 262_144;

/** The most descriptors of a chain, and the most parts of guest memory that they lie in. */
export function maxChainParts(size: number): number {
  return Math.max(size, MAX_INDIRECT_DESCRIPTORS);
}

/** The bytes that each part of a ring takes. */
export interface RingBytes {
  /** The descriptor table (in a packed ring, the descriptor ring). */
  descriptor: number;
  /** The available ring (driver event suppression). */
  available: number;
  /** The used ring (device event suppression). */
  used: number;
}

/** Where a ring is and how it was negotiated. */
export interface RingOptions {
  /** The number of descriptors. */
  size: number;
  /** The index in the span of the descriptor table (or descriptor ring). */
  descriptorIndex: number;
  /** The index in the span of the available ring (or driver event suppression). */
  availableIndex: number;
  /** The index in the span of the used ring (or device event suppression). */
  usedIndex: number;
  /**
   * Where to resume: the value of SET_VRING_BASE; null if there was none. For a packed ring, the
   * lower half is the next available descriptor and the upper half the next used one, each with its
   * wrap counter in bit 15.
   */
  base: number | null;
  /** VIRTIO_F_RING_PACKED was negotiated. */
  packed: boolean;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  eventIndex: boolean;
  /** VIRTIO_F_INDIRECT_DESC was negotiated. */
  indirect: boolean;
  /** VIRTIO_F_IN_ORDER was negotiated: buffers are used in the order in which they were taken. */
  inOrder: boolean;
}

/** The value of SET_VRING_BASE for a ring that was never used. */
export function initialBase(packed: boolean): number {
  // Both wrap counters of a packed ring begin as 1: virtio 1.3, 2.8.1.
  return packed ? 0x8000_8000 : 0;
}

/** What the ID of a chain is in each layout. */
const ID = { split: "head", packed: "buffer ID" } as const;

/**
 * A ring seen from the device: what both layouts have in common. Every method is for one thread.
 * `take` and the constructor throw {@linkcode RingError} when the driver broke a rule, and the ring
 * is not to be used any more then.
 */
export abstract class Virtqueue {
  /** The number of descriptors. */
  readonly size: number;
  /** How many chains are taken and not yet put back. */
  inFlight = 0;
  /** The last `take` left a chain, as those in flight have too many parts. */
  isHeldUp = false;
  /** The ring was used before: the driver may not be notified of all used buffers. */
  abstract readonly isResumed: boolean;
  /** Where to resume after a stop: the value of GET_VRING_BASE. */
  abstract readonly base: number;
  /** Whether there is something to take, as far as can be seen without asking for a notification. */
  abstract readonly isAvailable: boolean;

  protected readonly memory: MemoryView;
  /** Guest memory, for indirect tables. */
  protected readonly view: DataView<ArrayBuffer>;
  protected readonly eventIndex: boolean;
  /** The most descriptors of an indirect table, and the most parts of a chain. */
  protected readonly mostParts: number;
  /** The chains that are taken again, by their numbers in the record. */
  protected unfinished: readonly number[] = [];
  /** How many of them were. */
  protected takenAgain = 0;
  readonly #layout: RingLayout;
  readonly #indirect: boolean;
  /** With VIRTIO_F_IN_ORDER. */
  readonly #order: CompletionOrder | null;
  /** By slot. A slot that was freed last is taken first, so that few chains are in use and cached. */
  readonly #chains: (Chain | undefined)[];
  /** Whether an ID is in use, by ID. */
  readonly #isUsed: Uint8Array<ArrayBuffer>;
  /** The slots that are free; the next one is at the end. */
  readonly #free: Uint16Array<ArrayBuffer>;
  #freeCount: number;
  /** The slot of the chain that was taken last. */
  #lastTaken = -1;
  /** How many parts the chains in flight have. */
  #parts = 0;

  /**
   * Checks size and alignment.
   *
   * @throws {RingError} When one of them is wrong.
   */
  constructor(memory: MemoryView, options: RingOptions) {
    const { size, packed, descriptorIndex, availableIndex, usedIndex } = options;
    this.#layout = packed ? "packed" : "split";
    if (size < 1 || size > MAX_QUEUE_SIZE || (!packed && (size & (size - 1)) !== 0)) {
      this.refuse("queue-size", `The queue size is ${size}`);
    }
    if (
      descriptorIndex % 16 !== 0 || availableIndex % (packed ? 4 : 2) !== 0 || usedIndex % 4 !== 0
    ) {
      const at = [descriptorIndex, availableIndex, usedIndex].map((i) => `0x${i.toString(16)}`);
      this.refuse("ring-alignment", `The ring's parts are at ${at.join(", ")}`);
    }
    this.size = size;
    this.memory = memory;
    this.view = new DataView(memory.u8.buffer);
    this.eventIndex = options.eventIndex;
    this.mostParts = maxChainParts(size);
    this.#indirect = options.indirect;
    this.#order = options.inOrder ? new CompletionOrder(size) : null;
    this.#chains = new Array(size).fill(undefined);
    this.#isUsed = new Uint8Array(size);
    this.#free = Uint16Array.from({ length: size }, (_, i) => size - 1 - i);
    this.#freeCount = size;
  }

  /** The next available chain, or null when there is none. */
  abstract take(): Chain | null;

  /**
   * Makes everything that was put back visible to the driver.
   *
   * @returns Whether the driver wants a notification of it.
   */
  abstract publish(): boolean;

  /**
   * Asks the driver for a notification of the next available buffer.
   *
   * @returns Whether there are new ones already, for which none will come.
   */
  abstract arm(): boolean;

  /** Tells the driver that notifications are not needed. */
  abstract disarm(): void;

  /** Fills the next used buffer, which the driver sees with the next `publish`. */
  protected abstract use(chain: Chain, written: number): void;

  /** Goes back before a chain that was taken from the ring. */
  protected abstract untaken(chain: Chain): void;

  /** The chains that are in flight, in a new array. */
  get held(): Chain[] {
    return this.#chains.filter((chain) => chain?.isHeld === true) as Chain[];
  }

  /**
   * How many chains that were in flight when the ring began are taken again, before new ones. Those
   * of them that a stop leaves untaken are still in the record.
   */
  get resubmitted(): number {
    return this.unfinished.length;
  }

  /**
   * Returns a chain to the driver, with the number of bytes that were written to it. With
   * VIRTIO_F_IN_ORDER the driver gets it when all that were taken before are back.
   */
  put(chain: Chain, written: number): void {
    this.#returned(chain);
    const order = this.#order;
    if (order === null) {
      this.use(chain, written);
      return this.#release(chain);
    }
    chain.held = written;
    for (let next = order.next(); next !== null; next = order.next()) {
      this.use(next, next.held);
      next.held = -1;
      this.#release(next);
    }
  }

  /**
   * Gives up a chain that the device cannot answer. It never goes back to the driver: its slot
   * stays taken, and in order nothing after it goes back.
   */
  abandon(chain: Chain): void {
    chain.abandon();
    this.#parts -= chain.parts;
    this.inFlight--;
  }

  /**
   * Gives back, unused, the chain that was taken last: the driver never learns of it, and the next
   * `take` returns it. Until then `arm` reports it.
   *
   * @throws {Error} When another chain was taken after it and is not given back, or when it is not
   * in flight.
   */
  untake(chain: Chain): void {
    if (this.#chains[this.#lastTaken] !== chain || !chain.isHeld) {
      throw new Error(`Expected the chain that was taken last, got that of slot ${chain.slot}`);
    }
    this.#lastTaken = chain.previous;
    this.#returned(chain);
    this.#release(chain);
    this.#order?.untaken();
    if (chain.isResubmitted) this.takenAgain--;
    else this.untaken(chain);
  }

  /**
   * Gives back, unused, all chains that are in flight, before the ring is released. Chains that
   * were taken before one that is put back already are used with no bytes, as the driver would miss
   * them otherwise.
   */
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

  /** Ends its use: a device that still has a chain finds it empty. */
  release(): void {
    for (const chain of this.#chains) chain?.release();
  }

  /** Whether the chains in flight leave room for another one. */
  protected get hasRoom(): boolean {
    return this.#parts < MAX_PARTS_IN_FLIGHT;
  }

  /** A free chain, empty, for what the driver made available with an ID. */
  protected chainFor(id: number): Chain {
    if (id >= this.size) {
      this.refuse(
        "descriptor-index",
        `The ${ID[this.#layout]} is ${id} in a queue of ${this.size}`,
      );
    }
    if (this.#isUsed[id] !== 0) {
      this.refuse("head-in-flight", `The ${ID[this.#layout]} ${id} is in flight`);
    }
    const { u8 } = this.memory;
    const slot = this.#free[this.#freeCount - 1];
    const chain = this.#chains[slot] ??= new Chain(slot, u8, this.mostParts);
    chain.begin(id, u8, this.#layout);
    return chain;
  }

  /** Notes that a chain, which has all its parts, is with the device. */
  protected taken(chain: Chain, isResubmitted: boolean): void {
    chain.end();
    this.#freeCount--;
    this.#isUsed[chain.id] = 1;
    chain.inFlight = true;
    chain.isResubmitted = isResubmitted;
    chain.previous = this.#lastTaken;
    this.#lastTaken = chain.slot;
    this.inFlight++;
    this.#parts += chain.parts;
    this.#order?.taken(chain);
  }

  /**
   * The index in the span of the indirect table that descriptor `at` names; `isAlone` says whether
   * that is the chain's only descriptor in the ring.
   */
  protected tableAt(at: number, gpa: number, bytes: number, isAlone: boolean): number {
    if (!this.#indirect) {
      this.refuse("indirect-negotiated", `Descriptor ${at} has the INDIRECT flag`);
    }
    if (!isAlone) {
      this.refuse("indirect-next", `Descriptor ${at} has the INDIRECT flag in a list of several`);
    }
    if (bytes === 0 || bytes % DESCRIPTOR_BYTES !== 0) {
      this.refuse("indirect-length", `Descriptor ${at} has an indirect table of ${bytes} bytes`);
    }
    const index = this.memory.regions.translate(gpa, bytes);
    if (index < 0) {
      const place = `0x${gpa.toString(16)}+0x${bytes.toString(16)}`;
      this.refuse("indirect-address", `Descriptor ${at} has an indirect table at ${place}`);
    }
    return index;
  }

  protected refuse(rule: RingRule, got: string): never {
    throw new RingError(rule, got, this.#layout);
  }

  /** The next chain that is taken may have its slot. */
  #release({ id, slot }: Chain): void {
    this.#isUsed[id] = 0;
    this.#free[this.#freeCount++] = slot;
  }

  #returned(chain: Chain): void {
    this.#parts -= chain.parts;
    chain.returned();
    this.inFlight--;
  }
}
