/**
 * Leases: the kernel's promise that no other open of a file succeeds before the lease is given back.
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
 * Takes a write lease on a file: while it is whole, no other process has the file
 * open. An open (or a truncate by path) waits until the lease is given back, or fails
 * with `EWOULDBLOCK` if it must not wait. The kernel then sends SIGIO, and takes the
 * lease away after 45 s (`/proc/sys/fs/lease-break-time`).
 *
 * This process has to listen to SIGIO ({@linkcode onLeaseBreak}), which would
 * end it. The thread that gives the lease back must not open the file itself: it would wait too.
 *
 * @returns Whether it was taken: no other open file may exist, this user has to own the file,
 * and its file system has to know leases.
 */
export function takeLease(fd: number): boolean {
  return libc.fcntl(fd, F_SETLEASE, F_WRLCK) >= 0;
}

/** Whether a lease is held and no other open waits for it. */
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

/** Calls `listener` when an open waits for any lease of this process; main thread only. */
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
