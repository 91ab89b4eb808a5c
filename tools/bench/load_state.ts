/** What load threads and the thread that watches them share. */
import { Histogram, HISTOGRAM_BYTES } from "./histogram.ts";

/** What load threads are told to do. */
export const phases = {
  /** Go on, without noting latencies. */
  WARM: 0,
  /** Note latencies. */
  RECORD: 1,
  /** Let everything in flight come back, and end. */
  STOP: 2,
  /** End at once. */
  ABORT: 3,
} as const;

/** What a load thread counts, by its word. */
const counts = { completed: 0, kicks: 1, waits: 2 } as const;
export type Count = keyof typeof counts;
const COUNTERS_BYTES = 64;

/** Tells all load threads of a run what to do. */
export class LoadControl {
  /** What another thread makes its own object of. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;

  /** Makes a new one, or another thread's object of the same. */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(4)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /** See {@linkcode phases}. */
  get phase(): number {
    return Atomics.load(this.#words, 0);
  }

  set phase(phase: number) {
    Atomics.store(this.#words, 0, phase);
  }
}

/** What one load thread has done; counts are modulo 2^32. */
export class LoadCounters {
  /** What another thread makes its own object of. */
  readonly buffer: SharedArrayBuffer;
  /** Latencies in nanoseconds, of requests that came back while they were noted. */
  readonly latencies: Histogram;
  readonly #words: Int32Array<SharedArrayBuffer>;

  /** Makes a new one, or another thread's object of the same. */
  constructor(buffer = new SharedArrayBuffer(HISTOGRAM_BYTES + COUNTERS_BYTES)) {
    this.buffer = buffer;
    this.latencies = new Histogram(buffer);
    this.#words = new Int32Array(buffer, HISTOGRAM_BYTES, COUNTERS_BYTES / 4);
  }

  clear(): void {
    this.latencies.clear();
    this.#words.fill(0);
  }

  /** Requests that came back, notifications of the device, or how often nothing had come back. */
  get(count: Count): number {
    return Atomics.load(this.#words, counts[count]) >>> 0;
  }

  set(count: Count, value: number): void {
    Atomics.store(this.#words, counts[count], value);
  }
}
