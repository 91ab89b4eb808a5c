/**
 * Memory mappings.
 *
 * @module
 */

import { check, Errno, LinuxError, retry } from "./errors.ts";
import { Fd } from "./fd.ts";
import { cString, errno, libc, pinnedBuffer } from "./libc.ts";

const PROT_NONE = 0;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x1;
const MAP_PRIVATE = 0x2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
/** Memory of this process alone, which takes none until it is touched. */
const MAP_OWN = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;

/** The size of a page, in bytes. */
export const PAGE_BYTES = 4096;

/** Addresses of a reserved span are aligned to this, so that u32 arithmetic on the low half works. */
const SPAN_ALIGN_BYTES = 2 ** 32;

/** A new memory file; `bytes` is its size. */
export function createMemfd(name: string, bytes: number): Fd {
  const fd = new Fd(
    check(libc.memfd_create(cString(name), MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create"),
  );
  try {
    retry("ftruncate", () => libc.ftruncate(fd.number, BigInt(bytes)));
  } catch (error) {
    fd.close();
    throw error;
  }
  return fd;
}

function mmap(
  address: bigint,
  bytes: number,
  prot: number,
  flags: number,
  fd = -1,
  offset = 0,
): bigint {
  const result = libc.mmap(address, BigInt(bytes), prot, flags, fd, BigInt(offset));
  if (result === MAP_FAILED) throw new LinuxError("mmap", undefined, `${bytes} bytes`);
  return result;
}

/**
 * One large span of virtual addresses, reserved once. Files are mapped into it and unmapped again
 * while one `ArrayBuffer` covers all of it. Touching a part where nothing is mapped ends the process.
 */
export class Span implements Disposable {
  /** The address of index 0, aligned to 4 GiB. */
  readonly base: number;
  /** The size of the span. */
  readonly bytes: number;
  #reserved: bigint;
  #reservedBytes: number;

  /** Reserves `bytes` of addresses; no memory is used. */
  constructor(bytes: number) {
    this.bytes = bytes;
    this.#reservedBytes = bytes + SPAN_ALIGN_BYTES;
    this.#reserved = mmap(0n, this.#reservedBytes, PROT_NONE, MAP_OWN);
    this.base = Math.ceil(Number(this.#reserved) / SPAN_ALIGN_BYTES) * SPAN_ALIGN_BYTES;
  }

  /**
   * Maps a part of a file, shared and writable, at an index. All are multiples of a page.
   *
   * @throws {LinuxError} When it cannot be mapped; the part is empty then.
   */
  map(index: number, bytes: number, fd: number, fileOffset: number): void {
    try {
      const flags = MAP_SHARED | MAP_FIXED;
      mmap(BigInt(this.base + index), bytes, PROT_READ_WRITE, flags, fd, fileOffset);
    } catch (error) {
      // A kernel may have taken the reservation away before the mapping failed.
      this.unmap(index, bytes);
      throw error;
    }
  }

  /**
   * Maps the memory at an index a second time, at another index where nothing is mapped.
   *
   * @throws {LinuxError} When it cannot be mapped there; that part is empty then.
   */
  duplicate(index: number, to: number, bytes: number): void {
    try {
      // With an old size of 0, shared memory is mapped a second time: mremap(2).
      remap(this.base + index, 0, bytes, this.base + to);
    } catch (error) {
      this.unmap(to, bytes);
      throw error;
    }
  }

  /** Replaces a mapping by private zeros. */
  clear(index: number, bytes: number): void {
    mapZeros(this.base + index, bytes);
  }

  /** Clears as {@linkcode Span.clear} does, except that some bytes stay as they are at every moment. */
  detach(index: number, bytes: number, kept: readonly KeptBytes[]): void {
    if (kept.length === 0) return this.clear(index, bytes);
    const copy = mmap(0n, bytes, PROT_READ_WRITE, MAP_OWN);
    for (const { index: from, bytes } of kept) {
      copyMemory(Number(copy) + from - index, this.base + from, bytes);
    }
    remap(Number(copy), bytes, bytes, this.base + index);
  }

  /** Makes a part empty again. */
  unmap(index: number, bytes: number): void {
    mmap(BigInt(this.base + index), bytes, PROT_NONE, MAP_OWN | MAP_FIXED);
  }

  /** Gives the addresses back. No view of the span may be touched afterwards, on any thread. */
  [Symbol.dispose](): void {
    if (this.#reserved === 0n) return;
    libc.munmap(this.#reserved, BigInt(this.#reservedBytes));
    this.#reserved = 0n;
  }
}

/** A part of a span that is kept as it is. */
export interface KeptBytes {
  index: number;
  bytes: number;
}

function remap(from: number, oldBytes: number, bytes: number, to: number): void {
  const flags = MREMAP_MAYMOVE | MREMAP_FIXED;
  const result = libc.mremap(BigInt(from), BigInt(oldBytes), BigInt(bytes), flags, BigInt(to));
  if (result === MAP_FAILED) throw new LinuxError("mremap", undefined, `${bytes} bytes`);
}

/**
 * Maps a part of a file, to show that it can be mapped. Disposing unmaps it and makes room to map it
 * elsewhere.
 *
 * @throws {LinuxError} When it cannot be mapped.
 */
export function tryMapping(bytes: number, fd: number, fileOffset: number): Disposable {
  const address = mmap(0n, bytes, PROT_READ_WRITE, MAP_SHARED, fd, fileOffset);
  let isMapped = true;
  return {
    [Symbol.dispose]() {
      if (isMapped) libc.munmap(address, BigInt(bytes));
      isMapped = false;
    },
  };
}

/** Replaces the mapping at an address by zeros, for all threads at once. */
export function mapZeros(address: number, bytes: number): void {
  mmap(BigInt(address), bytes, PROT_READ_WRITE, MAP_OWN | MAP_FIXED);
}

const MADV_POPULATE_READ = 22;
const MADV_POPULATE_WRITE = 23;

/** Pages per call of mincore. */
const LOOK_PAGES = 16_384;

/**
 * Whether every page of a mapped file is in memory or can be put there. It takes memory for at most
 * one page: present pages are read, and the first missing one is populated; without room for it there
 * is none for the others. True where the kernel cannot tell (before Linux 5.14).
 *
 * @param pageBytes The unit in which the file is mapped
 */
export function canBeHad(address: number, bytes: number, pageBytes: number): boolean {
  const pages = new Uint8Array(LOOK_PAGES);
  let isAsked = false;
  for (let at = 0; at < bytes; at += LOOK_PAGES * PAGE_BYTES) {
    const part = Math.min(bytes - at, LOOK_PAGES * PAGE_BYTES);
    residentPages(address + at, part, pages);
    const count = part / PAGE_BYTES;
    for (let page = 0; page < count;) {
      const from = page;
      const isThere = pages[from] & 1;
      while (page < count && (pages[page] & 1) === isThere) page++;
      const place = address + at + from * PAGE_BYTES;
      if (isThere) {
        if (!populate(place, (page - from) * PAGE_BYTES, MADV_POPULATE_READ)) return false;
      } else if (!isAsked) {
        isAsked = true;
        const start = place - (place - address) % pageBytes;
        if (!populate(start, pageBytes, MADV_POPULATE_WRITE)) return false;
      }
    }
  }
  return true;
}

/**
 * Enters pages of a mapped file that are in memory into this process's page
 * tables, which saves a fault at the first touch of each. `address` is a
 * multiple of a page. Where the kernel cannot (before Linux 5.14), they fault.
 */
export function enterPages(address: number, bytes: number): void {
  populate(address, bytes, MADV_POPULATE_READ);
}

function populate(address: number, bytes: number, how: number): boolean {
  return libc.madvise(BigInt(address), BigInt(bytes), how) === 0 || errno() === Errno.EINVAL;
}

/**
 * An `ArrayBuffer` over memory at an address, for this thread. The owner of the memory must
 * keep it mapped as long as the buffer is used.
 */
export function bufferAt(address: number, bytes: number): ArrayBuffer {
  const pointer = Deno.UnsafePointer.create(BigInt(address))!;
  return Deno.UnsafePointerView.getArrayBuffer(pointer, bytes);
}

/** A file that is mapped shared and writable by itself. */
export class Mapping implements Disposable {
  /** The mapped memory. */
  buffer: ArrayBuffer;
  /** Its address. */
  address: number;
  /** How many bytes of it there are. */
  readonly bytes: number;
  #mapped = true;

  /** Maps `bytes` of a file from `fileOffset`, a multiple of a page. */
  constructor(fd: number, bytes: number, fileOffset = 0) {
    this.bytes = bytes;
    this.address = Number(mmap(0n, bytes, PROT_READ_WRITE, MAP_SHARED, fd, fileOffset));
    this.buffer = bufferAt(this.address, bytes);
  }

  /**
   * Maps the file at another address, and leaves zeros at the old one for ever:
   * late code may still touch it.
   */
  move(): void {
    const to = mmap(0n, this.bytes, PROT_NONE, MAP_OWN);
    remap(this.address, 0, this.bytes, Number(to));
    mapZeros(this.address, this.bytes);
    this.address = Number(to);
    this.buffer = bufferAt(this.address, this.bytes);
  }

  /** Unmaps it. No view may be touched afterwards. */
  [Symbol.dispose](): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    libc.munmap(BigInt(this.address), BigInt(this.bytes));
  }
}

/**
 * Sets bit 0 of a byte for each page of a mapped file that is in memory. `address` is a multiple of
 * a page.
 */
export function residentPages(address: number, bytes: number, pages: Uint8Array): void {
  retry("mincore", () => libc.mincore(BigInt(address), BigInt(bytes), pages));
}

// Addresses that are loaded from here reach libc without a BigInt being made. Each is stored at once:
// a load of two halves that were just stored waits until all stores before them are done.
const copied = new BigUint64Array(pinnedBuffer(16), 0, 2);
const copiedFloats = new Float64Array(copied.buffer, 0, 2);

/** The lower 52 bits of the float n + 2^52 are the integer n. */
const TO_BITS = 2 ** 52;

const given = new Float64Array(2);

/** Copies memory from address to address; the two may not overlap. */
export function copyMemory(to: number, from: number, bytes: number): void {
  given[0] = to;
  given[1] = from;
  copyBetween(given, bytes);
}

/**
 * Copies memory from the address `addresses[1]` to `addresses[0]`, as {@linkcode copyMemory}; for hot
 * code: an address passed as a number is 16 bytes of garbage wherever V8 does not inline the call.
 */
export function copyBetween(addresses: Float64Array, bytes: number): void {
  copiedFloats[0] = addresses[0] + TO_BITS;
  copiedFloats[1] = addresses[1] + TO_BITS;
  libc.memcpy(BigInt.asUintN(52, copied[0]), BigInt.asUintN(52, copied[1]), bytes);
}
