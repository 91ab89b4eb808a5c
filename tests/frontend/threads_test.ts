/** Queue threads: their number, polling, and changes under load. */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import { type DeviceServer, serve, type ServeOptions, transportMask } from "../../mod.ts";
import { blkHeader, RawSplitRing, SharedMemory, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { withDirectory } from "./lib/directory.ts";
import echo from "./lib/echo_device.ts";
import { processState } from "../../tools/lib/process_state.ts";

const FEATURES = transportMask("VERSION_1", "EVENT_IDX", "INDIRECT_DESC", "PROTOCOL_FEATURES");

/** Runs a test with a served echo device. */
function withEcho(
  options: Partial<ServeOptions>,
  test: (server: DeviceServer, socketPath: string) => Promise<void>,
): Promise<void> {
  return withDirectory(async (directory) => {
    const socketPath = `${directory}/echo.sock`;
    await using server = await serve(echo, { socketPath, plane: "thread", ...options });
    await server.host.ready;
    await test(server, socketPath);
  });
}

const start = (path: string, queues: number) =>
  VirtioDriver.start(path, { queues, features: FEATURES });

/** Expects that the device echoes a number. */
async function ask(driver: VirtioDriver, queue: number, number: number): Promise<void> {
  const request = Uint8Array.of(0, 7, number, number >> 8);
  const { data } = await driver.request(queue, [request], [4]);
  assertEquals([...data[0]], [...request]);
}

Deno.test("all queue threads start before a front-end connects", () =>
  withEcho({ options: { queues: 4 }, threads: 4 }, async (_server, path) => {
    const { threads } = processState();
    await using driver = await start(path, 4);
    for (const queue of [0, 1, 2, 3]) await ask(driver, queue, queue);
    assertEquals(processState().threads, threads);
  }));

Deno.test("queue threads run the device's module as it was opened", async () => {
  const directory = Deno.makeTempDirSync();
  const module = `${directory}/device.ts`;
  const mod = new URL("../../mod.ts", import.meta.url).href;
  const write = (answer: number) =>
    Deno.writeTextFileSync(
      module,
      `import { defineDevice } from ${JSON.stringify(mod)};
      export default defineDevice({
        name: "versioned",
        deviceId: 42,
        about: "Answers with its version",
        module: import.meta.url,
        queues: { requestq: { about: "Requests", family: "requestq" } },
        open: () => ({ queues: { requestq: 4 } }),
        handlers: () => ({
          queues: { requestq: (chain) => chain.writable.write(0, Uint8Array.of(${answer})) },
        }),
      });`,
    );
  write(1);
  const { default: device } = await import(`file://${module}`);
  {
    await using _server = await serve(device, { socketPath: `${directory}/s`, threads: 4 });
    await using _connected = await VirtioDriver.connect(`${directory}/s`, { queues: 4 });
    write(2);
    await _connected.restart();
    for (let queue = 0; queue < 4; queue++) {
      assertEquals((await _connected.request(queue, [Uint8Array.of(0)], [1])).data[0][0], 1);
    }
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("queue threads close their io_uring before their device is closed", async () => {
  const rings = () =>
    [...Deno.readDirSync("/proc/self/fd")].filter(({ name }) => {
      try {
        return Deno.readLinkSync(`/proc/self/fd/${name}`) === "anon_inode:[io_uring]";
      } catch {
        return false; // the directory itself
      }
    }).length;
  const before = rings();
  for (let i = 0; i < 4; i++) {
    await withEcho({ options: { queues: 2 }, threads: 2 }, async (_server, path) => {
      await using driver = await start(path, 2);
      for (const queue of [0, 1]) await ask(driver, queue, i);
    });
    assertEquals(rings(), before);
  }
});

Deno.test("queues on several threads work in parallel, through stops and memory changes", () =>
  withEcho({ options: { queues: 3 }, threads: 3 }, async (server, path) => {
    using memory = new SharedMemory(4 << 20);
    await using driver = await VirtioDriver.start(path, {
      queues: 3,
      memory,
      features: FEATURES,
      useMemSlots: true,
    });
    let asked = 0, isDone = false;
    const load = [0, 1, 2].map(async (queue) => {
      while (!isDone) {
        const from = asked;
        asked += 16;
        await Promise.all(Array.from({ length: 16 }, (_, i) => ask(driver, queue, from + i)));
      }
    });
    for (let round = 0; round < 10; round++) {
      using extra = memory.addRegion({ bytes: 1 << 20 });
      await driver.giveMemory();
      await driver.connection.setConfig(4, Uint8Array.of(round));
      memory.removeRegion(extra);
      await driver.giveMemory();
      const base = await driver.connection.getVringBase(1);
      await driver.connection.setVringBase(1, base);
      await driver.connection.setVringKick(1, driver.queues[1].handle.kickFd);
    }
    isDone = true;
    await Promise.all(load);
    const { queues, errors } = server.record();
    assertEquals(errors.total, 0);
    assertEquals(queues.slice(0, 3).reduce((sum, { requests }) => sum + requests, 0), asked);
  }));

Deno.test("a polled queue needs no notifications under load, sleeps, and wakes again", () =>
  withEcho({ pollUs: 200_000 }, async (server, path) => {
    await using driver = await start(path, 1);
    // Before the thread tries to sleep.
    for (let i = 0; i < 100; i++) await ask(driver, 0, i);
    assertLess(server.record().queues[0].kicks, 50);
    // A sleeping device wants notifications: the driver's next request kicks.
    const { raw } = driver.queues[0];
    assert(raw instanceof RawSplitRing);
    while (raw.availableEvent !== raw.availableIndex) await driver.connection.getFeatures();
    const { kicks } = server.record().queues[0];
    await ask(driver, 0, 5);
    // Two if one from before was still unread.
    assertGreater(server.record().queues[0].kicks, kicks);
  }));

Deno.test("a stop does not wait for huge requests that were not taken", async () => {
  const directory = Deno.makeTempDirSync();
  {
    const socketPath = `${directory}/blk.sock`;
    await using server = await serve(blk, { socketPath, options: { size: 512, numQueues: 1 } });
    using memory = new SharedMemory([{ bytes: 1 << 20 }, { bytes: 1 << 24 }]);
    await using driver = await VirtioDriver.start(socketPath, { memory, timeoutMs: 60_000 });
    const [queue] = driver.queues;
    const header = memory.alloc(16);
    memory.at(header, 16).set(blkHeader(99, 0));
    // 240 MiB each, all in the same memory, filled with requests of an unknown type.
    const parts = Array.from({ length: 15 }, () => ({
      gpa: memory.regions[1].handle.guestAddress,
      bytes: 1 << 24,
    }));
    const offered = 128;
    for (let i = 0; i < offered; i++) {
      queue.add([{ gpa: header, bytes: 16 }], parts, { indirect: true });
    }
    queue.submit();
    const base = await driver.connection.getVringBase(0);
    assertLess(base, offered);
    assertEquals(server.record().queues[0].requests, base);
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});
