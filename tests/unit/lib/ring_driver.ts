/**
 * The driver's side of a split ring over plain memory, for unit tests. It checks nothing.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { type MemoryView, RegionTable } from "../../../src/memory/regions.ts";
import {
  type Parts,
  RingError,
  type RingLayout,
  type RingOptions,
  type RingRule,
  ringRules,
  SplitRing,
  type Virtqueue,
} from "../../../src/virtqueue/mod.ts";

/** Addresses of the test ring's areas. */
const DESCRIPTORS = 0x1000, AVAILABLE = 0x9000, USED = 0xb000;

/** The address of buffers, after the ring's areas. */
export const BUFFERS = 0x10000;

/** The size of the test memory. */
export const MEMORY_BYTES = 0x40000;

/** Descriptor flags. */
export const NEXT = 1, WRITE = 2, INDIRECT = 4;

/** A descriptor as the driver writes it. */
export interface Descriptor {
  gpa: number | bigint;
  bytes: number;
  flags?: number;
  next?: number;
}

/** Memory of one region, at the guest address that is its index. */
export function testMemory(bytes = MEMORY_BYTES): MemoryView {
  return {
    u8: new Uint8Array(new ArrayBuffer(bytes)),
    base: 0,
    regions: new RegionTable([{ guestAddress: 0, bytes, userAddress: 0, index: 0 }]),
  };
}

/** Expects that taking the next chain breaks a rule, and that the error names it. */
export function assertBreaks(
  { ring, layout }: { ring: Virtqueue; layout: RingLayout },
  rule: RingRule,
): RingError {
  const error = assertThrows(() => ring.take(), RingError);
  assertEquals(error.rule, rule);
  assertEquals(error.section, `virtio 1.3, ${ringRules[rule][layout]}`);
  assert(error.message.includes(ringRules[rule].text), error.message);
  return error;
}

/** The addresses and sizes of parts. */
export function places(parts: Parts): [number, number][] {
  return [...parts].map((part) => [part.byteOffset, part.length]);
}

/** A driver and the device's ring. */
export class RingDriver {
  readonly layout = "split";
  readonly memory: MemoryView;
  readonly size: number;
  readonly ring: SplitRing;
  readonly view: DataView;

  /** Places a ring of `size` descriptors. */
  constructor(size: number, options: Partial<RingOptions> = {}, memory: MemoryView = testMemory()) {
    this.memory = memory;
    this.size = size;
    this.view = new DataView(memory.u8.buffer);
    this.availableIndex = options.base ?? 0;
    this.view.setUint16(USED + 2, options.base ?? 0, true);
    this.ring = new SplitRing(memory, {
      size,
      descriptorIndex: DESCRIPTORS,
      availableIndex: AVAILABLE,
      usedIndex: USED,
      base: 0,
      packed: false,
      eventIndex: false,
      indirect: true,
      inOrder: false,
      ...options,
    });
  }

  /** Writes a descriptor of the table, or of a table elsewhere. */
  describe(at: number, { gpa, bytes, flags = 0, next = 0 }: Descriptor, table = DESCRIPTORS): void {
    const offset = table + at * 16;
    this.view.setBigUint64(offset, BigInt(gpa), true);
    this.view.setUint32(offset + 8, bytes, true);
    this.view.setUint16(offset + 12, flags, true);
    this.view.setUint16(offset + 14, next, true);
  }

  /** Makes a head available. */
  offer(head: number): void {
    const index = this.availableIndex;
    this.view.setUint16(AVAILABLE + 4 + (index % this.size) * 2, head, true);
    this.availableIndex = index + 1;
  }

  /** Writes a chain into consecutive descriptors from `head` on, and makes it available. */
  offerChain(descriptors: Descriptor[], head = 0): void {
    descriptors.forEach((descriptor, i) => {
      const last = i === descriptors.length - 1;
      this.describe((head + i) % this.size, {
        ...descriptor,
        flags: (descriptor.flags ?? 0) | (last ? 0 : NEXT),
        next: last ? 0 : (head + i + 1) % this.size,
      });
    });
    this.offer(head);
  }

  /** The available index. */
  get availableIndex(): number {
    return this.view.getUint16(AVAILABLE + 2, true);
  }
  set availableIndex(index: number) {
    this.view.setUint16(AVAILABLE + 2, index, true);
  }

  /** The flags of the available ring. */
  set availableFlags(flags: number) {
    this.view.setUint16(AVAILABLE, flags, true);
  }

  /** The used index at which the driver wants a notification. */
  set usedEvent(index: number) {
    this.view.setUint16(AVAILABLE + 4 + this.size * 2, index, true);
  }

  /** The flags of the used ring. */
  get usedFlags(): number {
    return this.view.getUint16(USED, true);
  }

  /** The used index. */
  get usedIndex(): number {
    return this.view.getUint16(USED + 2, true);
  }

  /** The available index at which the device wants a notification. */
  get availableEvent(): number {
    return this.view.getUint16(USED + 4 + this.size * 8, true);
  }

  /** An element of the used ring. */
  used(index: number): { id: number; bytes: number } {
    const at = USED + 4 + (index % this.size) * 8;
    return { id: this.view.getUint32(at, true), bytes: this.view.getUint32(at + 4, true) };
  }
}
