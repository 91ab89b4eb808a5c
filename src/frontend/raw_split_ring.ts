import { splitRingBytes } from "../virtqueue/mod.ts";
import type { RingPlaces } from "./driver_ring.ts";
import type { DriverMemory } from "./shared_memory.ts";

/** Flags of a descriptor: virtio 1.3, 2.7.5. */
export const descriptorFlags = {
  NEXT: 1,
  WRITE: 2,
  INDIRECT: 4,
} as const;

/** A descriptor as it is in memory: virtio 1.3, 2.7.5. */
export interface RawDescriptor {
  /** Guest physical address, 64 bits. */
  gpa: bigint;
  /** Length in bytes, 32 bits. */
  bytes: number;
  /** See {@linkcode descriptorFlags}; 16 bits. */
  flags: number;
  /** The next descriptor of the chain, 16 bits. */
  next: number;
}

/** Writes a descriptor anywhere in memory, such as into an indirect table. */
export function writeDescriptor(
  memory: DriverMemory,
  gpa: number,
  descriptor: Partial<RawDescriptor>,
): void {
  const { buffer, offset } = memory.locate(gpa, 16);
  const view = new DataView(buffer, offset, 16);
  view.setBigUint64(0, descriptor.gpa ?? 0n, true);
  view.setUint32(8, descriptor.bytes ?? 0, true);
  view.setUint16(12, descriptor.flags ?? 0, true);
  view.setUint16(14, descriptor.next ?? 0, true);
}

/**
 * A split ring's memory without any rule, to put into it what a driver must not: any descriptor,
 * available entry, index or flag. It knows nothing of a {@linkcode DriverQueue} over the same
 * memory, nor that of it.
 *
 * Indexes and flags that both sides poll are atomic.
 *
 * @example A chain that loops
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { descriptorFlags, DriverQueue, SharedMemory } from "@vhostd/vhostd/frontend";
 *
 * using memory = new SharedMemory(1 << 20);
 * using queue = DriverQueue.create(memory, { size: 8 });
 * queue.raw.setDescriptor(0, { gpa: 0n, bytes: 1, flags: descriptorFlags.NEXT, next: 0 });
 * queue.raw.push(0);
 * assertEquals(queue.raw.availableIndex, 1);
 * ```
 */
export class RawSplitRing {
  readonly #size: number;
  readonly #memory: DriverMemory;
  readonly #descriptorGpa: number;
  readonly #available: Uint16Array<ArrayBuffer>;
  readonly #used: Uint16Array<ArrayBuffer>;
  readonly #usedElements: Uint32Array<ArrayBuffer>;

  /** Looks at a ring; nothing is changed. */
  constructor(memory: DriverMemory, places: RingPlaces) {
    const { size, descriptorGpa, availableGpa, usedGpa } = places;
    const bytes = splitRingBytes(size);
    memory.locate(descriptorGpa, bytes.descriptor);
    const available = memory.locate(availableGpa, bytes.available);
    const used = memory.locate(usedGpa, bytes.used);
    this.#memory = memory;
    this.#size = size;
    this.#descriptorGpa = descriptorGpa;
    this.#available = new Uint16Array(available.buffer, available.offset, 3 + size);
    this.#used = new Uint16Array(used.buffer, used.offset, 3 + 4 * size);
    this.#usedElements = new Uint32Array(used.buffer, used.offset + 4, 2 * size);
  }

  /** A descriptor as it is now. */
  descriptor(index: number): RawDescriptor {
    const { buffer, offset } = this.#memory.locate(this.#descriptorGpa + 16 * index, 16);
    const view = new DataView(buffer, offset, 16);
    return {
      gpa: view.getBigUint64(0, true),
      bytes: view.getUint32(8, true),
      flags: view.getUint16(12, true),
      next: view.getUint16(14, true),
    };
  }

  /** Writes a descriptor; missing fields become 0. */
  setDescriptor(index: number, descriptor: Partial<RawDescriptor>): void {
    writeDescriptor(this.#memory, this.#descriptorGpa + 16 * index, descriptor);
  }

  /** An entry of the available ring: a slot from 0 to size - 1. */
  available(slot: number): number {
    return this.#available[2 + slot];
  }

  /** Writes an entry of the available ring. */
  setAvailable(slot: number, head: number): void {
    this.#available[2 + slot] = head;
  }

  /** Writes the next entry of the available ring and makes it visible. */
  push(head: number): void {
    const index = this.availableIndex;
    this.setAvailable(index % this.#size, head);
    this.availableIndex = index + 1;
  }

  /** The index up to which entries are available, 16 bits. */
  get availableIndex(): number {
    return Atomics.load(this.#available, 1);
  }

  set availableIndex(value: number) {
    Atomics.store(this.#available, 1, value);
  }

  /** The flags of the available ring; 1 is NO_INTERRUPT. */
  get availableFlags(): number {
    return Atomics.load(this.#available, 0);
  }

  set availableFlags(value: number) {
    Atomics.store(this.#available, 0, value);
  }

  /** The used index after which the driver wants to know (event index). */
  get usedEvent(): number {
    return Atomics.load(this.#available, 2 + this.#size);
  }

  set usedEvent(value: number) {
    Atomics.store(this.#available, 2 + this.#size, value);
  }

  /** An element of the used ring: a slot from 0 to size - 1. */
  used(slot: number): { id: number; written: number } {
    return { id: this.#usedElements[2 * slot], written: this.#usedElements[2 * slot + 1] };
  }

  /** Writes an element of the used ring, which is the device's. */
  setUsed(slot: number, id: number, written: number): void {
    this.#usedElements[2 * slot] = id;
    this.#usedElements[2 * slot + 1] = written;
  }

  /** The index up to which elements are used, 16 bits; the device's. */
  get usedIndex(): number {
    return Atomics.load(this.#used, 1);
  }

  set usedIndex(value: number) {
    Atomics.store(this.#used, 1, value);
  }

  /** The flags of the used ring; 1 is NO_NOTIFY. The device's. */
  get usedFlags(): number {
    return Atomics.load(this.#used, 0);
  }

  set usedFlags(value: number) {
    Atomics.store(this.#used, 0, value);
  }

  /** The available index after which the device wants to know (event index). The device's. */
  get availableEvent(): number {
    return Atomics.load(this.#used, 2 + 4 * this.#size);
  }

  set availableEvent(value: number) {
    Atomics.store(this.#used, 2 + 4 * this.#size, value);
  }
}
