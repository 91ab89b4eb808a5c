/** The hooks of a device's data half, and the event loop of its thread. */
import { assertEquals, assertRejects } from "@std/assert";
import { type DeviceServer, serve } from "../../mod.ts";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import hooks, { Ask } from "./lib/hooks_device.ts";

type Engine = DeviceServer["host"]["queues"][number]["engine"];

for (const plane of ["main", "thread"] as const) {
  const withHooks = async (
    test: (engine: Engine, driver: VirtioDriver, server: DeviceServer) => Promise<void>,
  ) => {
    const directory = Deno.makeTempDirSync();
    {
      const socketPath = `${directory}/s`;
      await using server = await serve(hooks, { socketPath, plane });
      await using driver = await VirtioDriver.start(socketPath, { queues: 2 });
      await test(server.host.queues[0].engine, driver, server);
    }
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  };
  const count = (driver: VirtioDriver) => driver.request(0, [Uint8Array.of(Ask.COUNT)], []);

  Deno.test(`messages are answered, and a failing hook ends nothing (${plane})`, () =>
    withHooks(async (engine, driver) => {
      await count(driver);
      assertEquals(await engine.call({ kind: "message", value: [1] }), { message: [1], count: 1 });
      await assertRejects(
        () => engine.call({ kind: "message", value: "fail" }),
        RangeError,
        "Expected another message",
      );
      assertEquals(await engine.call({ kind: "report" }), {
        ...{ count: 1, resets: 0, running: ["firstq", "secondq"] },
      });
    }));

  Deno.test(`state is saved and loaded while all rings are stopped (${plane})`, () =>
    withHooks(async (engine, driver) => {
      await count(driver);
      for (const kind of ["save", "reset"] as const) {
        await assertRejects(
          () => engine.call({ kind }),
          Error,
          `Expected all rings to be stopped for ${kind}, queue 0 runs`,
        );
      }
      await driver.stop();
      const state = await engine.call({ kind: "save" });
      assertEquals(state, { count: 1 });
      await engine.call({ kind: "reset" });
      assertEquals(await engine.call({ kind: "report" }), { count: 0, resets: 1, running: [] });
      await engine.call({ kind: "load", state });
      await driver.restart();
      await count(driver);
      assertEquals((await engine.call({ kind: "report" }))?.count, 2);
    }));

  Deno.test(`a reset and the end of a connection reset the data half (${plane})`, () =>
    withHooks(async (_engine, driver, server) => {
      await count(driver);
      await driver.reset();
      const idle = { count: 0, running: [] };
      assertEquals((await server.freshRecord()).report, { threads: [{ ...idle, resets: 1 }] });
      await driver[Symbol.asyncDispose]();
      await server.idle();
      assertEquals((await server.freshRecord()).report, { threads: [{ ...idle, resets: 2 }] });
    }));

  Deno.test(`a promise given to keep() settles while no chain is pending (${plane})`, () =>
    withHooks(async (_engine, driver) => {
      for (const ask of [Ask.KEPT, Ask.PROMISE]) await driver.request(1, [Uint8Array.of(ask)], []);
    }));

  Deno.test(`a request is completed however many promises settle before its own (${plane})`, () =>
    withHooks(async (_engine, driver) => {
      for (let i = 0; i < 1200; i++) {
        await Promise.all([
          driver.request(1, [Uint8Array.of(Ask.AFTER, i % 40)], []),
          i % 3 === 0 ? undefined : driver.request(0, [Uint8Array.of(Ask.COUNT)], []),
        ]);
      }
    }));

  Deno.test(`timers and promises run beside a queue that is never empty (${plane})`, () =>
    withHooks(async (_engine, driver) => {
      let isOver = false;
      const flood = Promise.all(Array.from({ length: 32 }, async () => {
        while (!isOver) await driver.request(0, [Uint8Array.of(Ask.SPIN)], []);
      }));
      flood.catch(() => {}); // Awaited below
      for (const ask of [Ask.KEPT, Ask.PROMISE, Ask.KEPT]) {
        await driver.request(1, [Uint8Array.of(ask)], []);
      }
      isOver = true;
      await flood;
    }));
}
