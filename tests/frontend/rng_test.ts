import { assert, assertEquals } from "@std/assert";
import rng from "../../backends/rng/mod.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";

/** Longer than any test. */
const PERIOD_MS = 60_000;

async function withRng(
  options: Record<string, unknown>,
  test: (driver: VirtioDriver, server: DeviceServer) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const socketPath = `${directory}/rng.sock`;
    await using server = await serve(rng, { socketPath, options });
    await using driver = await VirtioDriver.start(socketPath);
    await test(driver, server);
  } finally {
    await watchesEnded();
    await Deno.remove(directory, { recursive: true });
  }
}

/** Waits until the device has so many requests, answered or not. */
async function taken(driver: VirtioDriver, server: DeviceServer, count: number): Promise<void> {
  for (;;) {
    const { requests, inFlight } = server.record().queues[0];
    if (requests + inFlight === count) return;
    await driver.connection.getFeatures();
  }
}

Deno.test("rng --max-bytes: a stop waits for no period, whatever waits for one", () =>
  withRng({ maxBytes: 64, period: PERIOD_MS }, async (driver, server) => {
    const requests = Array.from({ length: 20 }, () => driver.request(0, [], [64]));
    await taken(driver, server, 20);
    const bases = await driver.stop();
    assertEquals(bases, [20]);
    const [first, ...others] = await Promise.all(requests);
    assertEquals(first.written, 64);
    assertEquals(others.map(({ written }) => written), others.map(() => 1));
  }));

Deno.test("rng --max-bytes: neither parts without bytes nor a reset give more", () =>
  withRng({ maxBytes: 64, period: PERIOD_MS }, async (driver, server) => {
    assertEquals((await driver.request(0, [], [0, 0, 10, 0, 30])).written, 40);
    await driver.reset();
    await driver.restart();
    assertEquals((await driver.request(0, [], [0, 64])).written, 24);
    const last = driver.request(0, [], [64]);
    await taken(driver, server, 3);
    assertEquals(server.record().queues[0].inFlight, 1);
    await driver.stop();
    assertEquals((await last).written, 1);
  }));

Deno.test("rng fills what a request has room for", () =>
  withRng({}, async (driver) => {
    const { written, data } = await driver.request(0, [], [3, 0, 1000, 65_536]);
    assertEquals(written, 66_539);
    assert(data[3].some((byte) => byte !== 0));
  }));
