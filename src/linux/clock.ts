/**
 * A clock for the data path.
 *
 * @module
 */

import { libc, pinnedBuffer } from "./libc.ts";

const CLOCK_REALTIME = 0, CLOCK_MONOTONIC = 1, CLOCK_PROCESS_CPUTIME_ID = 2;

/** Times are modulo 2^30: small integers to V8, and 17 minutes from one to the same again. */
const MASK = 0x3fff_ffff;

// struct timespec, in a buffer that does not move.
const time = new Int32Array(pinnedBuffer(16));

/**
 * The time in microseconds, modulo 2^30. It allocates nothing, which
 * `performance.now()` does with each number that it returns.
 */
export function microseconds(): number {
  libc.clock_gettime(CLOCK_MONOTONIC, time);
  return (Math.imul(time[0], 1_000_000) + (time[2] / 1000 | 0)) & MASK;
}

/**
 * Stores the time of day, in microseconds since 1970, as two words: the upper one, then the lower
 * one. It allocates nothing.
 */
export function stampTime(words: Uint32Array, at: number): void {
  libc.clock_gettime(CLOCK_REALTIME, time);
  const us = time[0] * 1e6 + Math.floor(time[2] / 1000);
  words[at] = us / 2 ** 32;
  words[at + 1] = us % 2 ** 32;
}

/** The processor time of all threads of this process since its start, in seconds. */
export function processorSeconds(): number {
  libc.clock_gettime(CLOCK_PROCESS_CPUTIME_ID, time);
  return time[0] + time[2] / 1e9;
}

/**
 * Stores the time of CLOCK_MONOTONIC, in nanoseconds. It allocates nothing, and one clock serves all
 * threads.
 */
export function stampNanoseconds(times: Float64Array, at: number): void {
  libc.clock_gettime(CLOCK_MONOTONIC, time);
  times[at] = time[0] * 1e9 + time[2];
}

/**
 * The microseconds between two readings, if less than 17 minutes are.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { elapsed, microseconds } from "./clock.ts";
 *
 * const start = microseconds();
 * assert(elapsed(start, microseconds()) < 1_000_000);
 * ```
 */
export function elapsed(earlier: number, later: number): number {
  return (later - earlier) & MASK;
}
