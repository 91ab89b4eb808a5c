/**
 * Descriptor chains as devices see them: checked, and in place in guest memory.
 *
 * @module
 */

import type { MemoryView } from "../memory/mod.ts";
import { MAX_INDIRECT_DESCRIPTORS } from "./descriptor.ts";
import { RingError, type RingLayout } from "./rules.ts";

/** The most bytes that one chain may have: virtio 1.3, 2.7.5.2. */
const MAX_CHAIN_BYTES = 2 ** 32;

/** Room for so many parts is kept with a chain that comes again. */
const KEPT_PARTS = 128;

/** What a list has no room in. */
const NO_ROOM = new Float64Array(0);

/**
 * The parts of a chain that lie one after the other in one direction. They are
 * views of guest memory: the guest can change them at any time, so what is
 * decided upon is copied first. Valid until the chain is completed.
 */
export class Parts {
  #u8: Uint8Array<ArrayBuffer>;
  /** The same, for single bytes and numbers: see `copyDescriptor`. */
  #view: DataView<ArrayBuffer>;
  #index: Float64Array<ArrayBuffer> = NO_ROOM;
  #length: Float64Array<ArrayBuffer> = NO_ROOM;
  #first = 0;
  #end = 0;
  #bytes = 0;

  /** Makes an empty list over guest memory. */
  constructor(u8: Uint8Array<ArrayBuffer>) {
    this.#u8 = u8;
    this.#view = viewOf(u8);
  }

  /** How many parts there are. */
  get count(): number {
    return this.#end - this.#first;
  }

  /** How many bytes they have together. */
  get byteLength(): number {
    return this.#bytes;
  }

  /** The index in the span of part `i`. */
  index(i: number): number {
    return this.#index[this.#first + i];
  }

  /** The length of part `i`, in bytes. */
  length(i: number): number {
    return this.#length[this.#first + i];
  }

  /** Part `i` as bytes of guest memory. Makes an object: for paths that can afford it. */
  at(i: number): Uint8Array<ArrayBuffer> {
    const index = this.index(i);
    return this.#u8.subarray(index, index + this.length(i));
  }

  /** Every part as bytes of guest memory. */
  *[Symbol.iterator](): IterableIterator<Uint8Array<ArrayBuffer>> {
    for (let i = 0; i < this.count; i++) yield this.at(i);
  }

  /** Where byte `offset` is in the span, or -1 behind the end. */
  locate(offset: number): number {
    for (let i = this.#first; i < this.#end; i++) {
      if (offset < this.#length[i]) return this.#index[i] + offset;
      offset -= this.#length[i];
    }
    return -1;
  }

  /** The byte at `offset`. Reading behind the end throws a RangeError, as all of these do. */
  u8(offset: number): number {
    return this.#view.getUint8(this.#locate(offset, 1));
  }

  /** The little-endian u16 at `offset`, wherever the parts divide it. */
  u16(offset: number): number {
    return this.u8(offset) | this.u8(offset + 1) << 8;
  }

  /** The little-endian u32 at `offset`, wherever the parts divide it. */
  u32(offset: number): number {
    if (offset + 4 <= this.#length[this.#first] && this.#first < this.#end) {
      return this.#view.getUint32(this.#index[this.#first] + offset, true);
    }
    return (this.u16(offset) | this.u16(offset + 2) << 16) >>> 0;
  }

  /** The little-endian u64 at `offset` as a number; inexact from 2^53 on. */
  u64(offset: number): number {
    return this.u32(offset) + this.u32(offset + 4) * 2 ** 32;
  }

  /** Writes a byte at `offset`. */
  setU8(offset: number, value: number): void {
    this.#view.setUint8(this.#locate(offset, 1), value);
  }

  /** Copies bytes from `offset` out of guest memory; returns how many there were. */
  read(offset: number, into: Uint8Array): number {
    let done = 0;
    for (let i = this.#first; i < this.#end && done < into.length; i++) {
      const length = this.#length[i];
      if (offset >= length) {
        offset -= length;
        continue;
      }
      const bytes = Math.min(length - offset, into.length - done);
      const from = this.#index[i] + offset;
      into.set(this.#u8.subarray(from, from + bytes), done);
      done += bytes;
      offset = 0;
    }
    return done;
  }

  /** Copies bytes to `offset` in guest memory; returns how many there was room for. */
  write(offset: number, bytes: Uint8Array): number {
    let done = 0;
    for (let i = this.#first; i < this.#end && done < bytes.length; i++) {
      const length = this.#length[i];
      if (offset >= length) {
        offset -= length;
        continue;
      }
      const count = Math.min(length - offset, bytes.length - done);
      this.#u8.set(bytes.subarray(done, done + count), this.#index[i] + offset);
      done += count;
      offset = 0;
    }
    return done;
  }

  /** Fills every part with one byte. */
  fill(value: number): void {
    for (let i = this.#first; i < this.#end; i++) {
      this.#u8.fill(value, this.#index[i], this.#index[i] + this.#length[i]);
    }
  }

  /** Takes bytes off the front, such as a header that was read. */
  dropFirst(bytes: number): void {
    this.#checkRange(bytes);
    this.#bytes -= bytes;
    while (bytes > 0) {
      const length = this.#length[this.#first];
      if (bytes < length) {
        this.#index[this.#first] += bytes;
        this.#length[this.#first] -= bytes;
        return;
      }
      bytes -= length;
      this.#first++;
    }
  }

  /** Takes bytes off the end, such as a status that is written last. */
  dropLast(bytes: number): void {
    this.#checkRange(bytes);
    this.#bytes -= bytes;
    while (bytes > 0) {
      const length = this.#length[this.#end - 1];
      if (bytes < length) {
        this.#length[this.#end - 1] -= bytes;
        return;
      }
      bytes -= length;
      this.#end--;
    }
  }

  #locate(offset: number, bytes: number): number {
    this.#checkRange(offset + bytes);
    return this.locate(offset);
  }

  #checkRange(bytes: number): void {
    if (bytes > this.#bytes) {
      throw new RangeError(`Expected at least ${bytes} bytes, got a chain with ${this.#bytes}`);
    }
  }

  /**
   * Empties the list, for the chain's next use.
   *
   * @internal
   */
  clear(u8: Uint8Array<ArrayBuffer>): void {
    if (u8 !== this.#u8) {
      this.#u8 = u8;
      this.#view = viewOf(u8);
    }
    this.#first = this.#end = this.#bytes = 0;
  }

  /**
   * Adds a part: everything has been checked.
   *
   * @internal
   */
  push(index: number, bytes: number): void {
    if (this.#end === this.#index.length) {
      this.#index = grown(this.#index);
      this.#length = grown(this.#length);
    }
    this.#index[this.#end] = index;
    this.#length[this.#end++] = bytes;
    this.#bytes += bytes;
  }

  /**
   * Empties the list for good: nothing is read or written by it any more.
   *
   * @internal
   */
  release(): void {
    this.#first = this.#end = this.#bytes = 0;
    this.#index = this.#length = NO_ROOM;
  }
}

function viewOf(u8: Uint8Array<ArrayBuffer>): DataView<ArrayBuffer> {
  return new DataView(u8.buffer, u8.byteOffset, u8.byteLength);
}

function grown(array: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(Math.max(4, array.length * 2));
  larger.set(array);
  return larger;
}

/**
 * One request of the driver: device-readable parts, then device-writable ones.
 * It was read once and checked whole; a chain object exists per slot of its
 * queue and is used again for later requests.
 */
export class Chain {
  /** The slot: below the queue's size, and no other chain in flight has it. */
  readonly slot: number;
  /** What the driver wrote for the device. */
  readonly readable: Parts;
  /** Where the device may write for the driver. */
  readonly writable: Parts;
  /** How many bytes the device could write, before anything was dropped. */
  writableBytes = 0;
  /** How many bytes the device could read, before anything was dropped. */
  readableBytes = 0;
  /** How many descriptors it has, those of an indirect table included. */
  descriptors = 0;
  /**
   * How many descriptors of a packed ring it takes.
   *
   * @internal
   */
  ringDescriptors = 0;
  /**
   * How many parts of guest memory it lies in.
   *
   * @internal
   */
  parts = 0;
  /**
   * The slot of the chain that was taken before it; -1 for the first.
   *
   * @internal
   */
  previous = -1;
  /**
   * Whether it was in flight when the ring began, and so is not counted as taken from the ring.
   *
   * @internal
   */
  isResubmitted = false;
  /** Whether the device has it. */
  inFlight = false;
  #isAbandoned = false;
  /** Which start of the queue it belongs to: a late completion of an older one is dropped. */
  epoch = 0;
  /**
   * How many bytes were written, while a completion is held back until its
   * predecessors are done (VIRTIO_F_IN_ORDER); else -1.
   *
   * @internal
   */
  held = -1;

  #layout: RingLayout = "split";
  readonly #mostParts: number;

  /**
   * Makes the chain of a slot.
   *
   * @param mostParts How many parts it may have
   */
  constructor(slot: number, u8: Uint8Array<ArrayBuffer>, mostParts = MAX_INDIRECT_DESCRIPTORS) {
    this.slot = slot;
    this.#mostParts = mostParts;
    this.readable = new Parts(u8);
    this.writable = new Parts(u8);
  }

  /**
   * Starts over.
   *
   * @internal
   */
  begin(u8: Uint8Array<ArrayBuffer>, layout: RingLayout): void {
    this.#layout = layout;
    this.readable.clear(u8);
    this.writable.clear(u8);
    this.descriptors = 0;
  }

  /**
   * Adds a buffer that a descriptor names, once everything about it is checked.
   * A buffer that goes on in the next region is divided.
   *
   * @throws {RingError} When a rule is broken.
   *
   * @internal
   */
  add(memory: MemoryView, gpa: number, bytes: number, writable: boolean): void {
    if (!writable && this.writable.byteLength + this.writable.count > 0) {
      throw new RingError(
        "writable-before-readable",
        `Descriptor ${this.descriptors} of the chain is device-readable after a device-writable one`,
        this.#layout,
      );
    }
    if (this.readable.byteLength + this.writable.byteLength + bytes > MAX_CHAIN_BYTES) {
      throw new RingError(
        "chain-bytes",
        `A chain has more than ${MAX_CHAIN_BYTES} bytes`,
        this.#layout,
      );
    }
    const parts = writable ? this.writable : this.readable;
    const index = memory.regions.translate(gpa, bytes);
    if (index >= 0) {
      parts.push(index, bytes);
      return;
    }
    for (let at = gpa, left = bytes; left > 0 || at === gpa;) {
      const here = Math.min(memory.regions.contiguous(at), left);
      if (here === 0) {
        throw new RingError(
          "buffer-address",
          `A buffer is at 0x${gpa.toString(16)}+0x${bytes.toString(16)}`,
          this.#layout,
        );
      }
      this.#expectFew();
      parts.push(memory.regions.translate(at, here), here);
      at += here;
      left -= here;
    }
  }

  /**
   * Ends the reading.
   *
   * @internal
   */
  end(): void {
    this.readableBytes = this.readable.byteLength;
    this.writableBytes = this.writable.byteLength;
    this.parts = this.readable.count + this.writable.count;
    if (this.parts > this.#mostParts) this.#expectFew();
  }

  /** A buffer can be in many regions, so descriptors are not all that counts. */
  #expectFew(): void {
    if (this.readable.count + this.writable.count <= this.#mostParts) return;
    throw new RingError(
      "chain-length",
      `A chain is in more than ${this.#mostParts} parts of guest memory`,
      this.#layout,
    );
  }

  /**
   * The ring has it again; much room is not kept.
   *
   * @internal
   */
  returned(): void {
    this.inFlight = false;
    if (this.parts > KEPT_PARTS) this.release();
  }

  /**
   * The device cannot answer it.
   *
   * @internal
   */
  abandon(): void {
    this.#isAbandoned = true;
  }

  /**
   * Whether the device has it, and may still answer it.
   *
   * @internal
   */
  get isHeld(): boolean {
    return this.inFlight && !this.#isAbandoned;
  }

  /**
   * Empties it for good.
   *
   * @internal
   */
  release(): void {
    this.readable.release();
    this.writable.release();
  }
}
