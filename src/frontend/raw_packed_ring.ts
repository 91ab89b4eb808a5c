import { packedRingBytes } from "../virtqueue/mod.ts";
import type { RingPlaces } from "./driver_ring.ts";
import type { DriverMemory } from "./shared_memory.ts";

/** Flags of a descriptor in a packed ring: virtio 1.3, 2.8.1, 2.8.3, 2.8.6 and 2.8.7. */
export const packedDescriptorFlags = {
  NEXT: 1,
  WRITE: 2,
  INDIRECT: 4,
  AVAIL: 1 << 7,
  USED: 1 << 15,
} as const;

/** A descriptor of a packed ring, or of an indirect table for one: virtio 1.3, 2.8.13. */
export interface RawPackedDescriptor {
  /** Guest physical address, 64 bits. */
  gpa: bigint;
  /** Length in bytes, 32 bits. */
  bytes: number;
  /** The buffer that it belongs to, 16 bits. */
  id: number;
  /** See {@linkcode packedDescriptorFlags}; 16 bits. */
  flags: number;
}

/** Event suppression, the driver's or the device's: virtio 1.3, 2.8.14. */
export interface RawEventSuppression {
  /** A descriptor's index, with a wrap counter in bit 15. */
  offWrap: number;
  /** 0: always notify, 1: never, 2: when that descriptor is reached. */
  flags: number;
}

/**
 * A packed ring's memory without any rule, to put into it what a driver must not. It knows nothing
 * of a {@linkcode PackedDriverQueue} over the same memory, nor that of it.
 *
 * Flags that both sides poll are atomic, and written last.
 *
 * @example A list that runs into a descriptor that is not available
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { packedDescriptorFlags, PackedDriverQueue, SharedMemory } from "@vhostd/vhostd/frontend";
 *
 * using memory = new SharedMemory(1 << 20);
 * using queue = PackedDriverQueue.create(memory, { size: 8 });
 * const { AVAIL, NEXT } = packedDescriptorFlags;
 * queue.raw.setDescriptor(0, { gpa: 0n, bytes: 1, flags: AVAIL | NEXT });
 * assertEquals(queue.raw.descriptor(1).flags, 0);
 * ```
 */
export class RawPackedRing {
  readonly #descriptors: DataView<ArrayBuffer>;
  readonly #halves: Uint16Array<ArrayBuffer>;
  readonly #driverEvent: Uint16Array<ArrayBuffer>;
  readonly #deviceEvent: Uint16Array<ArrayBuffer>;

  /** Looks at a ring; nothing is changed. */
  constructor(memory: DriverMemory, places: RingPlaces) {
    const { size, descriptorGpa, availableGpa, usedGpa } = places;
    const bytes = packedRingBytes(size);
    const descriptors = memory.locate(descriptorGpa, bytes.descriptor);
    const driver = memory.locate(availableGpa, bytes.available);
    const device = memory.locate(usedGpa, bytes.used);
    this.#descriptors = new DataView(
      descriptors.buffer,
      descriptors.offset,
      bytes.descriptor,
    );
    this.#halves = new Uint16Array(descriptors.buffer, descriptors.offset, size * 8);
    this.#driverEvent = new Uint16Array(driver.buffer, driver.offset, 2);
    this.#deviceEvent = new Uint16Array(device.buffer, device.offset, 2);
  }

  /** A descriptor as it is now. */
  descriptor(index: number): RawPackedDescriptor {
    const flags = Atomics.load(this.#halves, index * 8 + 7);
    return {
      gpa: this.#descriptors.getBigUint64(index * 16, true),
      bytes: this.#descriptors.getUint32(index * 16 + 8, true),
      id: this.#descriptors.getUint16(index * 16 + 12, true),
      flags,
    };
  }

  /** Writes a descriptor; missing fields become 0. */
  setDescriptor(index: number, descriptor: Partial<RawPackedDescriptor>): void {
    this.#descriptors.setBigUint64(index * 16, descriptor.gpa ?? 0n, true);
    this.#descriptors.setUint32(index * 16 + 8, descriptor.bytes ?? 0, true);
    this.#descriptors.setUint16(index * 16 + 12, descriptor.id ?? 0, true);
    Atomics.store(this.#halves, index * 8 + 7, descriptor.flags ?? 0);
  }

  /** When the driver wants to be notified. */
  get driverEvent(): RawEventSuppression {
    return read(this.#driverEvent);
  }

  set driverEvent(value: RawEventSuppression) {
    write(this.#driverEvent, value);
  }

  /** When the device wants to be notified. The device's. */
  get deviceEvent(): RawEventSuppression {
    return read(this.#deviceEvent);
  }

  set deviceEvent(value: RawEventSuppression) {
    write(this.#deviceEvent, value);
  }
}

function read(event: Uint16Array): RawEventSuppression {
  const flags = Atomics.load(event, 1);
  return { offWrap: Atomics.load(event, 0), flags };
}

function write(event: Uint16Array, { offWrap, flags }: RawEventSuppression): void {
  Atomics.store(event, 0, offWrap);
  Atomics.store(event, 1, flags);
}
