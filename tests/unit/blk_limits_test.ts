import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { LimitControl, limitOptions } from "../../backends/blk/limits/limits.ts";
import { type Limits, TokenPool } from "../../backends/blk/limits/token_pool.ts";
import { defaultOptions } from "../../src/virtio/mod.ts";
import { Random } from "../../tools/lib/random.ts";

/** The load of a queue. */
interface Load {
  /** The bytes of its requests. */
  bytes?: number;
  /** How long it takes from a request's start to the next one's, in microseconds. */
  everyUs?: number;
}

/**
 * Runs loads for some virtual seconds, each queue on a thread of its own whose timer is late by up
 * to `lateUs`.
 */
function run(limits: Limits, loads: readonly Load[], seconds: number, lateUs = 0) {
  const random = new Random(7);
  let now = 2 ** 30 - 500_000; // the clock begins again on the way
  const pool = new TokenPool(loads.length, undefined, () => now & (2 ** 30 - 1));
  const begin = now;
  pool.set(limits);
  const queues = loads.map(({ bytes = 4096, everyUs = 1 }, queue) => ({
    ...{ queue, bytes, everyUs, at: now, requests: 0, waits: 0 },
  }));
  for (;;) {
    const next = queues.reduce((a, b) => b.at < a.at ? b : a);
    now = next.at;
    if (now - begin >= seconds * 1e6) return { queues, pool };
    if (pool.spend(next.queue, next.bytes)) {
      next.requests++;
      next.at += next.everyUs;
    } else {
      const us = pool.deal(next.queue);
      if (us === 0) continue;
      next.waits++;
      next.at += us + random.below(lateUs + 1);
    }
  }
}

function assertNear(actual: number, expected: number, tolerance: number): void {
  assert(Math.abs(actual - expected) <= tolerance, `${actual} is not near ${expected}`);
}

const limit = (perSecond: number) => ({ perSecond, burst: perSecond / 10 });

for (
  const [perSecond, queues, lateUs] of [
    [100_000, 1, 0],
    [100_000, 4, 9000],
    [1000, 3, 9000],
    [50, 4, 0],
    [7, 2, 9000],
  ]
) {
  Deno.test(`${queues} queues with a limit of ${perSecond} requests per second reach it`, () => {
    const ran = run({ iops: limit(perSecond) }, Array(queues).fill({}), 20, lateUs);
    const total = ran.queues.reduce((sum, { requests }) => sum + requests, 0);
    assertNear(total / 20 / perSecond, 1, Math.max(0.01, queues / 20 / perSecond));
    for (const { requests, waits } of ran.queues) {
      assertNear(requests * queues / total, 1, 0.05);
      assert(waits <= 20 * 1000, `${waits} waits`);
    }
  });
}

Deno.test("Queues share a limit of bytes equally, whatever the size of their requests", () => {
  const sizes = [512, 4096, 65_536, 2 ** 20, 2 ** 22];
  const { queues } = run({ bandwidth: limit(10e6) }, sizes.map((bytes) => ({ bytes })), 60, 3000);
  const total = queues.reduce((sum, { requests, bytes }) => sum + requests * bytes, 0);
  assertNear(total / 60 / 10e6, 1, 0.02);
  for (const { requests, bytes } of queues) {
    assertNear(requests * bytes * 5 / total, 1, 0.1);
  }
});

Deno.test("A queue gets what it needs of its share, and others what it leaves", () => {
  const { queues: [few, one, other] } = run(
    { iops: limit(9000) },
    [{ everyUs: 1000 }, {}, {}],
    10,
    2000,
  );
  assertNear(few.requests / 10_000, 1, 0.15);
  assertNear((few.requests + one.requests + other.requests) / 90_000, 1, 0.01);
  assertNear(one.requests / other.requests, 1, 0.02);
});

Deno.test("Both limits hold at once: each queue meets the one that it reaches first", () => {
  const { queues: [small, large] } = run(
    { iops: limit(1000), bandwidth: limit(50e6) },
    [{ bytes: 512 }, { bytes: 2 ** 20 }],
    20,
  );
  assertNear(large.requests * 2 ** 20 / 20 / 50e6, 1, 0.03);
  assertNear((small.requests + large.requests) / 20_000, 1, 0.01);
});

/** A pool with a clock that the test sets. */
function poolAt(queues: number) {
  const time = { us: 0 };
  const pool = new TokenPool(queues, undefined, () => time.us);
  const pass = (bytes: number) =>
    pool.spend(0, bytes) || pool.deal(0) === 0 && pool.spend(0, bytes);
  return { pool, time, pass };
}

Deno.test("A pause brings a burst and no more, and pays what a queue owes", () => {
  const { pool, time, pass } = poolAt(1);
  pool.set({ iops: { perSecond: 1000, burst: 20 } });
  time.us = 5_000_000;
  let passed = 0;
  while (pass(512)) passed++;
  assertEquals(passed, 20);

  pool.set({ bandwidth: { perSecond: 1e6, burst: 10_000 } });
  time.us += 10;
  assert(pass(5_000_000));
  time.us += 4_900_000;
  assertEquals(pass(512), false);
  time.us += 5_200_000;
  assert(pass(512));
});

Deno.test("New limits end what queues owe, and none lets everything pass", () => {
  const { pool, time, pass } = poolAt(2);
  pool.set({ iops: limit(10) });
  assertEquals([pool.isOn, pass(512), pool.waits], [true, false, 1]);
  pool.set({ bandwidth: limit(1000) });
  time.us = 1000;
  assertEquals([pass(2 ** 30), pass(512)], [true, false]);
  pool.set({});
  assertEquals(pool.isOn, false);
  for (let i = 0; i < 100; i++) assert(pool.spend(0, 2 ** 30));
});

Deno.test("A thread that finds another one dealing waits for the next turn", () => {
  const { pool, time } = poolAt(1);
  pool.set({ iops: limit(10) });
  const words = new Int32Array(pool.memory);
  const lock = words.length - 4; // the lock, the time, the queue's activity and its waits
  words[lock] = 1;
  time.us = 10_000_000;
  assertEquals([pool.set({}), pool.deal(0)], [false, 1000]);
  words[lock] = 0;
  assertEquals([pool.deal(0), pool.set({})], [0, true]);
});

const wrong: [given: Record<string, unknown>, message: string][] = [
  [{ iops: "0" }, "iops takes 1 to 100000000, got 0"],
  [{ iops: "fast" }, 'iops takes a whole number, got "fast"'],
  [{ iops: "1/2/3" }, 'iops takes N[/BURST], got "1/2/3"'],
  [{ iops: "1000/5" }, "the burst of iops takes at least 10, which is 10 ms of its rate, got 5"],
  [{ iops: "1000/" }, 'the burst of iops takes a whole number, got ""'],
  [{ bandwidth: "1X" }, 'bandwidth takes a size such as 4096, 512M or 1G, got "1X"'],
  [{ bandwidth: true }, "bandwidth takes SIZE[/BURST], got true"],
  [{ iops: "" }, 'iops takes a whole number, got ""'],
];

for (const [given, message] of wrong) {
  Deno.test(`A limit of ${JSON.stringify(given)} is refused`, async () => {
    const none = { iops: undefined, bandwidth: undefined };
    assertThrows(
      () => new LimitControl({ ...none, ...given } as typeof none, 1, () => Promise.resolve()),
      Error,
      message.replaceAll(/^(the burst of )?(iops|bandwidth)/g, "$1--$2"),
    );
    const control = new LimitControl(defaultOptions(limitOptions), 1, () => Promise.resolve());
    const error = await assertRejects(async () => await control.commands.limit.run(given));
    assertEquals([(error as Error).name, (error as Error).message], ["TypeError", message]);
  });
}

Deno.test("POST /limit changes the limits, and the record shows them", async () => {
  let told = 0;
  const control = new LimitControl({ iops: "1000", bandwidth: undefined }, 1, () => {
    told++;
    return Promise.resolve();
  });
  const { run } = control.commands.limit;
  assertEquals(await run(undefined), { iops: { perSecond: 1000, burst: 100 } });
  const bandwidth = { perSecond: 2 ** 20, burst: 2 ** 21 };
  assertEquals(await run({ iops: 5, bandwidth: "1M/2M" }), {
    iops: { perSecond: 5, burst: 1 },
    bandwidth,
  });
  assertEquals(control.report(), {
    limits: { iops: { perSecond: 5, burst: 1 }, bandwidth, waits: 0 },
  });
  assertEquals(await run({}), {});
  assertEquals([control.report(), control.pool.isOn, told], [{}, false, 2]);
  for (const body of [null, [], 3, { rate: 1 }]) {
    await assertRejects(async () => await run(body), TypeError);
  }
});
