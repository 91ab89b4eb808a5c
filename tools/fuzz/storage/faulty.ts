/** A store that fails with every errno, at once, by promises and later. */
import { NOT_DONE } from "../../../backends/blk/operation.ts";
import { errnoName } from "../../../src/linux/mod.ts";
import { type Life, withLife } from "../device/life.ts";
import type { Random } from "../../lib/random.ts";
import type { Tally } from "../frame.ts";
import { ask, type DiskRequest, diskRequest, failures, KINDS, SECTOR_BYTES } from "./disk.ts";
import faulty, { MAX_STRIPES, STRIPE_BYTES } from "./faulty_blk.ts";

/** Requests that are in flight together: no more than the record remembers failures. */
const STRIPES = 8;

const STRIPE_SECTORS = STRIPE_BYTES / SECTOR_BYTES;

/** The largest errno of Linux, and one beyond all of them. */
const ERRNOS = [...Array.from({ length: 133 }, (_, i) => i + 1), 4095];

/** Lives through one faulty disk with at most `cases` requests; returns how many there were. */
export async function liveWithFaults(random: Random, cases: number, tally: Tally): Promise<number> {
  const manner = random.pick(["now", "promise", "later"]);
  const options = { size: STRIPES * STRIPE_BYTES, numQueues: 1, manner };
  const name = `a store that fails (${manner})`;
  const setup = { name, random, tally, device: faulty, options };
  const done = await withLife(setup, (life) => run(life, Math.min(cases, 300)));
  tally.add(`stores that answer ${manner}`);
  return done;
}

async function run(life: Life, cases: number): Promise<number> {
  const { random, tally, server, driver } = life;
  const { orders } = server.host.control.shared as { orders: SharedArrayBuffer };
  const order = new Int32Array(orders);
  const content = new Uint8Array(STRIPES * STRIPE_BYTES);
  let done = 0;
  /** The errno of the first flush that failed: all later ones fail with it too. */
  let lost = 0;
  while (done < cases) {
    const count = Math.min(random.between(1, STRIPES), cases - done);
    const expected: { request: DiskRequest; error: string }[] = [];
    // One flush at the most, for flushes have one order between them.
    let hasFlush = false;
    const batch = Array.from({ length: count }, (_, stripe) => {
      const from = random.below(STRIPE_SECTORS);
      const kind = random.pick(KINDS);
      const isFlush = kind === "FLUSH";
      const request = diskRequest(
        random,
        isFlush && hasFlush ? "IN" : kind,
        stripe * STRIPE_SECTORS + from,
        random.between(1, STRIPE_SECTORS - from),
      );
      hasFlush ||= isFlush;
      const isFlushNow = request.kind === "FLUSH";
      // Most lives have some flushes that are done.
      const fails = random.chance(1, isFlushNow ? 12 : 3) ? random.pick(ERRNOS) : 0;
      Atomics.store(order, isFlushNow ? MAX_STRIPES : stripe, fails);
      if (isFlushNow && lost === 0 && !NOT_DONE.includes(fails)) lost = fails;
      const code = isFlushNow ? lost || fails : fails;
      if (code !== 0) expected.push({ request, error: errnoName(code) });
      return { request, code };
    });
    const answers = Promise.all(batch.map(async ({ request, code }) => {
      const { status, data } = await ask(life, request);
      tally.add(`${request.kind} ${code === 0 ? "done" : "failed on purpose"}`);
      if (status !== Number(code !== 0)) {
        throw new Error(`Expected status ${Number(code !== 0)} of ${request.kind}, got ${status}`);
      }
      check(content, request, code !== 0, data);
    }));
    answers.catch(() => {});
    if (random.chance(1, 8)) {
      await driver.stop();
      await driver.restart();
      tally.add("stopped and started with requests in flight");
    }
    await answers;
    // A refused flush does not consume its planned fault.
    Atomics.store(order, MAX_STRIPES, 0);
    if (expected.length > 0) {
      const named = failures(server).slice(-expected.length).map(({ request, sector, error }) =>
        `${request} ${sector} ${error}`
      );
      const all = expected.map(({ request: { kind, sector }, error }) =>
        `${kind} ${kind === "FLUSH" ? 0 : sector} ${error}`
      );
      if (named.sort().join() !== all.sort().join()) {
        throw new Error(`Expected the failures ${all}, got ${named}`);
      }
    }
    done += count;
  }
  const { inFlight, broken } = server.record().queues[0];
  if (inFlight !== 0 || broken) throw new Error("Expected a healthy queue at the end");
  return done;
}

/** What a request did, and what it must not have done. */
function check(
  content: Uint8Array,
  { kind, sector, sectors, data: written }: DiskRequest,
  hasFailed: boolean,
  data: Uint8Array,
): void {
  const range = content.subarray(sector * SECTOR_BYTES, (sector + sectors) * SECTOR_BYTES);
  if (kind === "IN") {
    // A read that failed leaves nothing of an older one behind.
    const isRight = data.every((byte, i) => byte === (hasFailed ? 0 : range[i]));
    if (!isRight) throw new Error(`A read of sector ${sector} gave something else`);
  } else if (!hasFailed && kind === "OUT") {
    range.set(written);
  } else if (!hasFailed && kind !== "FLUSH") {
    range.fill(0);
  }
}
