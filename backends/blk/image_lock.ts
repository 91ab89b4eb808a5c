/**
 * Locks on an image, so that no two programs write to it: those of QEMU, which QEMU, qemu-img,
 * qemu-storage-daemon and vhostd all understand.
 *
 * Two bytes of the file stand for each thing that may be done to an image. Who does it locks the
 * one, who does not want others to do it locks the other; both are locks that many can have. To see
 * whether one fits in, one locks first and then looks whether somebody else has locked a byte that
 * means no.
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

/** The byte of what somebody does; plus the number of it. */
const DOES = 100;

/** The byte of what others must not do; plus the number of it. */
const FORBIDS = 200;

// BLK_PERM_CONSISTENT_READ, BLK_PERM_WRITE
const READ = 0;
const WRITE = 1;

/**
 * How long another program may take to let go. One that was killed under load has its locks until
 * the kernel has ended its requests: 10 to 20 ms, 92 ms once, and up to 300 ms where fifteen
 * processes wanted two processors.
 */
const PATIENCE_MS = 2000;

/** How long to wait between two tries at most; up to twice as long, for others may do the same. */
const PAUSE_MS = 10;

/**
 * Locks an image until what is returned is disposed of, or its last descriptor is closed, as an
 * io_uring may do a while later: nobody else may write to it, and who forbids to write to it, or to
 * read it, is respected. Its size may change: the device looks at it again on request.
 *
 * @throws {Error} When others do not allow that; the message is for the person who named the image.
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
 * Locks a block device beyond its node: the kernel is asked that nobody else has it, by whatever
 * name, and that it is not mounted; and of a loop device the file behind it is locked too. With
 * `readOnly` it is only looked whether somebody has the device, as others may read it too.
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

/** Somebody else has the image just now. */
class InUse extends Error {}

/**
 * Tries something again for a while that fails because somebody else has the image:
 * {@linkcode InUse}, or EAGAIN when it is opened and has a lease.
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

/** Locks bytes and looks around; returns why it cannot be, with the bytes locked all the same. */
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
      ? "another program relies on nobody else writing to it; stop that one first, or add --read-only"
      : "another program wants nobody to read it meanwhile; stop that one first";
  } catch (cause) {
    if (!(cause instanceof LinuxError)) throw cause;
    if (cause.errno === Errno.EAGAIN || cause.errno === Errno.EACCES) {
      return "another program has locked it for itself; stop that one first";
    }
    throw new Error(
      `Cannot lock disk image ${path}: ${cause.message}; add --lock=off if its file system has ` +
        "no locks and nobody else uses it",
      { cause },
    );
  }
}

const never = new Int32Array(new SharedArrayBuffer(4));

/** Stops this thread for a while. */
export function pause(ms: number): void {
  Atomics.wait(never, 0, 0, ms);
}
