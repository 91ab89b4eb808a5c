/**
 * Event file descriptors.
 *
 * @module
 */

import { check, Errno } from "./errors.ts";
import { Fd } from "./fd.ts";
import { fileKind } from "./file.ts";
import { errno, libc, pinnedBuffer } from "./libc.ts";
import { readLink } from "./path.ts";

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

const one = new Uint8Array(new BigUint64Array([1n]).buffer);
const drained = new Uint8Array(64);

/** A new non-blocking eventfd. */
export function createEventfd(): Fd {
  return new Fd(check(libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
}

/** Whether a descriptor is an eventfd; front-ends may use pipes where there are none. */
export function isEventfd(fd: number): boolean {
  return readLink(`/proc/self/fd/${fd}`) === "anon_inode:[eventfd]";
}

/** Whether a descriptor can carry signals: an eventfd, or a pipe. */
export function carriesSignals(fd: number): boolean {
  return isEventfd(fd) || fileKind(fd) === "pipe";
}

/**
 * Signals an eventfd (or a pipe that stands for one). A counter that is full
 * is signalled already, so that is no error.
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

const POLLOUT = 4;
const pollfd = new DataView(pinnedBuffer(8));

/**
 * Signals an eventfd that its owner may have made block, as any who has it can:
 * one that is full is left alone. For threads that others depend on.
 */
export function signalGuardedly(fd: number): void {
  pollfd.setInt32(0, fd, true); // struct pollfd: fd, events, revents
  pollfd.setInt32(4, POLLOUT, true);
  if (libc.poll(pollfd, 1, 0) > 0) signalEventfd(fd);
}

/**
 * Takes the signals of an eventfd (or the bytes of a pipe that stands for
 * one).
 *
 * @returns Whether there were any. There are none in a pipe that nobody can
 * write to, or that cannot be read.
 */
export function drainEventfd(fd: number): boolean {
  for (;;) {
    const count = libc.read(fd, drained, drained.length);
    if (count >= 0) return count > 0;
    if (errno() !== Errno.EINTR) return false;
  }
}

const counter = new Uint32Array(2);

/** Takes the signals of an eventfd; returns how many there were. */
export function countSignals(fd: number): number {
  for (;;) {
    if (libc.read(fd, counter, 8) === 8) return counter[0];
    if (errno() !== Errno.EINTR) return 0;
  }
}
