/**
 * Locks on an image, so that no two programs write to it. They are QEMU's, which QEMU, qemu-img,
 * qemu-storage-daemon and vhostd understand.
 *
 * Each permission on an image has two bytes of the file: a program that uses the permission locks
 * the first, and a program that denies it to others locks the second. Many programs can hold each
 * lock. A program locks its bytes first and then checks whether another one holds a byte that
 * conflicts.
 *
 * Source: QEMU, block/file-posix.c and include/block/block-common.h.
 *
 * @module
 */

import {
  Errno,
  isLockedElsewhere,
  LinuxError,
  lockShared,
  openFile,
  unlock,
} from "../../src/linux/mod.ts";
import { claimDevice, loopFile } from "./block_device.ts";

/** The first byte for permissions in use; add the permission. */
const DOES = 100;

/** The first byte for permissions that are denied to others; add the permission. */
const FORBIDS = 200;

// BLK_PERM_CONSISTENT_READ, BLK_PERM_WRITE
const READ = 0;
const WRITE = 1;

/**
 * How long to wait for another program to release an image. A program that was killed under load
 * holds its locks until the kernel has ended its requests: 10 to 20 ms, 92 ms once, and up to 300
 * ms where fifteen processes wanted two processors.
 */
const PATIENCE_MS = 2000;

/** The longest pause between two attempts; a random part of up to the same length is added. */
const PAUSE_MS = 10;

/**
 * Locks an image: no other program may write to it, and what others deny is respected. The lock
 * ends when the returned object is disposed of or the image's last descriptor is closed, which an
 * io_uring may delay. The size may change: the device reads it again on request.
 *
 * @throws {Error} When another program does not allow it; the message is for the user.
 */
export function lockImage(path: string, fd: number, readOnly: boolean): Disposable {
  const does = readOnly ? [READ] : [READ, WRITE];
  const bytes = [...does.map((what) => DOES + what), FORBIDS + WRITE];
  patiently(() => {
    const obstacle = tryLock(path, fd, bytes, does);
    if (obstacle === undefined) return;
    for (const byte of bytes) unlock(fd, byte, 1);
    throw new InUse(`Cannot use disk image ${path}: ${obstacle} (--lock=off does not ask)`);
  });
  return {
    [Symbol.dispose]() {
      for (const byte of bytes.splice(0)) unlock(fd, byte, 1);
    },
  };
}

/**
 * Locks a block device under all its names: no other program may claim it and it may not be
 * mounted. For a loop device, the file behind it is locked too. With `readOnly` this is only
 * checked, as others may read the device too.
 *
 * @throws {Error} As {@linkcode lockImage}.
 */
export function lockDevice(path: string, fd: number, readOnly: boolean): Disposable {
  using locks = new DisposableStack();
  const claim = patiently(() => {
    try {
      return claimDevice(fd);
    } catch (error) {
      if (!(error instanceof LinuxError) || error.errno !== Errno.EBUSY) throw error;
      throw new InUse(
        `Cannot use block device ${path}: it is mounted, or another program has it for itself ` +
          "(--lock=off does not ask)",
        { cause: error },
      );
    }
  });
  if (readOnly) claim.close();
  else locks.use(claim);
  const file = loopFile(fd);
  const behind = file === undefined ? undefined : openBehind(file);
  if (behind !== undefined) {
    locks.use(behind);
    locks.use(lockImage(`${path} (${file})`, behind.number, readOnly));
  }
  return locks.move();
}

/** Opens the file behind a loop device; undefined where it is out of reach. */
function openBehind(path: string): ReturnType<typeof openFile> | undefined {
  try {
    return patiently(() => openFile(path, { nonblocking: true }));
  } catch (error) {
    if (error instanceof LinuxError) return undefined;
    throw error;
  }
}

/** Another program is using the image. */
class InUse extends Error {}

/**
 * Retries something while another program is using the image: on {@linkcode InUse}, or on EAGAIN
 * when the image is opened and has a lease.
 */
export function patiently<T>(attempt: () => T): T {
  const end = performance.now() + PATIENCE_MS;
  for (let pauseMs = 1;; pauseMs = Math.min(pauseMs * 2, PAUSE_MS)) {
    try {
      return attempt();
    } catch (error) {
      const isInUse = error instanceof InUse ||
        error instanceof LinuxError && error.errno === Errno.EAGAIN;
      if (!isInUse || performance.now() >= end) throw error;
    }
    pause(pauseMs * (1 + Math.random()));
  }
}

/**
 * Locks bytes and checks the others; returns why the image cannot be used. The bytes stay locked.
 */
function tryLock(
  path: string,
  fd: number,
  bytes: readonly number[],
  does: readonly number[],
): string | undefined {
  try {
    for (const byte of bytes) lockShared(fd, byte, 1);
    if (isLockedElsewhere(fd, DOES + WRITE, 1)) {
      return "another program writes to it; stop that one first";
    }
    const forbidden = does.find((what) => isLockedElsewhere(fd, FORBIDS + what, 1));
    if (forbidden === undefined) return undefined;
    return forbidden === WRITE
      ? "another program does not allow others to write to it; stop that one first, or add --read-only"
      : "another program does not allow others to read it; stop that one first";
  } catch (cause) {
    if (!(cause instanceof LinuxError)) throw cause;
    if (cause.errno === Errno.EAGAIN || cause.errno === Errno.EACCES) {
      return "another program has locked it for itself; stop that one first";
    }
    throw new Error(
      `Cannot lock disk image ${path}: ${cause.message}; add --lock=off if its file system has ` +
        "no locks and no other program uses it",
      { cause },
    );
  }
}

const never = new Int32Array(new SharedArrayBuffer(4));

/** Stops this thread for a while. */
export function pause(ms: number): void {
  Atomics.wait(never, 0, 0, ms);
}
