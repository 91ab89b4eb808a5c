/**
 * Drivers whose rings are right and whose requests are anything.
 *
 * @module
 */

import { liveAsDisk } from "./device/blk.ts";
import { liveAsEntropy } from "./device/rng.ts";
import { liveAsInput } from "./device/input.ts";
import { Tally } from "./seeds.ts";
import type { FuzzTarget } from "./target.ts";

/**
 * The most cases of one device, before it is closed and another one comes: so
 * many, and in long runs so many lives at the most.
 */
const LIFE_CASES = 250, MAX_LIVES = 1000;

/** The kinds of lives, more of those that are more complex. */
const LIVES = [liveAsDisk, liveAsDisk, liveAsInput, liveAsDisk, liveAsDisk, liveAsEntropy];

/** Lives through devices. */
export async function liveThroughDevices(
  seed: number,
  cases: number,
  tally: Tally,
  progress: (done: number) => void,
): Promise<void> {
  let done = 0;
  const most = Math.max(LIFE_CASES, Math.ceil(cases / MAX_LIVES));
  for (let number = 0; done < cases; number++) {
    const live = LIVES[number % LIVES.length];
    try {
      done += await live(seed, number, Math.min(most, cases - done), tally);
    } catch (cause) {
      throw new Error(`Device ${number}, after case ${done}: ${(cause as Error).message}`, {
        cause,
      });
    }
    progress(done);
  }
}

/** The target. */
export const target: FuzzTarget = {
  name: "device",
  about: "any requests and config accesses to every device, beside a model",
  async run({ seed, cases, progress }) {
    const tally = new Tally();
    await liveThroughDevices(seed, cases, tally, progress);
    return { cases, reached: tally.counts };
  },
};
