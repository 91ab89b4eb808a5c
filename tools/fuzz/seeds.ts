/**
 * Seeds of parts of a run.
 *
 * @module
 */

import { mix, Random } from "../lib/random.ts";

/** The generator of part `number` of a run: no part needs those before it. */
export function randomOf(seed: number, number: number): Random {
  return new Random(mix(seed) ^ Math.imul(number + 1, 0x9e3779b9));
}

/** Counts things by name. */
export class Tally {
  readonly counts: Record<string, number> = {};

  /** One more of these. */
  add(name: string, count = 1): void {
    this.counts[name] = (this.counts[name] ?? 0) + count;
  }
}
