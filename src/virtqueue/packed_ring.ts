/**
 * The packed virtqueue: virtio 1.3, 2.8.
 *
 * @module
 */

import type { MemoryView } from "../memory/mod.ts";
import { Chain } from "./chain.ts";
import { CompletionOrder } from "./completion_order.ts";
import {
  copyDescriptor,
  DESCRIPTOR_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "./descriptor.ts";
import type { RingBytes } from "./ring.ts";
import { RingError } from "./rules.ts";
import { MAX_QUEUE_SIZE, type RingOptions, type Virtqueue } from "./virtqueue.ts";

/** Made available in rounds with wrap counter 1: virtio 1.3, 2.8.1. */
export const VIRTQ_DESC_F_AVAIL = 1 << 7;
/** Used in rounds with wrap counter 1; made available in the others. */
export const VIRTQ_DESC_F_USED = 1 << 15;

// Places of a descriptor's ID and flags, in units of u16 and u32.
const ID = 6;
const FLAGS = 7;
const ID_AND_FLAGS = 3;

// Event suppression: virtio 1.3, 2.8.14. Places in units of u16.
export const OFF_WRAP = 0;
export const EVENT_FLAGS = 1;
export const RING_EVENT_FLAGS_ENABLE = 0;
export const RING_EVENT_FLAGS_DISABLE = 1;
export const RING_EVENT_FLAGS_DESC = 2;

/** The bytes that each part of a packed ring of `size` descriptors takes: virtio 1.3, 2.8.10.1. */
export function packedRingBytes(size: number): RingBytes {
  return { descriptor: DESCRIPTOR_BYTES * size, available: 4, used: 4 };
}

/**
 * The device's side of a packed virtqueue.
 *
 * A place in the ring is counted from 0 to twice the size: the second half is
 * the round with the other wrap counter, so that places are compared by
 * subtraction.
 */
export class PackedRing implements Virtqueue {
  readonly size: number;
  readonly #eventIndex: boolean;
  readonly #indirect: boolean;
  readonly #memory: MemoryView;
  /** Guest memory, for indirect tables. */
  readonly #view: DataView<ArrayBuffer>;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #halves: Uint16Array<ArrayBuffer>;
  readonly #driverEvent: Uint16Array<ArrayBuffer>;
  readonly #deviceEvent: Uint16Array<ArrayBuffer>;
  readonly #chains: (Chain | undefined)[];
  readonly #entry = new Uint32Array(4);
  /** ID and flags of the list that is being read, each read once. */
  readonly #idAndFlags: Uint32Array<ArrayBuffer>;
  /** Where the next available buffer is looked for. */
  #next: number;
  /** Where the next used buffer goes. */
  #usedNext: number;
  /** The first used buffer that the driver cannot see yet, and the flags that will show it; -1 if none. */
  #hidden = -1;
  #hiddenFlags = 0;
  /** Where the driver was last asked whether it wants to know. */
  #signalled: number;
  #signalledValid = false;
  inFlight = 0;

  /**
   * Places a ring.
   *
   * @throws {RingError} When its size, alignment or place is wrong.
   */
  constructor(memory: MemoryView, options: RingOptions) {
    const { size, descriptorIndex, availableIndex, usedIndex, base } = options;
    if (size < 1 || size > MAX_QUEUE_SIZE) {
      throw new RingError("queue-size", `The queue size is ${size}`, "packed");
    }
    if (descriptorIndex % 16 !== 0 || availableIndex % 4 !== 0 || usedIndex % 4 !== 0) {
      const at = [descriptorIndex, availableIndex, usedIndex].map((i) => `0x${i.toString(16)}`);
      throw new RingError("ring-alignment", `The ring's parts are at ${at.join(", ")}`, "packed");
    }
    const { buffer } = memory.u8;
    this.#memory = memory;
    this.#view = new DataView(buffer);
    this.size = size;
    this.#eventIndex = options.eventIndex;
    this.#indirect = options.indirect;
    this.#words = new Uint32Array(buffer, descriptorIndex, size * 4);
    this.#halves = new Uint16Array(buffer, descriptorIndex, size * 8);
    this.#driverEvent = new Uint16Array(buffer, availableIndex, 2);
    this.#deviceEvent = new Uint16Array(buffer, usedIndex, 2);
    this.#chains = new Array(size).fill(undefined);
    this.#idAndFlags = new Uint32Array(size);
    this.#next = this.#place(base & 0xffff);
    this.#usedNext = this.#signalled = this.#place(base >>> 16);
  }

  /** A place from an index with its wrap counter in bit 15. */
  #place(offWrap: number): number {
    return (offWrap & 0x7fff) % this.size + (offWrap & 0x8000 ? 0 : this.size);
  }

  /** An index with its wrap counter in bit 15, from a place. */
  #offWrap(place: number): number {
    return place < this.size ? place | 0x8000 : place - this.size;
  }

  #ahead(place: number, by: number): number {
    const next = place + by;
    return next >= 2 * this.size ? next - 2 * this.size : next;
  }

  get base(): number {
    return (this.#offWrap(this.#next) | this.#offWrap(this.#usedNext) << 16) >>> 0;
  }

  /** Whether the descriptor at a place is available: virtio 1.3, 2.8.1. */
  #isAvailable(place: number): boolean {
    const wrap = place < this.size ? 1 : 0;
    const at = place < this.size ? place : place - this.size;
    const flags = Atomics.load(this.#halves, at * 8 + 7);
    return (flags >> AVAIL_SHIFT & 1) === wrap && (flags >> USED_SHIFT) !== wrap;
  }

  take(): Chain | null {
    if (!this.#isAvailable(this.#next)) return null;
    const { size } = this;
    const words = this.#words;
    // The buffer ID stands in the last descriptor: find it before reading buffers.
    const first = this.#next < size ? this.#next : this.#next - size;
    let at = first;
    let count = 0;
    let last: number;
    do {
      if (count === size) {
        throw new RingError(
          "chain-length",
          `The list of descriptor ${first} has more than ${size} descriptors`,
          "packed",
        );
      }
      this.#idAndFlags[count++] = last = words[at * 4 + 3];
      at = at + 1 === size ? 0 : at + 1;
    } while (last >>> 16 & VIRTQ_DESC_F_NEXT);
    const id = last & 0xffff;
    if (id >= size) {
      throw new RingError(
        "descriptor-index",
        `The buffer ID is ${id} in a queue of ${size}`,
        "packed",
      );
    }
    const chain = this.#chains[id] ??= new Chain(id, this.#memory.u8);
    if (chain.inFlight) {
      throw new RingError("head-in-flight", `Buffer ${id} is in flight`, "packed");
    }
    this.#read(chain, first, count);
    chain.inFlight = true;
    this.inFlight++;
    this.#next = this.#ahead(this.#next, count);
    return chain;
  }

  #read(chain: Chain, at: number, count: number): void {
    const words = this.#words;
    chain.begin(this.#memory.u8, "packed");
    chain.ringDescriptors = count;
    for (let i = 0; i < count; i++) {
      const gpa = words[at * 4] + words[at * 4 + 1] * 2 ** 32;
      const bytes = words[at * 4 + 2];
      const flags = this.#idAndFlags[i] >>> 16;
      if (flags & VIRTQ_DESC_F_INDIRECT) {
        if (!this.#indirect) {
          throw new RingError(
            "indirect-negotiated",
            `Descriptor ${at} has the INDIRECT flag`,
            "packed",
          );
        }
        if (count > 1) {
          throw new RingError(
            "indirect-next",
            `Descriptor ${at} has the INDIRECT flag in a list of ${count}`,
            "packed",
          );
        }
        this.#readIndirect(chain, at, gpa, bytes);
      } else {
        chain.descriptors++;
        chain.add(this.#memory, gpa, bytes, (flags & VIRTQ_DESC_F_WRITE) !== 0);
      }
      at = at + 1 === this.size ? 0 : at + 1;
    }
    chain.end();
  }

  #readIndirect(chain: Chain, at: number, gpa: number, tableBytes: number): void {
    if (tableBytes === 0 || tableBytes % DESCRIPTOR_BYTES !== 0) {
      throw new RingError(
        "indirect-length",
        `Descriptor ${at} has an indirect table of ${tableBytes} bytes`,
        "packed",
      );
    }
    const entries = tableBytes / DESCRIPTOR_BYTES;
    if (entries > this.size) {
      throw new RingError(
        "chain-length",
        `The table of descriptor ${at} has ${entries} descriptors`,
        "packed",
      );
    }
    const start = this.#memory.regions.translate(gpa, tableBytes);
    if (start < 0) {
      throw new RingError(
        "indirect-address",
        `Descriptor ${at} has an indirect table at 0x${gpa.toString(16)}+0x${
          tableBytes.toString(16)
        }`,
        "packed",
      );
    }
    const entry = this.#entry;
    for (let i = 0; i < entries; i++) {
      copyDescriptor(this.#view, start + i * DESCRIPTOR_BYTES, entry);
      // WRITE is the only flag with a meaning here, the others are ignored: virtio 1.3, 2.8.7.
      chain.descriptors++;
      chain.add(
        this.#memory,
        entry[0] + entry[1] * 2 ** 32,
        entry[2],
        (entry[3] >>> 16 & VIRTQ_DESC_F_WRITE) !== 0,
      );
    }
  }

  put(chain: Chain, written: number): void {
    const place = this.#usedNext;
    const wrap = place < this.size ? 1 : 0;
    const at = place < this.size ? place : place - this.size;
    this.#words[at * 4 + 2] = written;
    this.#halves[at * 8 + 6] = chain.slot;
    const flags = wrap << AVAIL_SHIFT | wrap << USED_SHIFT | (written > 0 ? VIRTQ_DESC_F_WRITE : 0);
    // The driver looks at used buffers in ring order: while the first one of a
    // batch is not shown, it sees none of them.
    if (this.#hidden < 0) {
      this.#hidden = at;
      this.#hiddenFlags = flags;
    } else {
      this.#halves[at * 8 + 7] = flags;
    }
    this.#usedNext = this.#ahead(place, chain.ringDescriptors);
    chain.inFlight = false;
    this.inFlight--;
  }

  abandon(_chain: Chain): void {
    // Its slot stays taken, so that the driver cannot use it again.
    this.inFlight--;
  }

  publish(): boolean {
    if (this.#hidden < 0) return false;
    Atomics.store(this.#halves, this.#hidden * 8 + 7, this.#hiddenFlags);
    this.#hidden = -1;
    const next = this.#usedNext, previous = this.#signalled;
    this.#signalled = next;
    const flags = Atomics.load(this.#driverEvent, EVENT_FLAGS) & 3;
    if (flags !== RING_EVENT_FLAGS_DESC || !this.#eventIndex) {
      return flags !== RING_EVENT_FLAGS_DISABLE;
    }
    if (!this.#signalledValid) return this.#signalledValid = true;
    const event = this.#place(Atomics.load(this.#driverEvent, OFF_WRAP));
    const round = 2 * this.size;
    return (next - event - 1 + round) % round < (next - previous + round) % round;
  }

  arm(): boolean {
    if (this.#eventIndex) {
      Atomics.store(this.#deviceEvent, OFF_WRAP, this.#offWrap(this.#next));
      Atomics.store(this.#deviceEvent, EVENT_FLAGS, RING_EVENT_FLAGS_DESC);
    } else {
      Atomics.store(this.#deviceEvent, EVENT_FLAGS, RING_EVENT_FLAGS_ENABLE);
    }
    return this.#isAvailable(this.#next);
  }

  disarm(): void {
    if (!this.#eventIndex) Atomics.store(this.#deviceEvent, EVENT_FLAGS, RING_EVENT_FLAGS_DISABLE);
  }
}
