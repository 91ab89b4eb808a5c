/** NOT_NOW, UNTIL_READY and the limit of pending promises: requests wait in the ring, not in the device. */
import { assertEquals, assertLessOrEqual } from "@std/assert";
import { type DeviceServer, NOT_NOW, serve, UNTIL_READY } from "../../mod.ts";
import { VirtioDriver, type VirtioDriverOptions } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import paced, { pace } from "./lib/paced_device.ts";
import { splitRing } from "./lib/raw_rings.ts";

const PACEDQ = 0, PROMISEQ = 1;

const VARIANTS: [name: string, options: VirtioDriverOptions, pause?: number][] = [
  ["", {}],
  [", until ready", {}, UNTIL_READY],
  [", in order", { inOrder: true }],
  [", with an in-flight record", { inflight: true }],
];

async function withPaced(
  options: VirtioDriverOptions,
  test: (driver: VirtioDriver, server: DeviceServer) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  pace.left = pace.refused = 0;
  pace.pause = NOT_NOW;
  pace.takesNext = false;
  pace.settle = [];
  {
    const socketPath = `${directory}/s`;
    await using server = await serve(paced, { socketPath });
    await using driver = await VirtioDriver.start(socketPath, { queues: 2, ...options });
    await test(driver, server);
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
}

/** Resolves when a condition holds: the device runs on this thread, between round trips. */
async function until(driver: VirtioDriver, isSo: () => boolean): Promise<void> {
  do await driver.connection.getFeatures(); while (!isSo());
}

for (const packed of [false, true]) {
  for (const eventIndex of [false, true]) {
    for (const [more, options, pause = NOT_NOW] of VARIANTS) {
      const name = `${packed ? "packed" : "split"}, ${eventIndex ? "event index" : "flags"}${more}`;
      Deno.test(`a paused queue holds nothing and asks for no kicks (${name})`, () =>
        withPaced({ packed, eventIndex, ...options }, async (driver, server) => {
          const queue = () => server.record().queues[PACEDQ];
          pace.left = 3;
          pace.pause = pause;
          let answered = 0;
          const request = () =>
            driver.request(PACEDQ, [Uint8Array.of(1)], []).then(() => void answered++);
          const requests = Array.from({ length: 10 }, request);
          await until(driver, () => pace.refused === 1 && answered === 3);
          const { kicks } = queue();
          assertEquals(queue().inFlight, 0);
          for (let i = 0; i < 100; i++) {
            requests.push(request());
            await driver.connection.getFeatures();
          }
          // One may be left from before the pause.
          assertLessOrEqual(queue().kicks, kicks + 1);
          assertEquals([pace.refused, answered, queue().inFlight], [1, 3, 0]);

          pace.left = 40;
          pace.queue!.resume();
          await until(driver, () => pace.refused === 2 && answered === 43);
          assertEquals(queue().bytesRead, 43);

          // A stop need not wait; the ring resumes with the refused chain.
          await driver.stop();
          pace.left = 1000;
          await driver.restart();
          await Promise.all(requests);
          assertEquals([answered, queue().requests, queue().bytesRead], [110, 110, 110]);
          await request();
        }));
    }
  }
}

Deno.test("a queue breaks when its handler takes a bad chain, and the handler is not called again", () =>
  withPaced({ packed: false }, async (driver, server) => {
    pace.left = 100;
    pace.takesNext = true;
    const requests = Array.from({ length: 6 }, () => driver.request(PACEDQ, [], [1]));
    const ended = Promise.allSettled(requests);
    splitRing(driver).setDescriptor(3, { gpa: 0xdead_0000_0000n, bytes: 1, flags: 2, next: 0 });
    await ended;
    // The first call took two chains, the second one only its own.
    assertEquals(pace.left, 98);
    await until(driver, () => server.record().queues[PACEDQ].faults.length > 0);
    assertEquals(server.record().queues[PACEDQ].faults[0].rule, "buffer-address");
  }));

Deno.test("resume() of a queue that is not paused, or is stopped, does nothing", () =>
  withPaced({}, async (driver) => {
    pace.left = 1;
    await driver.request(PACEDQ, [], [1]);
    pace.queue!.resume();
    const last = driver.request(PACEDQ, [], [1]);
    await until(driver, () => pace.refused === 1);
    await driver.stop();
    pace.queue!.resume();
    pace.left = 1;
    await driver.restart();
    await last;
    assertEquals(pace.refused, 1);
  }));

Deno.test("a queue takes no more chains while mostPending promises are pending", () =>
  withPaced({}, async (driver, server) => {
    const requests = Array.from({ length: 11 }, () => driver.request(PROMISEQ, [], [1]));
    for (let settled = 0; settled < 11; settled++) {
      const taken = Math.min(4 + settled, 11);
      await until(driver, () => pace.settle.length === taken);
      assertEquals(server.record().queues[PROMISEQ].inFlight, taken - settled);
      pace.settle[settled]();
    }
    await Promise.all(requests);
  }));
