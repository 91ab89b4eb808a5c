/** GET_INFLIGHT_FD and SET_INFLIGHT_FD: passing the in-flight record to a front-end and back. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type DeviceServer, serve, transportMask } from "../../mod.ts";
import {
  FrontendConnection,
  FrontendError,
  VirtioDriver,
  type VirtioDriverOptions,
} from "../../src/frontend/mod.ts";
import { createMemfd, type Fd, Mapping, openFile } from "../../src/linux/mod.ts";
import { sealOwn } from "../../src/linux/file/memory_file.ts";
import { withDirectory } from "./lib/directory.ts";
import echo, { Answer } from "./lib/echo_device.ts";

/** Long enough for a busy machine. */
const TIMEOUT_MS = 60_000;

/** Serves the echo device with two request queues and runs a test. */
function withEcho(
  test: (server: DeviceServer, socketPath: string) => Promise<void>,
): Promise<void> {
  return withDirectory(async (directory) => {
    const socketPath = `${directory}/echo.sock`;
    await using server = await serve(echo, { socketPath, options: { queues: 2 } });
    await test(server, socketPath);
  });
}

/** A connection that negotiated all features and protocol features. */
async function connect(path: string, packed = false): Promise<FrontendConnection> {
  const connection = await FrontendConnection.connect(path, { timeoutMs: TIMEOUT_MS });
  await connection.setProtocolFeatures(await connection.getProtocolFeatures());
  const features = transportMask("VERSION_1", "PROTOCOL_FEATURES");
  await connection.setFeatures(features | (packed ? transportMask("RING_PACKED") : 0n));
  return connection;
}

const start = (path: string, options: VirtioDriverOptions = {}) =>
  VirtioDriver.start(path, {
    ...{ queues: [64, 64, 64], inflight: true, timeoutMs: TIMEOUT_MS },
    ...options,
  });

function lastError(server: DeviceServer): string {
  return server.record().errors.latest.at(-1)!.message;
}

Deno.test("GET_INFLIGHT_FD returns a sealed file with room for each queue", () =>
  withEcho(async (_server, path) => {
    for (const packed of [false, true]) {
      await using connection = await connect(path, packed);
      const { fd, ...description } = await connection.getInflightFd(3, 128);
      using _ = fd;
      // Per queue a header and 128 entries at a multiple of 64 bytes, then config space; whole pages.
      const bytes = Math.ceil((3 * (64 + 128 * (packed ? 32 : 16)) + 264) / 4096) * 4096;
      assertEquals(description, {
        ...{ mmapSize: BigInt(bytes), mmapOffset: 0n, numQueues: 3, queueSize: 128 },
      });
      assertEquals(Deno.statSync(`/proc/self/fd/${fd.number}`).size, bytes);
      using mapping = new Mapping(fd.number, bytes);
      assert(new Uint8Array(mapping.buffer).every((byte) => byte === 0));
      // Shrinking would end a process that has it mapped.
      await assertRejects(() => Deno.truncate(`/proc/self/fd/${fd.number}`, 0));
      await connection.setInflightFd({ fd, ...description });
    }
  }));

Deno.test("GET_INFLIGHT_FD returns no file for impossible queues", () =>
  withEcho(async (server, path) => {
    await using connection = await connect(path);
    for (const [queues, size] of [[0, 128], [4, 128], [1, 0], [1, 32769]]) {
      const error = await assertRejects(
        () => connection.getInflightFd(queues, size),
        FrontendError,
      );
      assertEquals(error.reason, "refused");
      assertStringIncludes(lastError(server), `got ${queues} of ${size}`);
    }
  }));

Deno.test("SET_INFLIGHT_FD refuses a file that does not match its description", () =>
  withEcho(async (server, path) => {
    await using connection = await connect(path);
    const directory = Deno.makeTempDirSync({ dir: "/dev/shm" });
    using sealed = createMemfd("test", 8192);
    sealOwn(sealed.number);
    Deno.writeFileSync(`${directory}/file`, new Uint8Array(8192));
    using file = openFile(`${directory}/file`, { write: true });
    using folder = openFile(directory, {});
    const right = { mmapSize: 4096n, mmapOffset: 0n, numQueues: 1, queueSize: 64 };
    const wrong: [fd: Fd, changed: Partial<typeof right>, message: string][] = [
      [sealed, { numQueues: 4 }, "Expected up to 3 queues"],
      [sealed, { queueSize: 0 }, "got 1 of 0"],
      [sealed, { mmapSize: 1024n }, "Expected at least 1088 bytes"],
      [sealed, { mmapSize: 4096n, queueSize: 256 }, "Expected at least 4160 bytes"],
      [sealed, { mmapOffset: 100n }, "at a page"],
      [sealed, { mmapOffset: 8192n }, "Expected a file of at least 12288 bytes, got 8192"],
      [sealed, { mmapSize: 1n << 62n }, "Expected a file of at least"],
      [file, {}, "sealed against shrinking"],
      [folder, {}, "sealed against shrinking"],
    ];
    for (const [fd, changed, message] of wrong) {
      await assertRejects(
        () => connection.setInflightFd({ fd, ...right, ...changed }),
        FrontendError,
      );
      assertStringIncludes(lastError(server), message);
    }
    await connection.setInflightFd({ fd: sealed, ...right, mmapOffset: 4096n });
    Deno.removeSync(directory, { recursive: true });
  }));

Deno.test("config writes survive a crash, until a reset", () =>
  withEcho(async (server, path) => {
    const VOLUME = 4, INITIAL = 5;
    await using driver = await start(path);
    await driver.config.write(VOLUME, Uint8Array.of(9));
    assertEquals([...await driver.config.read(VOLUME, 2)], [9, 9]);
    // The end of a connection clears the device, as the end of a process does.
    await driver.disconnect();
    await driver.reconnect();
    assertEquals([...await driver.config.read(VOLUME, 2)], [9, 9]);
    assertEquals(server.record().errors.total, 0);
    // Values that the device refuses are not restored.
    const { fd, mmapSize } = driver.inflight!;
    using mapping = new Mapping(fd.number, Number(mmapSize));
    const area = new Uint8Array(mapping.buffer);
    const kept = 3 * (64 + 64 * 16) + 8;
    assertEquals([...area.subarray(kept + VOLUME, kept + 6)], [9, 9]);
    await driver.disconnect();
    area.set([99, 77], kept + VOLUME);
    await driver.reconnect();
    assertEquals((await driver.config.read(VOLUME, 1))[0], INITIAL);
    assertStringIncludes(lastError(server), "Nobody wants that");
    await driver.config.write(VOLUME, Uint8Array.of(8));
    await driver.reset();
    await driver.restart();
    assertEquals([...await driver.config.read(VOLUME, 2)], [INITIAL, 0]);
  }));

Deno.test("SET_INFLIGHT_FD is refused while rings run", () =>
  withEcho(async (server, path) => {
    await using driver = await start(path);
    await assertRejects(
      () => driver.connection.setInflightFd({ ...driver.inflight! }),
      FrontendError,
    );
    assertStringIncludes(lastError(server), "Queue 0 runs");
    const { data } = await driver.request(0, [Uint8Array.of(Answer.NOW, 7)], [2]);
    assertEquals([...data[0]], [Answer.NOW, 7]);
  }));

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";

  Deno.test(`A ${layout} ring with a record stops, restarts and is reset like one without`, () =>
    withEcho(async (server, path) => {
      await using driver = await start(path, { packed });
      const ask = async (byte: number) =>
        (await driver.request(0, [Uint8Array.of(Answer.PROMISED, byte)], [2])).data[0][1];
      for (let i = 0; i < 70; i++) assertEquals(await ask(i % 60), i % 60);
      assertEquals(server.record().queues[0].resumed, false);
      await driver.restart(await driver.stop());
      for (let i = 0; i < 70; i++) assertEquals(await ask(i % 60), i % 60);
      const { tracked, resumed, resubmitted } = server.record().queues[0];
      assertEquals({ tracked, resumed, resubmitted }, {
        ...{ tracked: true, resumed: true, resubmitted: 0 },
      });
      await driver.reset();
      await driver.restart();
      for (let i = 0; i < 70; i++) assertEquals(await ask(i % 60), i % 60);
      assertEquals(server.record().queues[0].resumed, false);
    }));

  Deno.test(`A ${layout} ring resumes from its record, whatever the base is`, () =>
    withEcho(async (_server, path) => {
      await using driver = await start(path, { packed });
      const ask = async (byte: number) =>
        (await driver.request(0, [Uint8Array.of(Answer.NOW, byte)], [2])).data[0][1];
      for (let i = 0; i < 100; i++) assertEquals(await ask(i % 60), i % 60);
      await driver.stop();
      // After a reconnect, QEMU sends a packed ring's base from before it.
      await driver.restart(driver.queues.map(() => packed ? 0x8000_8000 : 0));
      for (let i = 0; i < 100; i++) assertEquals(await ask(i % 60), i % 60);
    }));

  Deno.test(`A ${layout} ring does not start with an invalid record`, () =>
    withEcho(async (server, path) => {
      await using driver = await start(path, { packed });
      await driver.stop();
      const { fd, mmapSize } = driver.inflight!;
      using mapping = new Mapping(fd.number, Number(mmapSize));
      new Uint16Array(mapping.buffer)[4] = 99;
      await assertRejects(() => driver.restart(), FrontendError);
      assertStringIncludes(lastError(server), "got version 99");
      assertEquals(server.record().queues[0].running, false);
      new Uint16Array(mapping.buffer)[4] = 1;
      await driver.restart();
      const { data } = await driver.request(0, [Uint8Array.of(Answer.NOW, 7)], [2]);
      assertEquals(data[0][1], 7);
    }));
}

Deno.test("A ring larger than its record runs without one", () =>
  withEcho(async (server, path) => {
    // As on virtio-mmio, where QEMU asks for fewer entries than the driver's queue has.
    const area = await (async () => {
      await using connection = await connect(path);
      return await connection.getInflightFd(3, 32);
    })();
    using _fd = area.fd;
    await using driver = await VirtioDriver.connect(path, {
      ...{ queues: [64, 32, 64], timeoutMs: TIMEOUT_MS },
    });
    await driver.connection.setProtocolFeatures(await driver.connection.getProtocolFeatures());
    await driver.connection.setInflightFd(area);
    await driver.restart();
    for (const [queue, tracked] of [[0, false], [1, true]] as const) {
      const { data } = await driver.request(queue, [Uint8Array.of(Answer.NOW, 7)], [2]);
      assertEquals(data[0][1], 7);
      assertEquals(server.record().queues[queue].tracked, tracked);
    }
  }));

Deno.test("A ring whose layout differs from its record's does not start", () =>
  withEcho(async (server, path) => {
    await using driver = await start(path);
    await driver.stop();
    await driver.connection.setFeatures(driver.features | transportMask("RING_PACKED"));
    await driver.connection.setVringNum(0, 64);
    await assertRejects(
      () => driver.connection.setVringKick(0, driver.queues[0].handle.kickFd),
      FrontendError,
    );
    assertStringIncludes(lastError(server), "Expected an in-flight area for packed rings");
  }));
