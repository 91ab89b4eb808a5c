/**
 * Leases: the kernel's promise that nobody else opens a file before we are
 * ready for it.
 *
 * Source: fcntl(2), "Leases".
 *
 * @module
 */

import { libc } from "../libc.ts";

const F_SETLEASE = 1024;
const F_GETLEASE = 1025;
const F_WRLCK = 1;
const F_UNLCK = 2;

/**
 * Takes a write lease on a file: while it is whole, nobody else has the file
 * open. Somebody who opens it (or truncates it by its path) waits until the
 * lease is given back, or has `EWOULDBLOCK` if it does not want to wait. The
 * kernel sends SIGIO then, and waits 45 s (`/proc/sys/fs/lease-break-time`).
 *
 * This process has to listen to SIGIO ({@linkcode onLeaseBreak}), which would
 * end it. A thread that opens the file itself waits like all others, so the
 * thread that gives the lease back may not.
 *
 * @returns Whether the lease could be had: nobody else may have the file open,
 * it has to be ours, and its file system has to know leases.
 */
export function takeLease(fd: number): boolean {
  return libc.fcntl(fd, F_SETLEASE, F_WRLCK) >= 0;
}

/** Whether a lease is held for which nobody waits. */
export function isLeaseWhole(fd: number): boolean {
  return libc.fcntl(fd, F_GETLEASE, 0) === F_WRLCK;
}

/** Gives a lease back, if there is one. */
export function giveLeaseBack(fd: number): void {
  libc.fcntl(fd, F_SETLEASE, F_UNLCK);
}

const listeners = new Set<() => void>();

function tell(): void {
  for (const listener of listeners) listener();
}

/** Calls `listener` when somebody waits for a lease of this process, whichever; main thread only. */
export function onLeaseBreak(listener: () => void): Disposable {
  if (listeners.size === 0) Deno.addSignalListener("SIGIO", tell);
  listeners.add(listener);
  return {
    [Symbol.dispose]() {
      if (listeners.delete(listener) && listeners.size === 0) {
        Deno.removeSignalListener("SIGIO", tell);
      }
    },
  };
}
