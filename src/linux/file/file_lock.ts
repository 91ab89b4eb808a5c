/**
 * Locks on bytes of a file that belong to an open file: fcntl(2), "Open file
 * description locks". They end with the last descriptor of that open file, and
 * bind only programs that check them.
 *
 * @module
 */

import { check, retry } from "../errors.ts";
import { libc, pinnedBuffer } from "../libc.ts";

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

// struct flock: l_type, l_whence (0: from the start), l_start, l_len, l_pid (0 for these locks)
const flock = new DataView(pinnedBuffer(32));

function describe(type: number, offset: number, bytes: number): DataView<ArrayBuffer> {
  flock.setInt16(0, type, true);
  flock.setInt16(2, 0, true);
  flock.setBigInt64(8, BigInt(offset), true);
  flock.setBigInt64(16, BigInt(bytes), true);
  flock.setInt32(24, 0, true);
  return flock;
}

function take(type: number, fd: number, offset: number, bytes: number): void {
  const lock = describe(type, offset, bytes);
  retry("fcntl", () => libc.fcntl_lock(fd, F_OFD_SETLK, lock), "F_OFD_SETLK");
}

/**
 * Takes a shared lock on bytes, also in place of one of this open file. The file has to be open for
 * reading.
 *
 * @throws {LinuxError} EAGAIN when they are locked exclusively; ENOLCK,
 * EINVAL and others where the file system has no locks.
 */
export function lockShared(fd: number, offset: number, bytes: number): void {
  take(F_RDLCK, fd, offset, bytes);
}

/**
 * Takes an exclusive lock on bytes, also in place of one of this open file. The file has to be open
 * for writing.
 *
 * @throws {LinuxError} EAGAIN when another open file has locked some of them, in any way; others as
 * for {@linkcode lockShared}.
 */
export function lockExclusive(fd: number, offset: number, bytes: number): void {
  take(F_WRLCK, fd, offset, bytes);
}

/** Unlocks bytes. */
export function unlock(fd: number, offset: number, bytes: number): void {
  check(libc.fcntl_lock(fd, F_OFD_SETLK, describe(F_UNLCK, offset, bytes)), "fcntl", "F_OFD_SETLK");
}

/** Whether another open file has locked some of the bytes, in any way. */
export function isLockedElsewhere(fd: number, offset: number, bytes: number): boolean {
  const lock = describe(F_WRLCK, offset, bytes);
  check(libc.fcntl_lock(fd, F_OFD_GETLK, lock), "fcntl", "F_OFD_GETLK");
  return lock.getInt16(0, true) !== F_UNLCK;
}
