/**
 * Clocks that allocate nothing, unlike `performance.now()`, and the exact one of another process:
 * `/proc/PID/stat` counts in hundredths of a second.
 */

const { symbols: libc } = Deno.dlopen("libc.so.6", {
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" }, // clockid, tp
});

const CLOCK_MONOTONIC = 1;
/** The scheduler's own count of a process: linux/posix-timers.h. */
const CPUCLOCK_SCHED = 2;

const NS_PER_S = 1_000_000_000;

// struct timespec, in a buffer that does not move.
const time = new BigInt64Array(new ArrayBuffer(4096), 0, 2);
const words = new Int32Array(time.buffer, 0, 4);

/**
 * The time in nanoseconds, modulo 2^32: what lies between two readings is `(later - earlier) >>>
 * 0`, up to four seconds.
 */
export function readClock(): number {
  libc.clock_gettime(CLOCK_MONOTONIC, time);
  return (Math.imul(words[0], NS_PER_S) + words[2]) | 0;
}

/**
 * The processor time of a process, in nanoseconds: of all its threads, those that have ended and
 * the kernel's workers for its io_uring among them.
 */
export function processTime(pid: number): number {
  if (libc.clock_gettime(~pid << 3 | CPUCLOCK_SCHED, time) !== 0) {
    throw new Error(`Expected process ${pid} to run, got none`);
  }
  return Number(time[0]) * NS_PER_S + Number(time[1]);
}
