import { assert } from "@std/assert";
import { Tally } from "../../tools/fuzz/frame.ts";
import { playRings } from "../../tools/fuzz/ring.ts";
import { ringRules } from "../../src/virtqueue/mod.ts";

const SEED = 20_261_124;

Deno.test(`rings hold under a hostile driver, rule by rule (deno task fuzz ring --seed=${SEED})`, async () => {
  console.log(`seed ${SEED}`);
  const tally = new Tally();
  await playRings({ seed: SEED, cases: 6_000, tally, progress() {} });
  // The session checks a ring's addresses.
  const { "ring-address": _, ...rules } = ringRules;
  for (const rule of Object.keys(rules)) assert(`pure: ${rule}` in tally.counts, rule);
});
