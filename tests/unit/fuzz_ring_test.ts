import { assert } from "@std/assert";
import { Tally } from "../../tools/fuzz/seeds.ts";
import { playRings } from "../../tools/fuzz/ring.ts";
import { ringRules } from "../../src/virtqueue/mod.ts";

const SEED = 20_261_124;

Deno.test(`rings hold under a hostile driver, rule by rule (deno task fuzz ring --seed=${SEED})`, () => {
  console.log(`seed ${SEED}`);
  const tally = new Tally();
  playRings(SEED, 25_000, tally, () => {});
  // Where a ring lies is for the session to check.
  const { "ring-address": _, ...rules } = ringRules;
  for (const rule of Object.keys(rules)) assert(`pure: ${rule}` in tally.counts, rule);
});
