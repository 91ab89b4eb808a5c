/**
 * The chunks of one version of a file on a disk of this machine, shared by all processes that serve
 * it.
 *
 * It is one sparse file: each chunk at its own place, and behind the last one the map, which has for
 * each chunk the checksum of its data, or zeroes while it is not there. Data is written before its
 * checksum, and compared with it when a process first uses it: what a crash left unfinished, or a
 * disk lost, is fetched again.
 *
 * Locks on a chunk's bytes (of open files, so they end with their process) keep it as it is: shared
 * while a process uses it, exclusive while one writes or removes it. A lock on a byte behind all
 * keeps the file.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import {
  Errno,
  Fd,
  fileBytes,
  fileKind,
  fileStat,
  LinuxError,
  lockExclusive,
  lockShared,
  noteNewFile,
  openFile,
  pinnedBuffer,
  punchHole,
  readBytes,
  resizeFile,
  unlock,
  writeBytes,
} from "../../../src/linux/mod.ts";
import { pause } from "../image_lock.ts";

/** What is fetched at once, and cached as a whole, in bytes. */
export const CHUNK_BYTES = 524_288;

/** A checksum: CRC-32 of each half of the chunk. */
const CHECKSUM_BYTES = 8;

/** The byte whose lock keeps the file. */
const KEPT = 2 ** 53 - 1;

/** How often, and with which pauses, a file is opened that another process is removing. */
const MAX_ATTEMPTS = 200, PAUSE_MS = 10;

/** How many chunks' checksums are read at once. */
const MAP_PIECE_CHUNKS = 8192;

/** How many chunks a file of so many bytes has. */
export function chunksOf({ bytes }: { readonly bytes: number }): number {
  return Math.ceil(bytes / CHUNK_BYTES);
}

/** What there is of a chunk: all of it; nothing, and others wait; another process works on it. */
export type Claim = "whole" | "mine" | "busy";

/** The chunks of one version of a file. The descriptor may be another thread's. */
export class CacheFile {
  readonly #fd: number;
  readonly #chunks: number;
  readonly #entry = new Uint8Array(pinnedBuffer(CHECKSUM_BYTES), 0, CHECKSUM_BYTES);

  /**
   * @param fd The file, open for reading and writing.
   * @param chunks How many chunks there are.
   */
  constructor(fd: number, chunks: number) {
    this.#fd = fd;
    this.#chunks = chunks;
  }

  /**
   * Takes a chunk: it stays, if it is whole, until it is dropped. Else it is the caller's to fetch
   * and store, or to drop.
   */
  claim(chunk: number): Claim {
    if (!this.#lock(lockShared, chunk)) return "busy";
    if (this.#isWhole(chunk)) return "whole";
    if (!this.#lock(lockExclusive, chunk)) {
      this.#unlock(chunk);
      return "busy";
    }
    // Another process may have stored it in between
    if (!this.#isWhole(chunk)) return "mine";
    this.#lock(lockShared, chunk);
    return "whole";
  }

  /**
   * Stores a chunk that was claimed; it stays until it is dropped.
   *
   * @throws {LinuxError} When it cannot be written; then it is dropped.
   */
  store(chunk: number, bytes: Uint8Array<ArrayBuffer>): void {
    try {
      writeBytes(this.#fd, chunk * CHUNK_BYTES, bytes);
      this.#entry.set(checksum(bytes));
      writeBytes(this.#fd, this.#place(chunk), this.#entry);
    } catch (error) {
      this.drop(chunk);
      throw error;
    }
    this.#lock(lockShared, chunk);
  }

  /** Releases a chunk that was claimed. */
  drop(chunk: number): void {
    this.#unlock(chunk);
  }

  /**
   * Removes a chunk that no other process uses.
   *
   * @returns Whether there was one.
   */
  remove(chunk: number): boolean {
    if (!this.#lock(lockExclusive, chunk)) return false;
    this.#entry.fill(0);
    writeBytes(this.#fd, this.#place(chunk), this.#entry);
    punchHole(this.#fd, chunk * CHUNK_BYTES, CHUNK_BYTES);
    this.#unlock(chunk);
    return true;
  }

  /** The chunks that there seem to be. */
  *stored(): Iterable<number> {
    for (let first = 0; first < this.#chunks; first += MAP_PIECE_CHUNKS) {
      const piece = readBytes(this.#fd, this.#place(first), MAP_PIECE_CHUNKS * CHECKSUM_BYTES);
      const words = new Uint32Array(piece.buffer);
      for (let i = 0; i < piece.length / CHECKSUM_BYTES; i++) {
        if ((words[2 * i] | words[2 * i + 1]) !== 0) yield first + i;
      }
    }
  }

  #place(chunk: number): number {
    return this.#chunks * CHUNK_BYTES + chunk * CHECKSUM_BYTES;
  }

  #isWhole(chunk: number): boolean {
    const entry = readBytes(this.#fd, this.#place(chunk), CHECKSUM_BYTES);
    if (entry.every((byte) => byte === 0)) return false;
    const expected = checksum(readBytes(this.#fd, chunk * CHUNK_BYTES, CHUNK_BYTES));
    return expected.every((byte, i) => byte === entry[i]);
  }

  #lock(take: typeof lockShared, chunk: number): boolean {
    return isFree(() => take(this.#fd, chunk * CHUNK_BYTES, CHUNK_BYTES));
  }

  #unlock(chunk: number): void {
    unlock(this.#fd, chunk * CHUNK_BYTES, CHUNK_BYTES);
  }
}

/**
 * Opens the file of so many chunks at a path, or creates it, and keeps it there while it is open.
 *
 * @throws {LinuxError} When it cannot be had.
 */
export function openCacheFile(path: string, chunks: number): Fd {
  for (let attempt = 0;; attempt++) {
    using fd = openFile(path, { write: true, create: true, nonblocking: true });
    if (fileKind(fd.number) !== "file") throw new TypeError(`Expected a file at ${path}`);
    // Another process may be removing it: then there is another file at the path, or none
    const isKept = isFree(() => lockShared(fd.number, KEPT, 1)) && isAt(path, fd.number);
    if (!isKept) {
      if (attempt === MAX_ATTEMPTS) throw new Error(`${path} is being removed, for too long`);
      pause(PAUSE_MS);
      continue;
    }
    if (fileBytes(fd.number) === 0) noteNewFile(path, fd.number);
    resizeFile(fd.number, chunks * (CHUNK_BYTES + CHECKSUM_BYTES));
    return new Fd(fd.release());
  }
}

/** Notes that a file was used now. */
export function touchCacheFile(fd: number): void {
  // Sets its time of modification, also if that is its size already
  resizeFile(fd, fileBytes(fd));
}

/** Removes a file that no process has open, and returns whether it did. */
export function removeCacheFile(path: string): boolean {
  try {
    using fd = openFile(path, { write: true, nonblocking: true });
    if (!isFree(() => lockExclusive(fd.number, KEPT, 1)) || !isAt(path, fd.number)) return false;
    Deno.removeSync(path);
    return true;
  } catch (error) {
    if (error instanceof LinuxError || error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Whether a descriptor's file is still at its path. */
function isAt(path: string, fd: number): boolean {
  try {
    using there = openFile(path);
    return fileStat(there.number).identity === fileStat(fd).identity;
  } catch (error) {
    if (error instanceof LinuxError && error.errno === Errno.ENOENT) return false;
    throw error;
  }
}

/** Whether a lock could be taken. */
function isFree(take: () => void): boolean {
  try {
    take();
    return true;
  } catch (error) {
    if (error instanceof LinuxError && error.errno === Errno.EAGAIN) return false;
    throw error;
  }
}

function checksum(bytes: Uint8Array<ArrayBuffer>): Uint8Array {
  const half = CHUNK_BYTES / 2;
  const halves = [bytes.subarray(0, half), bytes.subarray(half)].map((half) => crc32(half));
  return new Uint8Array(Uint32Array.from(halves).buffer);
}
