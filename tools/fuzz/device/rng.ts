/** The entropy device under requests of any size, with and without a limit. */
import { concat } from "@std/bytes";
import rng from "../../../backends/rng/mod.ts";
import type { Random } from "../../lib/random.ts";
import type { Tally } from "../frame.ts";
import { divide, withLife } from "./life.ts";

/** The limits, in bytes per period. */
const LIMITS = [
  {},
  { maxBytes: 1, period: 1 },
  { maxBytes: 100, period: 5 },
  { maxBytes: 64, period: 10 },
];

/** Lives through one entropy device with at most `cases` requests; returns how many there were. */
export async function liveAsEntropy(random: Random, cases: number, tally: Tally): Promise<number> {
  const options = random.pick(LIMITS);
  return await withLife(
    { name: "rng", random, tally, device: rng, options },
    async ({ driver }) => {
      const isLimited = options.maxBytes !== undefined;
      const most = Math.min(cases, isLimited ? 40 : 200);
      let done = 0;
      while (done < most) {
        const count = Math.min(random.between(1, 8), most - done);
        const requests = Array.from({ length: count }, async () => {
          const room = random.pick([0, 1, 16, random.below(300), random.below(200_000)]);
          const readable = random.chance(1, 8) ? [new Uint8Array(random.below(40))] : [];
          const { written, data } = await driver.request(0, readable, divide(random, room));
          if (written > room || (room > 0 && written === 0)) {
            throw new Error(`Expected 1 to ${room} bytes, got ${written}`);
          }
          const bytes = concat(data).subarray(0, written);
          // 1 of 2^128 would be zeroes by chance.
          if (written >= 16 && bytes.every((byte) => byte === 0)) {
            throw new Error(`Expected random bytes, got ${written} zeroes`);
          }
          tally.add(room === 0 ? "rng: requests without room" : "rng: requests");
        });
        const all = Promise.all(requests);
        // It is awaited below, whatever happens first.
        all.catch(() => {});
        if (isLimited || random.chance(1, 4)) {
          // Requests that wait for the next period stay in the ring.
          await driver.stop();
          await driver.restart();
          tally.add("rng: stopped and started");
        }
        await all;
        done += count;
      }
      tally.add(`rng: lives ${isLimited ? "with" : "without"} a limit`);
      return done;
    },
  );
}
