/**
 * The frame of every fuzzer: parts with random numbers of their own, until there were enough cases.
 */
import { mix, Random } from "../lib/random.ts";

/** How long anything may take on a busy machine. */
export const TIMEOUT_MS = 60_000;

/** Counts of what was reached, by name: kinds of messages, faults, outcomes. */
export class Tally {
  readonly counts: Record<string, number> = {};

  add(name: string, count = 1): void {
    this.counts[name] = (this.counts[name] ?? 0) + count;
  }
}

export interface FuzzRun {
  seed: number;
  cases: number;
  tally: Tally;
  progress(done: number): void;
}

/** A fuzzer: fails with what went wrong at which case; the seed repeats it. */
export interface FuzzTarget {
  about: string;
  run(run: FuzzRun): Promise<void>;
}

/** Plays up to about the given number of cases; returns the number played. */
export type Part = (random: Random, cases: number, tally: Tally) => number | Promise<number>;

/** The generator of part `number` of a run: no part needs those before it. */
export function randomOf(seed: number, number: number): Random {
  return new Random(mix(seed) ^ Math.imul(number + 1, 0x9e3779b9));
}

/** Plays parts in turn; `what` is what messages call a part, such as `Device`. */
export async function playParts(
  what: string,
  parts: readonly Part[],
  { seed, cases, tally, progress }: FuzzRun,
  most = Infinity,
): Promise<void> {
  for (let number = 0, done = 0; done < cases; number++) {
    const play = parts[number % parts.length];
    try {
      done += await play(randomOf(seed, number), Math.min(most, cases - done), tally);
    } catch (cause) {
      const { message } = cause as Error;
      throw new Error(`${what} ${number}, after case ${done}: ${message}`, { cause });
    }
    progress(done);
  }
}

/** The names of the fuzzers: each is the `target` of the module of that name. */
export const TARGETS = ["device", "ring", "storage", "wire"];

export async function loadTarget(name: string): Promise<FuzzTarget> {
  const { target } = await import(`./${name}.ts`) as { target: FuzzTarget };
  return target;
}
