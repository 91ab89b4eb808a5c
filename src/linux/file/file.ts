/**
 * Files and block devices.
 *
 * @module
 */

import { check, retry } from "../errors.ts";
import { Fd } from "../fd.ts";
import { addressOf, cString, libc, pinnedBuffer } from "../libc.ts";

const O_RDWR = 2;
const O_CREAT = 0o100;
const O_EXCL = 0o200;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const O_NOATIME = 0o1000000;
const O_NOFOLLOW = Deno.build.arch === "x86_64" ? 0o400000 : 0o100000;
const O_DIRECT = Deno.build.arch === "x86_64" ? 0o40000 : 0o200000;
const SEEK_END = 2;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_ZERO_RANGE = 16;
/** The mode of fallocate(2) that gives a range back and keeps the size. */
export const FALLOCATE_PUNCH_HOLE: number = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

/** How to open a file. */
export interface OpenOptions {
  /** Open for writing too. */
  write?: boolean;
  /** Do not wait in reads and writes: EAGAIN, as for character devices that are watched. */
  nonblocking?: boolean;
  /** Past the page cache. */
  direct?: boolean;
  /** Create it where there is none, for its owner alone; a link there is not followed. */
  create?: boolean;
  /** Claim a block device: fails while it is mounted, or another program has claimed it. */
  exclusive?: boolean;
}

const SIGXFSZ = 25;
const SIG_IGN = 1n;

/** Only its owner may read and write a file that is created. */
const MODE = 0o600;

/**
 * Opens a file. Opening for writing also makes this process ignore
 * SIGXFSZ: a write beyond RLIMIT_FSIZE then fails with EFBIG, and does not end the process.
 *
 * @throws {LinuxError} When it cannot be opened.
 */
export function openFile(path: string, options: OpenOptions = {}): Fd {
  if (options.write) libc.signal(SIGXFSZ, SIG_IGN);
  const flags = (options.write ? O_RDWR : 0) | O_CLOEXEC |
    (options.nonblocking ? O_NONBLOCK : 0) | (options.direct ? O_DIRECT : 0) |
    (options.exclusive ? O_EXCL : 0) | (options.create ? O_CREAT | O_NOFOLLOW : 0);
  const name = cString(path);
  // Keeping the time of access costs something with each read; the file's owner may leave it out.
  const fd = libc.open(name, flags | O_NOATIME, MODE);
  if (fd >= 0) return new Fd(fd);
  return new Fd(retry("open", () => libc.open(name, flags, MODE), path));
}

/**
 * Opens the file of a descriptor once more, whatever its path names now. The new open file has its
 * own flags and its own report of lost writes.
 *
 * @throws {LinuxError} When it cannot be opened.
 */
export function reopenFile(fd: number, options: OpenOptions = {}): Fd {
  return openFile(`/proc/self/fd/${fd}`, options);
}

/** The size of a file or block device, in bytes; inexact from 2^53 on. */
export function fileBytes(fd: number): number {
  const end = libc.lseek(fd, 0n, SEEK_END);
  return Number(end < 0n ? check(-1, "lseek") : end);
}

const AT_EMPTY_PATH = 0x1000;
const STATX_DIOALIGN = 0x2000;

/** What O_DIRECT requires of a request on a file, in bytes. */
export interface DirectAlignment {
  /** Addresses are multiples of this. */
  memoryBytes: number;
  /** Offsets and lengths are multiples of this. */
  offsetBytes: number;
}

/** What O_DIRECT requires on a file; undefined where the kernel does not say (before 6.1). */
export function directAlignment(fd: number): DirectAlignment | undefined {
  const info = new Uint32Array(pinnedBuffer(256), 0, 64);
  check(libc.statx(fd, cString(""), AT_EMPTY_PATH, STATX_DIOALIGN, info), "statx");
  if ((info[0] & STATX_DIOALIGN) === 0 || info[39] === 0) return undefined;
  return { memoryBytes: info[38], offsetBytes: info[39] };
}

/** Sets the size of a file, in bytes. */
export function resizeFile(fd: number, bytes: number): void {
  retry("ftruncate", () => libc.ftruncate(fd, BigInt(bytes)), `${bytes} bytes`);
}

/** The kind of a file. */
export type FileKind = "file" | "block" | "directory" | "pipe" | "socket" | "link" | "other";

// inode(7)
const S_IFMT = 0o170000;
const KINDS: Readonly<Record<number, FileKind>> = {
  0o100000: "file",
  0o060000: "block",
  0o040000: "directory",
  0o010000: "pipe",
  0o140000: "socket",
  0o120000: "link",
};

const STATX_BASIC_STATS = 0x7ff;
/** stx_blocks counts in these, whatever the file system's own. */
const STAT_BLOCK_BYTES = 512;

/** What the kernel knows of a file. */
export interface FileStat {
  /** Its kind. */
  kind: FileKind;
  /** The same for two names of one file, and for nothing else while the file is open. */
  identity: string;
  /** The number of a device, as `major:minor`; of other files `0:0`. */
  deviceNumber: string;
  /** Its size; of a device 0. */
  bytes: number;
  /** The size of a block of its file system; of a huge page file that of its pages. */
  blockBytes: number;
  /** The space that it takes on its file system. */
  allocatedBytes: number;
  /** When its content was last changed (mtime), in seconds since 1970. */
  modifiedAt: number;
  /** Its last change (ctime), in seconds since 1970. */
  changedAt: number;
}

const stat = new DataView(pinnedBuffer(256));

/**
 * Asks for a file at a path, which is relative to a directory's descriptor.
 *
 * @internal
 */
export function readStat(directory: number, path: string, flags: number): FileStat {
  check(
    libc.statx(directory, cString(path), flags, STATX_BASIC_STATS, stat),
    "statx",
    path || `file descriptor ${directory}`,
  );
  // struct statx: stx_blksize, stx_mode, stx_ino, stx_size, stx_blocks, stx_mtime, stx_ctime, stx_rdev_*, stx_dev_*
  const device = `${stat.getUint32(136, true)}:${stat.getUint32(140, true)}`;
  return {
    kind: KINDS[stat.getUint16(28, true) & S_IFMT] ?? "other",
    identity: `${device}:${stat.getBigUint64(32, true)}`,
    deviceNumber: `${stat.getUint32(128, true)}:${stat.getUint32(132, true)}`,
    bytes: Number(stat.getBigUint64(40, true)),
    blockBytes: stat.getUint32(4, true),
    allocatedBytes: Number(stat.getBigUint64(48, true)) * STAT_BLOCK_BYTES,
    modifiedAt: Number(stat.getBigInt64(112, true)) + stat.getUint32(120, true) / 1e9,
    changedAt: Number(stat.getBigInt64(96, true)) + stat.getUint32(104, true) / 1e9,
  };
}

/** What the kernel knows of an open file. */
export function fileStat(fd: number): FileStat {
  return readStat(fd, "", AT_EMPTY_PATH);
}

/** What kind of file a descriptor is. */
export function fileKind(fd: number): FileKind {
  return fileStat(fd).kind;
}

const TMPFS_MAGIC = 0x0102_1994; // linux/magic.h

/** Whether a file is in memory alone: on tmpfs. */
export function isInMemory(fd: number): boolean {
  const info = new Uint32Array(pinnedBuffer(120), 0, 30);
  check(libc.fstatfs(fd, info), "fstatfs");
  return info[0] === TMPFS_MAGIC;
}

/** Makes data (not times) durable. Negative on failure. */
export function dataSync(fd: number): number {
  return libc.fdatasync(fd);
}

/** Frees the space of a part of a file, which then reads as zeroes. Negative on failure. */
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

/**
 * Writes bytes at an offset, all of them.
 *
 * @throws {LinuxError} When they cannot be written; a part may have been.
 */
export function writeBytes(fd: number, offset: number, bytes: Uint8Array): void {
  const copy = new Uint8Array(pinnedBuffer(bytes.length), 0, bytes.length);
  copy.set(bytes);
  const vectors = new IoVectors();
  for (let done = 0; done < bytes.length;) {
    vectors.count = 0;
    vectors.push(addressOf(copy) + done, bytes.length - done);
    done += retry("pwrite", () => writeVectors(fd, vectors, offset + done));
  }
}

/** The most entries of one vectored call: IOV_MAX (readv(2)). */
export const MAX_IO_VECTORS = 1024;

/**
 * The memory of a vectored call: a list of addresses and lengths, at most {@linkcode MAX_IO_VECTORS}
 * of them (struct iovec). It may be filled again for each call, without an allocation. An operation
 * of io_uring needs the list unchanged until it completes.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import {
 *   addressOf,
 *   createMemfd,
 *   IoVectors,
 *   pinnedBuffer,
 *   readVectors,
 *   writeVectors,
 * } from "@vhostd/vhostd/linux";
 *
 * using file = createMemfd("example", 0);
 * const bytes = new Uint8Array(pinnedBuffer(4096));
 * bytes.set([1, 2, 3, 4]);
 * const vectors = new IoVectors();
 * vectors.push(addressOf(bytes) + 2, 2);
 * vectors.push(addressOf(bytes), 2);
 * assertEquals(writeVectors(file.number, vectors, 0), 4);
 * assertEquals(readVectors(file.number, vectors, 2), 2);
 * assertEquals([...bytes.subarray(0, 4)], [1, 2, 1, 2]);
 * ```
 */
export class IoVectors {
  #words = new Uint32Array(pinnedBuffer(MAX_IO_VECTORS * 16));
  /** How many entries are used. */
  count = 0;

  /** Where the entries are, for an operation. */
  readonly address: number = addressOf(this.#words);

  /** The entries, for a call. */
  get entries(): Uint32Array<ArrayBuffer> {
    return this.#words;
  }

  /**
   * Adds memory at an address; a neighbour of the last entry extends it.
   *
   * @returns Whether there was room.
   */
  push(address: number, bytes: number): boolean {
    const words = this.#words;
    const low = address >>> 0, high = (address / 2 ** 32) >>> 0;
    let at = this.count * 4;
    if (this.count > 0) {
      const last = at - 4;
      const end = words[last] + words[last + 1] * 2 ** 32 + words[last + 2];
      if (end === address && words[last + 2] + bytes <= 0x7fff_f000) {
        words[last + 2] += bytes;
        return true;
      }
      if (this.count === MAX_IO_VECTORS) return false;
    }
    words[at++] = low;
    words[at++] = high;
    words[at++] = bytes;
    words[at] = 0;
    this.count++;
    return true;
  }
}

// A 64-bit offset reaches libc without a BigInt being made when it is loaded
// from a BigInt64Array in optimised code: 5 million calls, no collection.
const offset64 = new BigInt64Array(pinnedBuffer(8), 0, 1);
const offsetWords = new Uint32Array(offset64.buffer, 0, 2);

function setOffset(offset: number): void {
  offsetWords[0] = offset >>> 0;
  offsetWords[1] = Math.floor(offset / 2 ** 32) >>> 0;
}

const address64 = new BigUint64Array(pinnedBuffer(8), 0, 1);
const addressWords = new Uint32Array(address64.buffer, 0, 2);

function setAddress({ entries }: IoVectors): void {
  addressWords[0] = entries[0];
  addressWords[1] = entries[1];
}

/** The offset of a stream, such as a socket, a pipe or a TAP: wherever it is. */
export const CURRENT_POSITION: number = -1;

/** Reads into vectors at an offset; the bytes read, or negative with errno set. */
export function readVectors(fd: number, vectors: IoVectors, offset: number): number {
  setOffset(offset);
  // One entry needs no list: that saves the kernel a copy and an allocation.
  if (vectors.count === 1 && offset >= 0) {
    setAddress(vectors);
    return libc.pread(fd, address64[0], vectors.entries[2], offset64[0]);
  }
  return libc.preadv2(fd, vectors.entries, vectors.count, offset64[0], 0);
}

/**
 * Reads up to `bytes` bytes at an offset; fewer where the file ends.
 *
 * @throws {LinuxError} When it cannot be read.
 */
export function readBytes(fd: number, offset: number, bytes: number): Uint8Array<ArrayBuffer> {
  const buffer = new Uint8Array(pinnedBuffer(bytes));
  const vectors = new IoVectors();
  vectors.push(addressOf(buffer), bytes);
  return buffer.subarray(0, retry("pread", () => readVectors(fd, vectors, offset)));
}

/**
 * Reads into `count` entries of struct iovec that lie at an address, from a descriptor's current
 * position; the bytes read, or negative with errno set.
 */
export function readList(fd: number, address: number, count: number): number {
  addressWords[0] = address >>> 0;
  addressWords[1] = address / 2 ** 32;
  return libc.readv(fd, address64[0], count);
}

/** Writes from vectors at an offset; the bytes written, or negative with errno set. */
export function writeVectors(fd: number, vectors: IoVectors, offset: number): number {
  setOffset(offset);
  if (vectors.count === 1 && offset >= 0) {
    setAddress(vectors);
    return libc.pwrite(fd, address64[0], vectors.entries[2], offset64[0]);
  }
  return libc.pwritev2(fd, vectors.entries, vectors.count, offset64[0], 0);
}
