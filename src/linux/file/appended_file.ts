/**
 * Files that are written from their beginning to their end.
 *
 * @module
 */

import { check, Errno, LinuxError } from "../errors.ts";
import { Fd, writeNow } from "../fd.ts";
import { fileStat } from "./file.ts";
import { lockExclusive } from "./file_lock.ts";
import { noteNewFile } from "./new_files.ts";
import { cString, libc, pinnedBuffer } from "../libc.ts";

const O_WRONLY = 1;
const O_CREAT = 0o100;
const O_EXCL = 0o200;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
/** Only its owner may read and write it. */
const MODE = 0o600;

/** How many bytes are written at once. */
const PIECE_BYTES = 2 ** 20;

/** Locks a whole file, and says whether another open file has it: two would write over each other. */
function isLockedElsewhere(fd: number): boolean {
  try {
    lockExclusive(fd, 0, 0);
    return false;
  } catch (error) {
    // Other errors: the file system has no locks.
    return error instanceof LinuxError && error.errno === Errno.EAGAIN;
  }
}

/** A file that only this process writes, at its end. */
export class AppendedFile implements Disposable {
  readonly #fd: Fd;
  readonly #piece = new Uint8Array(pinnedBuffer(PIECE_BYTES), 0, PIECE_BYTES);

  /**
   * Creates a file that only its owner may read, or empties the one at that path.
   *
   * @throws {LinuxError} When it cannot be opened.
   * @throws {TypeError} When something other than a file is there, or the file is being written.
   */
  constructor(path: string) {
    // Opening a pipe would wait for its reader.
    const flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK;
    const made = libc.open(cString(path), flags | O_EXCL, MODE);
    using fd = new Fd(
      made >= 0 ? made : check(libc.open(cString(path), flags, MODE), "open", path),
    );
    if (made >= 0) noteNewFile(path, made);
    const { kind } = fileStat(fd.number);
    if (kind !== "file") {
      const what = kind === "other" ? "device" : kind;
      throw new TypeError(`Expected a file at ${path}, got a ${what}`);
    }
    if (isLockedElsewhere(fd.number)) {
      throw new TypeError(`Expected a file of its own, got ${path}, which is being written`);
    }
    check(libc.ftruncate(fd.number, 0n), "ftruncate", path);
    this.#fd = new Fd(fd.release());
  }

  /**
   * Writes bytes at the end, on a thread of Deno's; one call at a time. The bytes may change as soon
   * as it is called, if there are at most 1 MiB.
   *
   * @throws {LinuxError} When they cannot be written, as on a full disk; a part may have been.
   */
  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const piece = this.#piece.subarray(0, Math.min(bytes.length - at, PIECE_BYTES));
      piece.set(bytes.subarray(at, at + piece.length));
      const pointer = Deno.UnsafePointer.of(piece);
      const count = await libc.write_async(this.#fd.number, pointer, piece.length);
      // The reason of a failure is the other thread's, so it is asked for here.
      at += count >= 0 ? count : Math.max(0, writeNow(this.#fd.number, piece));
    }
  }

  /** Closes it; no write may be pending. */
  [Symbol.dispose](): void {
    this.#fd.close();
  }
}
