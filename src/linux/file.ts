/**
 * Files and block devices.
 *
 * @module
 */

import { check, retry } from "./errors.ts";
import { Fd } from "./fd.ts";
import { cString, libc, pinnedBuffer } from "./libc.ts";

const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const SEEK_END = 2;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_ZERO_RANGE = 16;
const BLKDISCARD = 0x1277n; // _IO(0x12, 119)
const BLKZEROOUT = 0x127fn; // _IO(0x12, 127)
const BLKSSZGET = 0x1268n; // _IO(0x12, 104)

/** How to open a file. */
export interface OpenOptions {
  /** Open for writing too. */
  write?: boolean;
  /** Do not wait, as for character devices that are read when they are ready. */
  nonblocking?: boolean;
}

/** Opens a file that exists. */
export function openFile(path: string, options: OpenOptions = {}): Fd {
  const flags = (options.write ? O_RDWR : 0) | O_CLOEXEC |
    (options.nonblocking ? O_NONBLOCK : 0);
  const name = cString(path);
  return new Fd(retry("open", () => libc.open(name, flags, 0), path));
}

/** The size of a file or block device, in bytes. */
export function fileBytes(fd: number): number {
  const end = libc.lseek(fd, 0n, SEEK_END);
  return Number(end < 0n ? check(-1, "lseek") : end);
}

/** What kind of file a descriptor is. */
export function fileKind(fd: number): "file" | "block" | "other" {
  const info = Deno.statSync(`/proc/self/fd/${fd}`);
  return info.isFile ? "file" : info.isBlockDevice ? "block" : "other";
}

/** The logical block size of a block device, in bytes. */
export function logicalBlockBytes(fd: number): number {
  const value = new Int32Array(pinnedBuffer(4), 0, 1);
  check(libc.ioctl(fd, BLKSSZGET, value), "ioctl", "BLKSSZGET");
  return value[0];
}

/** Makes data (not times) durable; returns a negative number with errno set when it fails. */
export function dataSync(fd: number): number {
  return libc.fdatasync(fd);
}

/** Gives a part of a file back to its file system; it reads as zeroes. Negative on failure. */
export function punchHole(fd: number, offset: number, bytes: number): number {
  return libc.fallocate(
    fd,
    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
    BigInt(offset),
    BigInt(bytes),
  );
}

/** Makes a part of a file read as zeroes and keeps its space. Negative on failure. */
export function zeroRange(fd: number, offset: number, bytes: number): number {
  return libc.fallocate(
    fd,
    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
    BigInt(offset),
    BigInt(bytes),
  );
}

const range = new BigUint64Array(pinnedBuffer(16), 0, 2);

/** Discards a part of a block device. Negative on failure. */
export function blockDiscard(
  fd: number,
  offset: number,
  bytes: number,
): number {
  range[0] = BigInt(offset);
  range[1] = BigInt(bytes);
  return libc.ioctl(fd, BLKDISCARD, range);
}

/** Writes zeroes to a part of a block device. Negative on failure. */
export function blockZeroOut(
  fd: number,
  offset: number,
  bytes: number,
): number {
  range[0] = BigInt(offset);
  range[1] = BigInt(bytes);
  return libc.ioctl(fd, BLKZEROOUT, range);
}

/** The most entries of one vectored call: IOV_MAX (readv(2)). */
export const MAX_IO_VECTORS = 1024;

/**
 * struct iovec entries, written as halves so that no BigInt is made.
 */
export class IoVectors {
  #words = new Uint32Array(pinnedBuffer(MAX_IO_VECTORS * 16));
  /** How many entries are used. */
  count = 0;

  /** The entries, for a call. */
  get entries(): Uint32Array<ArrayBuffer> {
    return this.#words;
  }

  /** Adds memory at an address; a neighbour of the last entry extends it. */
  push(address: number, bytes: number): void {
    const words = this.#words;
    const low = address >>> 0, high = (address / 2 ** 32) >>> 0;
    let at = this.count * 4;
    if (this.count > 0) {
      const last = at - 4;
      const end = words[last] + words[last + 1] * 2 ** 32 + words[last + 2];
      if (end === address && words[last + 2] + bytes <= 0x7fff_f000) {
        words[last + 2] += bytes;
        return;
      }
    }
    words[at++] = low;
    words[at++] = high;
    words[at++] = bytes;
    words[at] = 0;
    this.count++;
  }
}

/** Reads into vectors at an offset; the bytes read, or negative with errno set. */
export function readVectors(
  fd: number,
  vectors: IoVectors,
  offset: number,
): number {
  return libc.preadv(fd, vectors.entries, vectors.count, BigInt(offset));
}

/** Writes from vectors at an offset; the bytes written, or negative with errno set. */
export function writeVectors(
  fd: number,
  vectors: IoVectors,
  offset: number,
): number {
  return libc.pwritev(fd, vectors.entries, vectors.count, BigInt(offset));
}
