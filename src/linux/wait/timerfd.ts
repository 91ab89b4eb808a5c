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

/** A timer that is readable every `periodMs` milliseconds, from now on. */
export function createTimerfd(periodMs: number): Fd {
  const fd = new Fd(
    check(libc.timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd_create"),
  );
  const seconds = BigInt(Math.floor(periodMs / 1000));
  const nanoseconds = BigInt(Math.round((periodMs % 1000) * 1e6));
  const specification = new BigInt64Array(pinnedBuffer(32), 0, 4);
  specification.set([seconds, nanoseconds, seconds, nanoseconds]);
  check(libc.timerfd_settime(fd.number, 0, specification, null), "timerfd_settime");
  return fd;
}
