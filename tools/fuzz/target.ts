/**
 * What a fuzzer is to the command that runs it.
 *
 * @module
 */

/** What a fuzz target is asked to do. */
export interface FuzzOptions {
  seed: number;
  cases: number;
  /** Told now and then. */
  progress(done: number): void;
}

/** What it found. */
export interface FuzzReport {
  cases: number;
  /** Counts of what was reached, by name: kinds of messages, faults, outcomes. */
  reached: Record<string, number>;
}

/** A fuzzer. */
export interface FuzzTarget {
  name: string;
  about: string;
  /** Throws an Error that says what went wrong at which case; the seed repeats it. */
  run(options: FuzzOptions): Promise<FuzzReport>;
}
