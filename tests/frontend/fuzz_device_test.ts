import { assert } from "@std/assert";
import { watchesEnded } from "../../src/linux/mod.ts";
import { target } from "../../tools/fuzz/device.ts";
import { Tally } from "../../tools/fuzz/frame.ts";

const SEED = 20_261_124;

Deno.test(`devices hold under any requests, beside a model (deno task fuzz device --seed=${SEED})`, async () => {
  console.log(`seed ${SEED}`);
  const tally = new Tally();
  await target.run({ seed: SEED, cases: 2_000, tally, progress() {} });
  await watchesEnded();
  const reached = [
    "blk: IN, status 0",
    "rng: requests",
    "input: lives",
    "config: reads refused",
    "net: sends taken",
  ];
  for (const what of reached) assert(tally.counts[what] > 0, what);
});
