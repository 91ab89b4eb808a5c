/**
 * The parts of a descriptor chain in one direction.
 *
 * @module
 */

import type { RegionTable } from "../memory/mod.ts";

/** An array without room. */
const NO_ROOM = new Float64Array(0);

/** Takes a list of memory, such as the entries of a vectored system call. */
export interface VectorSink {
  /** Adds `bytes` bytes at an address; returns false when there is no room for them. */
  push(address: number, bytes: number): boolean;
}

/**
 * The parts of a chain that the device reads, or those that it writes. Offsets count from the first
 * byte of the first part, however the driver divided the bytes. The parts are views of guest memory
 * and stay as they are while the device has the chain. The guest can change the bytes at any time,
 * so copy what you decide upon. Valid until the chain is completed.
 */
export class Parts {
  #u8: Uint8Array<ArrayBuffer>;
  /** The same memory, for single numbers: see `copyDescriptor`. */
  #view: DataView<ArrayBuffer>;
  #index: Float64Array<ArrayBuffer> = NO_ROOM;
  #length: Float64Array<ArrayBuffer> = NO_ROOM;
  #count = 0;
  #bytes = 0;
  // A walk over a range: the part and the byte in it that come next, and the bytes that are left.
  #next = 0;
  #skip = 0;
  #left = 0;
  /** The piece of a part that the walk is at. */
  #pieceIndex = 0;
  #pieceBytes = 0;

  /** Makes an empty list over guest memory. */
  constructor(u8: Uint8Array<ArrayBuffer>) {
    this.#u8 = u8;
    this.#view = viewOf(u8);
  }

  /** The number of parts. */
  get count(): number {
    return this.#count;
  }

  /** The number of bytes in all parts. */
  get byteLength(): number {
    return this.#bytes;
  }

  /** The index of part `i` in the span. */
  index(i: number): number {
    return this.#index[i];
  }

  /** The length of part `i`, in bytes. */
  length(i: number): number {
    return this.#length[i];
  }

  /** Part `i` as bytes of guest memory. Makes an object, so it is not for hot code. */
  at(i: number): Uint8Array<ArrayBuffer> {
    const index = this.#index[i];
    return this.#u8.subarray(index, index + this.#length[i]);
  }

  /**
   * The bytes from `offset` on, in place where they lie in one part, else copied. Makes an object, as
   * {@linkcode Parts.at} does.
   */
  contiguous(offset: number): Uint8Array<ArrayBuffer> {
    const bytes = Math.max(this.#bytes - offset, 0);
    const at = this.locate(offset, bytes);
    if (at >= 0) return new Uint8Array(this.#u8.buffer, this.#u8.byteOffset + at, bytes);
    const copy = new Uint8Array(bytes);
    this.read(offset, copy);
    return copy;
  }

  /** Each part as bytes of guest memory. */
  *[Symbol.iterator](): IterableIterator<Uint8Array<ArrayBuffer>> {
    for (let i = 0; i < this.#count; i++) yield this.at(i);
  }

  /**
   * The index in the span of `bytes` bytes at `offset`; -1 where they do not lie together in one
   * part, or where the parts end before them.
   */
  locate(offset: number, bytes = 1): number {
    if (offset < 0) return -1;
    for (let i = 0; i < this.#count; i++) {
      const length = this.#length[i];
      if (offset < length) return offset + bytes <= length ? this.#index[i] + offset : -1;
      offset -= length;
    }
    return -1;
  }

  /**
   * The byte at `offset`.
   *
   * @throws {RangeError} When the parts end before it; so do all methods for a single number.
   */
  u8(offset: number): number {
    if (this.#isInFirst(offset, 1)) return this.#view.getUint8(this.#index[0] + offset);
    return this.#view.getUint8(this.#locate(offset));
  }

  /** The little-endian u16 at `offset`. */
  u16(offset: number): number {
    if (this.#isInFirst(offset, 2)) return this.#view.getUint16(this.#index[0] + offset, true);
    const at = this.locate(offset, 2);
    return at >= 0 ? this.#view.getUint16(at, true) : this.u8(offset) | this.u8(offset + 1) << 8;
  }

  /** The little-endian u32 at `offset`. */
  u32(offset: number): number {
    if (this.#isInFirst(offset, 4)) return this.#view.getUint32(this.#index[0] + offset, true);
    const at = this.locate(offset, 4);
    return at >= 0
      ? this.#view.getUint32(at, true)
      : (this.u16(offset) | this.u16(offset + 2) << 16) >>> 0;
  }

  /** The little-endian u64 at `offset`; inexact from 2^53 on. */
  u64(offset: number): number {
    return this.u32(offset) + this.u32(offset + 4) * 2 ** 32;
  }

  /** Writes a byte at `offset`. */
  setU8(offset: number, value: number): void {
    if (this.#isInFirst(offset, 1)) return this.#view.setUint8(this.#index[0] + offset, value);
    this.#view.setUint8(this.#locate(offset), value);
  }

  // The upper half goes first: where it has no room, nothing is written.

  /** Writes a little-endian u16 at `offset`. */
  setU16(offset: number, value: number): void {
    if (this.#isInFirst(offset, 2)) {
      return this.#view.setUint16(this.#index[0] + offset, value, true);
    }
    this.setU8(offset + 1, value >>> 8);
    this.setU8(offset, value);
  }

  /** Writes a little-endian u32 at `offset`. */
  setU32(offset: number, value: number): void {
    if (this.#isInFirst(offset, 4)) {
      return this.#view.setUint32(this.#index[0] + offset, value, true);
    }
    const at = this.locate(offset, 4);
    if (at >= 0) return this.#view.setUint32(at, value, true);
    this.setU16(offset + 2, value >>> 16);
    this.setU16(offset, value);
  }

  /** Writes a little-endian u64 at `offset`; `value` is at most 2^53. */
  setU64(offset: number, value: number): void {
    this.setU32(offset + 4, Math.floor(value / 2 ** 32));
    this.setU32(offset, value);
  }

  /** Copies bytes from `offset` on into `into`; returns how many there were. */
  read(offset: number, into: Uint8Array): number {
    let done = 0;
    this.#walk(offset, into.length);
    while (this.#step()) {
      const index = this.#pieceIndex;
      into.set(this.#u8.subarray(index, index + this.#pieceBytes), done);
      done += this.#pieceBytes;
    }
    return done;
  }

  /** Copies `bytes` to `offset`; returns how many there was room for. */
  write(offset: number, bytes: Uint8Array): number {
    let done = 0;
    this.#walk(offset, bytes.length);
    while (this.#step()) {
      this.#u8.set(bytes.subarray(done, done + this.#pieceBytes), this.#pieceIndex);
      done += this.#pieceBytes;
    }
    return done;
  }

  /** Sets each of `bytes` bytes from `offset` on; all of them by default. */
  fill(value: number, offset = 0, bytes: number = this.#bytes): void {
    this.#walk(offset, bytes);
    while (this.#step()) {
      this.#u8.fill(value, this.#pieceIndex, this.#pieceIndex + this.#pieceBytes);
    }
  }

  /** The UTF-8 text from `offset` up to a NUL or the end, of at most `limit` bytes. */
  text(offset: number, limit: number): string {
    const bytes = new Uint8Array(Math.min(limit, Math.max(this.#bytes - offset, 0)));
    this.read(offset, bytes);
    const end = bytes.indexOf(0);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(
      end < 0 ? bytes : bytes.subarray(0, end),
    );
  }

  /**
   * Lists `bytes` bytes from `offset` on, by address, until `sink` has no more room.
   *
   * @param base The address of index 0 of the span
   * @returns How many bytes are listed.
   */
  gather(
    sink: VectorSink,
    base: number,
    offset: number = 0,
    bytes: number = this.#bytes,
  ): number {
    let done = 0;
    this.#walk(offset, bytes);
    while (this.#step() && sink.push(base + this.#pieceIndex, this.#pieceBytes)) {
      done += this.#pieceBytes;
    }
    return done;
  }

  /** Whether each piece of a range begins and ends at a multiple of `align` bytes in the span. */
  isAligned(align: number, offset: number, bytes: number): boolean {
    this.#walk(offset, bytes);
    while (this.#step()) {
      if (this.#pieceIndex % align !== 0 || this.#pieceBytes % align !== 0) return false;
    }
    return true;
  }

  /**
   * Whether bytes lie in the first part, as most headers do. Their index is used on the spot then:
   * a function that returns it makes garbage where V8 does not inline it.
   */
  #isInFirst(offset: number, bytes: number): boolean {
    return offset >= 0 && this.#count > 0 && offset + bytes <= this.#length[0];
  }

  #locate(offset: number): number {
    const at = this.locate(offset);
    if (at < 0) {
      throw new RangeError(`Expected a byte at ${offset}, got a chain with ${this.#bytes} bytes`);
    }
    return at;
  }

  /** Begins a walk over a range. */
  #walk(offset: number, bytes: number): void {
    if (offset < 0) throw new RangeError(`Expected an offset of 0 or more, got ${offset}`);
    this.#next = 0;
    this.#skip = offset;
    this.#left = bytes;
  }

  /** Goes to the next piece of the range; returns false at its end. */
  #step(): boolean {
    while (this.#left > 0 && this.#next < this.#count) {
      const part = this.#next++, skip = this.#skip;
      const bytes = this.#length[part] - skip;
      if (bytes <= 0) {
        this.#skip = -bytes;
        continue;
      }
      this.#pieceIndex = this.#index[part] + skip;
      this.#pieceBytes = Math.min(bytes, this.#left);
      this.#left -= this.#pieceBytes;
      this.#skip = 0;
      return true;
    }
    return false;
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
    this.#count = this.#bytes = 0;
  }

  /**
   * Adds a part that has been checked.
   *
   * @internal
   */
  push(index: number, bytes: number): void {
    if (this.#count === this.#index.length) this.#grow();
    this.#index[this.#count] = index;
    this.#length[this.#count++] = bytes;
    this.#bytes += bytes;
  }

  /**
   * Adds the buffer of a descriptor, if it is in one region: see {@linkcode RegionTable.place}.
   *
   * @internal
   */
  place(regions: RegionTable, words: Uint32Array, at: number, bytes: number): boolean {
    if (this.#count === this.#index.length) this.#grow();
    if (!regions.place(words, at, bytes, this.#index, this.#count)) return false;
    this.#length[this.#count++] = bytes;
    this.#bytes += bytes;
    return true;
  }

  #grow(): void {
    this.#index = grown(this.#index);
    this.#length = grown(this.#length);
  }

  /**
   * Empties the list and frees its room.
   *
   * @internal
   */
  release(): void {
    this.#count = this.#bytes = 0;
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
