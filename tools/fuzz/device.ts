/** Drivers whose rings are right and whose requests are anything. */
import { liveAsDisk } from "./device/blk.ts";
import { liveAsInput } from "./device/input.ts";
import { liveAsNetwork } from "./device/net.ts";
import { liveAsEntropy } from "./device/rng.ts";
import { type FuzzTarget, playParts } from "./frame.ts";

/**
 * The most cases of one device, before it is closed and another one comes: so many, and in long
 * runs so many lives at the most.
 */
const LIFE_CASES = 250, MAX_LIVES = 1000;

/** The kinds of lives, more of those that are more complex. */
const LIVES = [liveAsDisk, liveAsNetwork, liveAsInput, liveAsDisk, liveAsNetwork, liveAsEntropy];

export const target: FuzzTarget = {
  about: "any requests and config accesses to every device, beside a model",
  run: (run) =>
    playParts("Device", LIVES, run, Math.max(LIFE_CASES, Math.ceil(run.cases / MAX_LIVES))),
};
