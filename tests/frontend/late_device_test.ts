/** A front-end gets its replies and its memory back, however late a device's code is. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type DeviceServer, serve, type ServeOptions } from "../../mod.ts";
import { FrontendError, VirtioDriver, type VirtioDriverOptions } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { CliProcess } from "./lib/cli_process.ts";
import lateDevice, { late, Misdeed, STARTED } from "./lib/late_device.ts";

const STOP_LIMIT_MS = 50;

/** Runs a test with the device, served with a short stop limit, and its log lines. */
function forPlanes(
  planes: readonly ("main" | "thread")[],
  name: string,
  test: (server: DeviceServer, path: string, said: string[]) => Promise<void>,
  options: Partial<ServeOptions> = {},
): void {
  for (const plane of planes) {
    Deno.test(`${name} (${plane})`, async () => {
      const directory = Deno.makeTempDirSync();
      const said: string[] = [];
      {
        await using server = await serve(lateDevice, {
          socketPath: `${directory}/s`,
          plane,
          stopLimitMs: STOP_LIMIT_MS,
          log: (line) => said.push(line),
          ...options,
        });
        await test(server, `${directory}/s`, said);
      }
      late.events = [];
      await watchesEnded();
      Deno.removeSync(directory, { recursive: true });
    });
  }
}

const start = (path: string, options: VirtioDriverOptions = {}) =>
  VirtioDriver.start(path, { queues: [256, 256], timeoutMs: 60_000, ...options });

async function works(driver: VirtioDriver, queue = 0, number = 9): Promise<void> {
  const { data } = await driver.request(queue, [Uint8Array.of(Misdeed.NONE, number)], [2]);
  assertEquals(data[0][1], number);
}

/** Waits until this many chains of queue 0 are in flight. */
async function taken(server: DeviceServer, driver: VirtioDriver, count = 1): Promise<void> {
  while (server.record().queues[0].inFlight < count) await driver.connection.getFeatures();
}

for (
  const [misdeed, got] of [
    ["UNDEFINED", "undefined"],
    ["TEXT", '"1"'],
    ["NAN", "NaN"],
    ["HALF", "0.5"],
    ["OBJECT", "{}"],
    ["PROMISE_OF_TEXT", '"1"'],
  ] as const
) {
  forPlanes(
    ["main", "thread"],
    `A result that is no number of bytes breaks the queue at once: ${misdeed}`,
    async (server, path) => {
      await using driver = await start(path);
      await assertRejects(
        () => driver.request(0, [Uint8Array.of(Misdeed[misdeed])], [1]),
        FrontendError,
        "broken",
      );
      await driver.reset();
      const { faults: [fault], inFlight } = server.record().queues[0];
      assertEquals([fault.rule, inFlight], ["device", 0]);
      assertStringIncludes(fault.message, `of queue requestq of device late (`);
      assertStringIncludes(fault.message, `late_device.ts), got ${got}`);
      await driver.restart();
      await works(driver);
    },
  );
}

for (const packed of [false, true]) {
  for (const inOrder of [false, true]) {
    forPlanes(
      ["main", "thread"],
      `Buffers that a device holds go back at a stop, ${packed ? "packed" : "split"}${
        inOrder ? ", in order" : ""
      }`,
      async (server, path) => {
        await using driver = await start(path, { packed, inOrder, inflight: true });
        const events = Array.from({ length: 5 }, () => driver.request(1, [], [8]));
        for (const event of events) event.catch(() => {});
        while (server.record().queues[1].inFlight < 5) await driver.connection.getFeatures();
        const base = await driver.connection.getVringBase(1);
        assertEquals(base, packed ? 0x8000_8000 : 0);
        assertEquals(server.record().queues[1].inFlight, 0);
        // They are available again for the next start.
        await driver.connection.setVringBase(1, base);
        await driver.connection.setVringKick(1, driver.queues[1].handle.kickFd);
        while (server.record().queues[1].inFlight < 5) await driver.connection.getFeatures();
        await works(driver);
      },
    );
  }
}

for (const packed of [false, true]) {
  forPlanes(
    ["main"],
    `A chain that is never completed is abandoned, and loses access to guest memory, ${
      packed ? "packed" : "split"
    }`,
    async (server, path, said) => {
      await using driver = await start(path, { packed, inflight: true });
      const { memory } = driver;
      const request = memory.alloc(8), answer = memory.alloc(8);
      memory.at(request, 8).set([Misdeed.KEEP, 1, 2, 3]);
      driver.queues[0].add([{ gpa: request, bytes: 8 }], [{ gpa: answer, bytes: 8 }]);
      driver.queues[0].submit();
      await taken(server, driver);
      const { chain, queue, readable, writable } = late;
      await driver.connection.getVringBase(0);
      const { faults: [fault], inFlight } = server.record().queues[0];
      assertEquals([fault.rule, inFlight], ["device", 0]);
      assertStringIncludes(fault.message, "Expected 1 chain of queue 0 (requestq) of late (");
      assert(said.some((line) => line.includes("late_device.ts")), said.join("\n"));
      // The late request still reads its data, and its writes do not reach the guest.
      memory.at(request, 8).fill(0);
      assertEquals([...readable!.subarray(0, 4)], [Misdeed.KEEP, 1, 2, 3]);
      writable!.fill(0xee);
      chain!.writable.fill(0xdd);
      assertEquals([...memory.at(answer, 8)], [STARTED, 0, 0, 0, 0, 0, 0, 0]);
      // The other ring continues with guest memory, and this one does after a reset.
      await driver.reset();
      await driver.restart();
      await works(driver);
      queue!.complete(chain!, 8);
      queue!.flush();
      await works(driver, 0, 3);
      assertEquals(server.record().queues[0].faults.length, 1);
      assertEquals([...memory.at(answer, 8)], [STARTED, 0, 0, 0, 0, 0, 0, 0]);
    },
  );
}

forPlanes(
  ["main", "thread"],
  "A promise that never settles breaks only its queue, and is released when it settles",
  async (server, path) => {
    await using driver = await start(path, { queues: [64, 64, 64] });
    driver.request(0, [Uint8Array.of(Misdeed.UNSETTLED)], [1]).catch(() => {});
    await taken(server, driver);
    const load = works(driver, 1, 4);
    await driver.connection.getVringBase(0);
    await load;
    await works(driver, 1, 5);
    assertEquals(server.record().queues.map(({ running }) => running), [false, true, true]);
    if (late.settle !== undefined) {
      late.settle(1);
      late.settle = undefined;
      await Promise.resolve();
    }
    await works(driver, 1, 6);
    await driver.reset();
    await driver.restart();
    await works(driver, 0, 7);
  },
  { options: { queues: 2 }, threads: 1 },
);

forPlanes(
  ["thread"],
  "A handler that never returns costs only its thread",
  async (server, path, said) => {
    await using driver = await start(path, { queues: [64, 64, 64], inflight: true });
    const { memory } = driver;
    const request = memory.alloc(8), answer = memory.alloc(8);
    memory.at(request, 8).set([Misdeed.SPIN, 1]);
    driver.queues[0].add([{ gpa: request, bytes: 8 }], [{ gpa: answer, bytes: 8 }]);
    driver.queues[0].submit();
    await taken(server, driver);
    await works(driver, 1, 5);
    assertEquals(await driver.connection.getVringBase(0), 0);
    const [{ faults: [fault] }] = server.record().queues;
    assertEquals(fault.rule, "device");
    assertStringIncludes(fault.message, "The thread of queue 0 (requestq), 2 (eventq) of late (");
    assert(said.some((line) => line.includes("does not answer")), said.join("\n"));
    // The thread sees other memory now, continues, and writes into that.
    await works(driver, 1, 6);
    assertEquals([...memory.at(answer, 8)], [STARTED, 0, 0, 0, 0, 0, 0, 0]);
    await assertRejects(
      () => driver.connection.setVringKick(0, driver.queues[0].handle.kickFd),
      FrontendError,
      "error",
    );
    await works(driver, 1, 7);
  },
  { options: { queues: 2 }, threads: 2 },
);

forPlanes(
  ["thread"],
  "The kernel's I/O is cancelled before a chain is abandoned",
  async (server, path) => {
    await using driver = await start(path);
    const answer = driver.request(0, [Uint8Array.of(Misdeed.KERNEL)], [1]);
    await taken(server, driver);
    assertEquals(await driver.connection.getVringBase(0), 1);
    assertEquals((await answer).data[0][0], 125);
    assertEquals(server.record().queues[0].faults, []);
  },
);

for (const [what, misdeed] of [["is kept", Misdeed.KEEP], ["spins", Misdeed.SPIN]] as const) {
  Deno.test(`SIGTERM ends the process while a chain ${what}, names the queue and writes the record`, async () => {
    const directory = Deno.makeTempDirSync();
    const [socket, record] = [`${directory}/s`, `${directory}/record`];
    const module = new URL("./lib/late_device.ts", import.meta.url).pathname;
    await using process = new CliProcess([module, `--socket-path=${socket}`, `--record=${record}`]);
    await process.until("listens on");
    const driver = await start(socket);
    const { memory, queues: [ring] } = driver;
    const request = memory.alloc(8), answer = memory.alloc(8);
    memory.at(request, 8).set([misdeed, 1]);
    ring.add([{ gpa: request, bytes: 8 }], [{ gpa: answer, bytes: 8 }]);
    ring.submit();
    while (memory.at(answer, 1)[0] !== STARTED) await driver.connection.getFeatures();
    const { stderr } = await process.stop("SIGTERM");
    assert(/queue 0 \(requestq\).* of late \(file:.*late_device\.ts\)/.test(stderr), stderr);
    const { queues: [queue] } = JSON.parse(Deno.readTextFileSync(record));
    assertEquals([queue.starts, queue.broken], [1, true]);
    await driver.close();
    Deno.removeSync(directory, { recursive: true });
  });
}

forPlanes(
  ["main", "thread"],
  "A front-end that disconnects while chains hang leaves the device to the next one",
  async (server, path) => {
    for (let round = 0; round < 3; round++) {
      const driver = await start(path);
      for (const misdeed of [Misdeed.KEEP, Misdeed.UNSETTLED]) {
        driver.request(0, [Uint8Array.of(misdeed)], [1]).catch(() => {});
      }
      await taken(server, driver, 2);
      await driver.close();
      await server.idle();
      late.writable?.fill(1);
    }
    await using next = await start(path);
    await works(next);
  },
);
