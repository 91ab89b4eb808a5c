/** A guest that breaks every rule of the virtqueue. */
import { type FuzzRun, type FuzzTarget, playParts } from "./frame.ts";
import { playEpisode } from "./ring/episode.ts";
import { placeAnyRing } from "./ring/place.ts";
import { playServedRings } from "./ring/served.ts";

/** Plays rings in plain memory. */
export async function playRings(run: FuzzRun): Promise<void> {
  await playParts("Ring", [(random, cases, tally) => {
    placeAnyRing(random, tally);
    return playEpisode(random, cases, tally);
  }], run);
}

export const target: FuzzTarget = {
  about: "descriptors, indexes, flags, event fields and indirect tables, overwritten at random",
  async run(run) {
    // Half of the cases go to a served disk.
    const served = Math.floor(run.cases / 2);
    const first = run.cases - served;
    await playRings({ ...run, cases: first });
    await playServedRings({
      ...run,
      cases: served,
      progress: (done) => run.progress(first + done),
    });
  },
};
