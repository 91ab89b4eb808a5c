/**
 * A guest that breaks every rule of the virtqueue.
 *
 * @module
 */

import { playEpisode } from "./ring/episode.ts";
import { placeAnyRing } from "./ring/place.ts";
import { playServedRings } from "./ring/served.ts";
import { randomOf, Tally } from "./seeds.ts";
import type { FuzzTarget } from "./target.ts";

/** How often progress is told, in cases. */
const TELL_CASES = 10_000;

/** Plays rings in plain memory. */
export function playRings(
  seed: number,
  cases: number,
  tally: Tally,
  progress: (done: number) => void,
): void {
  let done = 0;
  for (let number = 0, told = 0; done < cases; number++) {
    try {
      const random = randomOf(seed, number);
      placeAnyRing(random, tally);
      done += playEpisode(random, cases - done, tally);
    } catch (cause) {
      throw new Error(`Ring ${number}, after case ${done}: ${(cause as Error).message}`, { cause });
    }
    if (done - told >= TELL_CASES) progress(told = done);
  }
}

/** The part of the cases that go to a served disk. */
const SERVED = 1 / 2;

/** The target. */
export const target: FuzzTarget = {
  name: "ring",
  about: "descriptors, indexes, flags, event fields and indirect tables, overwritten at random",
  async run({ seed, cases, progress }) {
    const tally = new Tally();
    const served = Math.floor(cases * SERVED);
    playRings(seed, cases - served, tally, progress);
    await playServedRings(seed, served, tally, (done) => progress(cases - served + done));
    return { cases, reached: tally.counts };
  },
};
