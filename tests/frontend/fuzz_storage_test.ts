import { assert } from "@std/assert";
import { watchesEnded } from "../../src/linux/mod.ts";
import { target } from "../../tools/fuzz/storage.ts";
import { Tally } from "../../tools/fuzz/frame.ts";

const SEED = 1;

Deno.test(`disks hold under failing storage (deno task fuzz storage --seed=${SEED})`, async () => {
  console.log(`seed ${SEED}`);
  const tally = new Tally();
  await target.run({ seed: SEED, cases: 600, tally, progress() {} });
  await watchesEnded();
  const leftOut = Object.keys(tally.counts).filter((what) => what.startsWith("left out"));
  for (const what of leftOut) console.log(what);
  for (const what of ["IN failed on purpose", "OUT done"]) assert(tally.counts[what] > 0, what);
});
