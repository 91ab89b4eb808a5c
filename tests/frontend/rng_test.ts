import { assert, assertEquals, assertGreater } from "@std/assert";
import rng from "../../backends/rng/mod.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";

/** Longer than any test. */
const PERIOD_MS = 60_000;

async function withRng(
  options: Record<string, unknown>,
  test: (driver: VirtioDriver, server: DeviceServer) => Promise<void>,
  plane: "main" | "thread" = "thread",
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const socketPath = `${directory}/rng.sock`;
    await using server = await serve(rng, { socketPath, options, plane });
    await using driver = await VirtioDriver.start(socketPath);
    await test(driver, server);
  } finally {
    await watchesEnded();
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("rng --max-bytes leaves requests in the ring, and a stop waits for no period", () =>
  withRng({ maxBytes: 64, period: PERIOD_MS }, async (driver, server) => {
    const [first, ...others] = Array.from({ length: 20 }, () => driver.request(0, [], [64]));
    const ended = Promise.allSettled(others);
    assertEquals((await first).written, 64);
    // The thread takes the next request before it leaves it in the ring
    const until = performance.now() + PERIOD_MS;
    while (server.record().queues[0].inFlight > 0) {
      assert(performance.now() < until, "A request is in flight");
      await driver.connection.getFeatures();
    }
    assertEquals(await driver.stop(), [1]);
    await driver.reset();
    assert((await ended).every(({ status }) => status === "rejected"));
  }));

Deno.test("rng --max-bytes: neither empty parts nor a reset allow more", () =>
  withRng({ maxBytes: 64, period: PERIOD_MS }, async (driver, server) => {
    assertEquals((await driver.request(0, [], [0, 0, 10, 0, 30])).written, 40);
    await driver.reset();
    await driver.restart();
    assertEquals((await driver.request(0, [], [0, 64])).written, 24);
    const last = driver.request(0, [], [64]).catch(() => {});
    assertEquals(await driver.stop(), [1]);
    assertEquals(server.record().queues[0].requests, 2);
    await driver.reset();
    await last;
  }));

for (const plane of ["main", "thread"] as const) {
  Deno.test(`rng --max-bytes resumes with each period (${plane})`, () =>
    withRng({ maxBytes: 64, period: 20 }, async (driver) => {
      const began = performance.now();
      const requests = Array.from({ length: 6 }, () => driver.request(0, [], [64]));
      assertEquals((await Promise.all(requests)).map(({ written }) => written), Array(6).fill(64));
      assertGreater(performance.now() - began, 5 * 19);
    }, plane));
}

Deno.test("rng fills the whole buffer of a request", () =>
  withRng({}, async (driver) => {
    const { written, data } = await driver.request(0, [], [3, 0, 1000, 65_536]);
    assertEquals(written, 66_539);
    assert(data[3].some((byte) => byte !== 0));
  }));
