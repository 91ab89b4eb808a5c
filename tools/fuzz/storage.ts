/**
 * Storage that fails, in every way that there is.
 *
 * @module
 */

import { Tally } from "./seeds.ts";
import { liveWithFaults } from "./storage/faulty.ts";
import { liveWithTrouble } from "./storage/files.ts";
import type { FuzzTarget } from "./target.ts";

/** The kinds of trouble. */
const LIVES = [liveWithFaults, liveWithTrouble, liveWithTrouble];

/** Lives through failing disks. */
export async function liveThroughFailures(
  seed: number,
  cases: number,
  tally: Tally,
  progress: (done: number) => void,
): Promise<void> {
  let done = 0;
  for (let number = 0; done < cases; number++) {
    const live = LIVES[number % LIVES.length];
    try {
      done += await live(seed, number, cases - done, tally);
    } catch (cause) {
      throw new Error(`Disk ${number}, after case ${done}: ${(cause as Error).message}`, { cause });
    }
    progress(done);
  }
}

/** The target. */
export const target: FuzzTarget = {
  name: "storage",
  about: "stores that fail with every errno, late or not; files that are full, short or no disks",
  async run({ seed, cases, progress }) {
    const tally = new Tally();
    await liveThroughFailures(seed, cases, tally, progress);
    return { cases, reached: tally.counts };
  },
};
