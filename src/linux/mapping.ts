/**
 * Memory mappings.
 *
 * @module
 */

import { check, LinuxError, retry } from "./errors.ts";
import { Fd } from "./fd.ts";
import { cString, libc } from "./libc.ts";

const PROT_NONE = 0;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x1;
const MAP_PRIVATE = 0x2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
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
  fd: number,
  offset: number,
): bigint {
  const result = libc.mmap(
    address,
    BigInt(bytes),
    prot,
    flags,
    fd,
    BigInt(offset),
  );
  if (result === MAP_FAILED) {
    throw new LinuxError("mmap", undefined, `${bytes} bytes`);
  }
  return result;
}

/**
 * One large span of virtual addresses, reserved once, into which files are
 * mapped and from which they are removed again while one `ArrayBuffer` covers
 * all of it. Touching a part where nothing is mapped ends the process.
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
    this.#reserved = mmap(
      0n,
      this.#reservedBytes,
      PROT_NONE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
      -1,
      0,
    );
    this.base = Math.ceil(Number(this.#reserved) / SPAN_ALIGN_BYTES) *
      SPAN_ALIGN_BYTES;
  }

  /** Maps a part of a file, shared and writable, at an index. All are multiples of a page. */
  map(index: number, bytes: number, fd: number, fileOffset: number): void {
    mmap(
      BigInt(this.base + index),
      bytes,
      PROT_READ_WRITE,
      MAP_SHARED | MAP_FIXED,
      fd,
      fileOffset,
    );
  }

  /** Makes a part empty again. */
  unmap(index: number, bytes: number): void {
    mmap(
      BigInt(this.base + index),
      bytes,
      PROT_NONE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
      -1,
      0,
    );
  }

  /** Gives the addresses back. No view of the span may be touched afterwards, on any thread. */
  [Symbol.dispose](): void {
    if (this.#reserved === 0n) return;
    libc.munmap(this.#reserved, BigInt(this.#reservedBytes));
    this.#reserved = 0n;
  }
}

/**
 * An `ArrayBuffer` over memory at an address, made on whichever thread wants
 * to see it. The memory stays its owner's: nothing is freed with the buffer.
 */
export function bufferAt(address: number, bytes: number): ArrayBuffer {
  return Deno.UnsafePointerView.getArrayBuffer(
    Deno.UnsafePointer.create(BigInt(address))!,
    bytes,
  );
}

/** A file that is mapped shared and writable by itself. */
export class Mapping implements Disposable {
  /** The mapped memory. */
  readonly buffer: ArrayBuffer;
  /** Its address. */
  readonly address: number;
  #bytes: number;
  #mapped = true;

  /** Maps `bytes` of a file from `fileOffset`, a multiple of a page. */
  constructor(fd: number, bytes: number, fileOffset = 0) {
    this.#bytes = bytes;
    this.address = Number(
      mmap(0n, bytes, PROT_READ_WRITE, MAP_SHARED, fd, fileOffset),
    );
    this.buffer = bufferAt(this.address, bytes);
  }

  /** Unmaps it. No view may be touched afterwards. */
  [Symbol.dispose](): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    libc.munmap(BigInt(this.address), BigInt(this.#bytes));
  }
}
