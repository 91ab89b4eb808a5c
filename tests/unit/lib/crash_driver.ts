/**
 * A correct driver for devices that crash: it makes numbered requests, knows which are in flight, and
 * can be copied together with its memory.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { type MemoryView, RegionTable } from "../../../src/memory/regions.ts";
import { type Chain, initialBase, type RingOptions } from "../../../src/virtqueue/mod.ts";
import type { Random } from "../../../tools/lib/random.ts";

const DESCRIPTORS = 0, AVAILABLE = 0x400, USED = 0x600, TABLES = 0x800;
const TABLE_BYTES = 64;
const MEMORY_BYTES = 0x1000;

/** The address of a request's first buffer encodes its number. */
const FIRST_BUFFER = 0x1_0000, BUFFER_BYTES = 16;

const NEXT = 1, WRITE = 2, INDIRECT = 4;
const AVAIL = 1 << 7, USED_FLAG = 1 << 15;

/** A request in flight. */
interface Request {
  tag: number;
  /** Its descriptors in the ring; in a split one the head comes first. */
  slots: number[];
}

/** The number of a chain's request. */
export function tagOf(chain: Chain): number {
  return (chain.readable.index(0) - FIRST_BUFFER) / BUFFER_BYTES;
}

/** The common part of both layouts. */
export abstract class CrashDriver {
  readonly size: number;
  readonly inOrder: boolean;
  /** VIRTIO_F_INDIRECT_DESC was negotiated. */
  indirect = true;
  memory: ArrayBuffer = new ArrayBuffer(MEMORY_BYTES);
  protected view = new DataView(this.memory);
  /** Requests in flight, the oldest first. */
  outstanding: Request[] = [];
  protected free: number[];
  protected nextTag = 0;

  constructor(size: number, inOrder: boolean) {
    this.size = size;
    this.inOrder = inOrder;
    this.free = Array.from({ length: size }, (_, i) => i);
  }

  /** The numbers of the requests in flight. */
  get tags(): number[] {
    return this.outstanding.map(({ tag }) => tag);
  }

  /** The ring's addresses; `base` is the front-end's. */
  options(base: number | null): RingOptions {
    return {
      size: this.size,
      descriptorIndex: DESCRIPTORS,
      availableIndex: AVAILABLE,
      usedIndex: USED,
      base,
      packed: this.packed,
      eventIndex: false,
      indirect: this.indirect,
      inOrder: this.inOrder,
    };
  }

  /** The memory as a ring sees it: buffers may be anywhere, as they are never accessed. */
  get memoryView(): MemoryView {
    const bytes = 2 ** 40;
    return {
      u8: new Uint8Array(this.memory),
      base: 0,
      regions: new RegionTable([{ guestAddress: 0, bytes, userAddress: 0, index: 0 }]),
    };
  }

  abstract readonly packed: boolean;
  protected abstract make(request: Request, isIndirect: boolean): void;
  /** The head or ID of the next completed request. */
  protected abstract nextUsed(): number | undefined;
  protected abstract keyOf(request: Request): number;

  /** Makes a request of up to three parts, or an indirect one, if it fits. */
  addAny(random: Random): void {
    this.add(random.between(1, 3), this.size > 1 && random.chance(1, 3));
  }

  /** Makes a request, if it fits. */
  add(parts: number, isIndirect = false): void {
    const count = isIndirect ? 1 : parts;
    if (this.free.length < count) return;
    const request = { tag: this.nextTag++, slots: this.free.splice(0, count) };
    this.outstanding.push(request);
    this.make(request, isIndirect);
  }

  /** Takes completed requests; expects each once, and in order if that was negotiated. */
  poll(): void {
    for (let key = this.nextUsed(); key !== undefined; key = this.nextUsed()) {
      const at = this.outstanding.findIndex((request) => this.keyOf(request) === key);
      assert(at >= 0, `${key} came back, which was not in flight`);
      if (this.inOrder) assertEquals(at, 0, "A request came back before its predecessors");
      const [request] = this.outstanding.splice(at, 1);
      this.passed(request);
      this.free.push(...request.slots);
    }
  }

  /** Removes a completed request. */
  protected passed(_request: Request): void {}

  protected describe(at: number, tag: number, bytes: number, flags: number, last: number): void {
    const gpa = FIRST_BUFFER + tag * BUFFER_BYTES;
    this.view.setBigUint64(at, BigInt(gpa), true);
    this.view.setUint32(at + 8, bytes, true);
    const [id, flagsAt] = this.packed ? [12, 14] : [14, 12];
    this.view.setUint16(at + id, last, true);
    this.view.setUint16(at + flagsAt, flags, true);
  }

  /** An indirect table of two parts. */
  protected table({ tag, slots: [slot] }: Request): { gpa: number; bytes: number } {
    const at = TABLES + slot * TABLE_BYTES;
    this.describe(at, tag, BUFFER_BYTES, this.packed ? 0 : NEXT, 1);
    this.describe(at + 16, tag + 1, BUFFER_BYTES, WRITE, 0);
    return { gpa: at, bytes: 32 };
  }

  /** The same driver over a copy of its memory. */
  copy(): this {
    const copy: this = Object.assign(Object.create(Object.getPrototypeOf(this)), this);
    copy.memory = this.memory.slice(0);
    copy.view = new DataView(copy.memory);
    copy.outstanding = [...this.outstanding];
    copy.free = [...this.free];
    return copy;
  }
}

/** The driver of a split ring. */
export class SplitCrashDriver extends CrashDriver {
  readonly packed = false;
  next: number;
  usedNext: number;

  constructor(size: number, inOrder: boolean, start: number) {
    super(size, inOrder);
    this.next = this.usedNext = start;
    this.view.setUint16(AVAILABLE + 2, start, true);
    this.view.setUint16(USED + 2, start, true);
  }

  /** The bases that a front-end may send. */
  get bases(): (number | null)[] {
    // QEMU reads the used index; others send 0.
    return [null, this.view.getUint16(USED + 2, true), 0];
  }

  protected keyOf({ slots: [head] }: Request): number {
    return head;
  }

  protected make(request: Request, isIndirect: boolean): void {
    const { tag, slots } = request;
    if (isIndirect) {
      const { gpa, bytes } = this.table(request);
      this.describe(slots[0] * 16, tag, bytes, INDIRECT, 0);
      this.view.setBigUint64(slots[0] * 16, BigInt(gpa), true);
    } else {
      slots.forEach((slot, i) => {
        const isLast = i === slots.length - 1;
        const flags = (i > 0 ? WRITE : 0) | (isLast ? 0 : NEXT);
        this.describe(slot * 16, tag + i, BUFFER_BYTES, flags, isLast ? 0 : slots[i + 1]);
      });
    }
    this.view.setUint16(AVAILABLE + 4 + (this.next % this.size) * 2, slots[0], true);
    this.next = (this.next + 1) & 0xffff;
    this.view.setUint16(AVAILABLE + 2, this.next, true);
  }

  protected nextUsed(): number | undefined {
    if (this.view.getUint16(USED + 2, true) === this.usedNext) return;
    const key = this.view.getUint32(USED + 4 + (this.usedNext % this.size) * 8, true);
    this.usedNext = (this.usedNext + 1) & 0xffff;
    return key;
  }
}

/** The driver of a packed ring. */
export class PackedCrashDriver extends CrashDriver {
  readonly packed = true;
  place = 0;
  usedPlace = 0;

  /** QEMU does not know a packed ring's position, and sends the base of its start. */
  get bases(): (number | null)[] {
    return [null, initialBase(true)];
  }

  protected keyOf({ slots: [id] }: Request): number {
    return id;
  }

  protected make(request: Request, isIndirect: boolean): void {
    const { tag, slots } = request;
    const { size } = this;
    // The first descriptor last: its flags make the list available.
    for (let i = slots.length - 1; i >= 0; i--) {
      const place = (this.place + i) % (2 * size);
      const flags = (i > 0 ? WRITE : 0) | (i < slots.length - 1 ? NEXT : 0) |
        (isIndirect ? INDIRECT : 0) | (place < size ? AVAIL : USED_FLAG);
      const at = place % size * 16;
      const { gpa, bytes } = isIndirect ? this.table(request) : { gpa: -1, bytes: BUFFER_BYTES };
      this.describe(at, tag + i, bytes, flags, slots[0]);
      if (isIndirect) this.view.setBigUint64(at, BigInt(gpa), true);
    }
    this.place = (this.place + slots.length) % (2 * size);
  }

  protected nextUsed(): number | undefined {
    const at = this.usedPlace % this.size * 16;
    const owner = this.view.getUint16(at + 14, true) & (AVAIL | USED_FLAG);
    if (owner !== (this.usedPlace < this.size ? AVAIL | USED_FLAG : 0)) return;
    return this.view.getUint16(at + 12, true);
  }

  protected override passed({ slots }: Request): void {
    this.usedPlace = (this.usedPlace + slots.length) % (2 * this.size);
  }
}
