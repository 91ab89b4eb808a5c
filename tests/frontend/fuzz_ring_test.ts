import { assertEquals } from "@std/assert";
import { watchesEnded } from "../../src/linux/mod.ts";
import { playServedRings } from "../../tools/fuzz/ring/served.ts";
import { Tally } from "../../tools/fuzz/frame.ts";

const SEED = 20_261_124;

Deno.test(`a served disk holds under a hostile driver (deno task fuzz ring --seed=${SEED})`, async () => {
  console.log(`seed ${SEED}`);
  const tally = new Tally();
  await playServedRings({ seed: SEED, cases: 1_500, tally, progress() {} });
  await watchesEnded();
  assertEquals(tally.counts["served: split queues mended by a reset"] > 0, true);
  assertEquals(tally.counts["served: packed queues mended by a reset"] > 0, true);
});
