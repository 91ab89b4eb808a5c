/**
 * Event file descriptors.
 *
 * @module
 */

import { check, Errno } from "../errors.ts";
import { Fd } from "../fd.ts";
import { errno, libc } from "../libc.ts";
import { readLink } from "../file/path.ts";

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

const one = new Uint8Array(new BigUint64Array([1n]).buffer);
const counter = new Uint32Array(2);

/** A new non-blocking eventfd. */
export function createEventfd(): Fd {
  return new Fd(check(libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
}

/** Whether a descriptor is an eventfd. */
export function isEventfd(fd: number): boolean {
  return readLink(`/proc/self/fd/${fd}`) === "anon_inode:[eventfd]";
}

/**
 * Signals an eventfd of this process's own. A counter that is full is signalled
 * already, so that is no error. One that others hold too is for
 * {@linkcode Signaller}.
 *
 * @returns Whether the other side can see the signal.
 */
export function signalEventfd(fd: number): boolean {
  for (;;) {
    if (libc.write(fd, one, 8) >= 0) return true;
    const code = errno();
    if (code === Errno.EAGAIN) return true;
    if (code !== Errno.EINTR) return false;
  }
}

/**
 * Takes the signals of an eventfd or a timerfd of this process's own.
 *
 * @returns Whether there were any.
 */
export function drainEventfd(fd: number): boolean {
  for (;;) {
    const count = libc.read(fd, counter, 8);
    if (count >= 0) return count > 0;
    if (errno() !== Errno.EINTR) return false;
  }
}

/** Takes the signals of an eventfd; returns how many there were. */
export function countSignals(fd: number): number {
  return drainEventfd(fd) ? counter[0] : 0;
}
