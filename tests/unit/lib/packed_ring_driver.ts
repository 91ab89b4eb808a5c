/**
 * The driver's side of a packed ring over plain memory, for unit tests. It checks nothing.
 *
 * @module
 */

import type { MemoryView } from "../../../src/memory/regions.ts";
import { initialBase, PackedRing, type RingOptions } from "../../../src/virtqueue/mod.ts";
import { NEXT, testMemory } from "./ring_driver.ts";

/** Addresses of the test ring's areas. */
const DESCRIPTORS = 0x1000, DRIVER_EVENT = 0x9000, DEVICE_EVENT = 0xb000;

/** Descriptor flags AVAIL and USED. */
const AVAIL = 1 << 7, USED = 1 << 15;

/** The values of event suppression flags. */
export const ENABLE = 0, DISABLE = 1, DESC = 2;

/** A descriptor as the driver writes it, without AVAIL and USED. */
export interface PackedDescriptor {
  gpa: number | bigint;
  bytes: number;
  flags?: number;
  id?: number;
}

/** The value of SET_VRING_BASE for a place of the ring, with nothing in flight. */
export function baseAt(place: number, size: number): number {
  const half = place < size ? place | 0x8000 : place - size;
  return (half | half << 16) >>> 0;
}

/** A driver and the device's ring. */
export class PackedRingDriver {
  readonly layout = "packed";
  readonly memory: MemoryView;
  readonly size: number;
  readonly ring: PackedRing;
  readonly view: DataView;
  /** The place of the next descriptor; from `size` on, in a round with wrap counter 0. */
  place: number;
  /** The place of the next used descriptor. */
  usedPlace: number;

  /** Places a ring of `size` descriptors; those before the base are used. */
  constructor(size: number, options: Partial<RingOptions> = {}, memory: MemoryView = testMemory()) {
    const base = options.base ?? initialBase(true);
    this.memory = memory;
    this.size = size;
    this.view = new DataView(memory.u8.buffer);
    this.place = (base & 0x7fff) + (base & 0x8000 ? 0 : size);
    this.usedPlace = this.place;
    for (let at = 0; at < size && size <= 32768; at++) {
      const wrap = at < this.place % size ? this.place < size : this.place >= size;
      this.setFlags(at, wrap ? AVAIL | USED : 0);
    }
    this.ring = new PackedRing(memory, {
      size,
      descriptorIndex: DESCRIPTORS,
      availableIndex: DRIVER_EVENT,
      usedIndex: DEVICE_EVENT,
      base,
      packed: true,
      eventIndex: false,
      indirect: true,
      inOrder: false,
      ...options,
    });
  }

  /** The flags that make a descriptor at a place available. */
  available(place: number): number {
    return place < this.size ? AVAIL : USED;
  }

  /** Writes all of a descriptor, of the ring or of a table elsewhere. */
  describe(at: number, descriptor: PackedDescriptor, table = DESCRIPTORS): void {
    const { gpa, bytes, flags = 0, id = 0 } = descriptor;
    const offset = table + at * 16;
    this.view.setBigUint64(offset, BigInt(gpa), true);
    this.view.setUint32(offset + 8, bytes, true);
    this.view.setUint16(offset + 12, id, true);
    this.view.setUint16(offset + 14, flags, true);
  }

  setFlags(at: number, flags: number): void {
    this.view.setUint16(DESCRIPTORS + at * 16 + 14, flags, true);
  }

  /** Makes a list available, writing its first descriptor last. */
  offer(descriptors: PackedDescriptor[], id = 0): void {
    const { size } = this;
    const first = this.place;
    const places = descriptors.map((_, i) => (first + i) % (2 * size));
    const flags = descriptors.map((descriptor, i) =>
      (descriptor.flags ?? 0) | this.available(places[i]) |
      (i === descriptors.length - 1 ? 0 : NEXT)
    );
    descriptors.forEach((descriptor, i) => {
      // Only the last descriptor's ID is used.
      const isLast = i === descriptors.length - 1;
      this.describe(places[i] % size, {
        ...descriptor,
        id: isLast ? id : 0xffff,
        flags: i > 0 ? flags[i] : undefined,
      });
    });
    this.setFlags(first % size, flags[0]);
    this.place = (first + descriptors.length) % (2 * size);
  }

  /** A descriptor of the ring. */
  descriptor(at: number): { id: number; bytes: number; flags: number } {
    const offset = DESCRIPTORS + at * 16;
    return {
      id: this.view.getUint16(offset + 12, true),
      bytes: this.view.getUint32(offset + 8, true),
      flags: this.view.getUint16(offset + 14, true),
    };
  }

  /** The next used descriptor, if there is one; `count` is the length of its list. */
  used(count: number): { id: number; bytes: number; flags: number } | undefined {
    const { size } = this;
    const seen = this.descriptor(this.usedPlace % size);
    if ((seen.flags & (AVAIL | USED)) !== (this.usedPlace < size ? AVAIL | USED : 0)) return;
    this.usedPlace = (this.usedPlace + count) % (2 * size);
    return { ...seen, flags: seen.flags & ~(AVAIL | USED) };
  }

  /** When the driver wants to be notified. */
  setDriverEvent(flags: number, place = 0): void {
    const { size } = this;
    this.view.setUint16(DRIVER_EVENT, place < size ? place | 0x8000 : place - size, true);
    this.view.setUint16(DRIVER_EVENT + 2, flags, true);
  }

  /** When the device wants to be notified. */
  get deviceEvent(): { flags: number; place: number } {
    const offWrap = this.view.getUint16(DEVICE_EVENT, true);
    return {
      flags: this.view.getUint16(DEVICE_EVENT + 2, true),
      place: (offWrap & 0x7fff) + (offWrap & 0x8000 ? 0 : this.size),
    };
  }
}
