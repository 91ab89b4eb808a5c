/**
 * Timers as file descriptors.
 *
 * @module
 */

import { check } from "../errors.ts";
import { Fd } from "../fd.ts";
import { libc, pinnedBuffer } from "../libc.ts";

const CLOCK_MONOTONIC = 1;
const TFD_CLOEXEC = 0o2000000;
const TFD_NONBLOCK = 0o4000;

/** A timer that is not set: see {@linkcode setTimer}. */
export function createTimer(): Fd {
  return new Fd(
    check(libc.timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd_create"),
  );
}

// struct itimerspec, in a buffer that does not move: its second half is the time, as 64-bit numbers.
const once = new Uint32Array(pinnedBuffer(32), 0, 8);

/**
 * Makes a timer readable once, after a time below 1,000 seconds. Ends an earlier setting, and that
 * the timer is readable. It allocates nothing.
 *
 * @param us The time in microseconds; 0 is the shortest one.
 */
export function setTimer(fd: number, us: number): void {
  once[4] = us / 1e6;
  once[6] = us % 1e6 * 1000 + 1;
  check(libc.timerfd_settime(fd, 0, once, null), "timerfd_settime");
}

/** A timer that is readable every `periodMs` milliseconds, from now on. */
export function createTimerfd(periodMs: number): Fd {
  const fd = createTimer();
  const seconds = BigInt(Math.floor(periodMs / 1000));
  const nanoseconds = BigInt(Math.round((periodMs % 1000) * 1e6));
  const specification = new BigInt64Array(pinnedBuffer(32), 0, 4);
  specification.set([seconds, nanoseconds, seconds, nanoseconds]);
  check(libc.timerfd_settime(fd.number, 0, specification, null), "timerfd_settime");
  return fd;
}
