import { assert, assertGreater } from "@std/assert";
import { watchesEnded } from "../../src/linux/mod.ts";
import { MemoryGuard } from "../../src/memory/mod.ts";
import { Tally } from "../../tools/fuzz/frame.ts";
import { target } from "../../tools/fuzz/wire.ts";

// Started before the test, the guard's listener does not count as its leak.
(await MemoryGuard.acquire())[Symbol.dispose]();

const SEED = 20_261_124;

Deno.test(`Devices withstand hostile front-ends (deno task fuzz wire --seed=${SEED})`, async () => {
  console.log(`seed ${SEED}`);
  const tally = new Tally();
  await target.run({ seed: SEED, cases: 8000, tally, progress() {} });
  // The cases reached the code that they are for.
  for (
    const what of [
      "memory shrunk",
      "memory used again",
      "lingering socket",
      "ended by the back-end",
      "storm: waited",
    ]
  ) {
    assert(what in tally.counts, what);
  }
  const refused = Object.keys(tally.counts).filter((name) => name.startsWith("refused: "));
  assertGreater(refused.length, 15);
  await watchesEnded();
});
