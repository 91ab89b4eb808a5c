/** A completed write is as durable as the driver and the front-end may assume. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import {
  BlkDriver,
  blkStatus,
  VirtioDriver,
  type VirtioDriverOptions,
} from "../../src/frontend/mod.ts";
import { errnoName, watchesEnded } from "../../src/linux/mod.ts";
import { protocolFeatureMask } from "../../src/vhost_user/mod.ts";
import faulty, { FLUSHES, MAX_STRIPES } from "../../tools/fuzz/storage/faulty_blk.ts";
import { canMount, loopDevice, smallTmpfs } from "./lib/block_devices.ts";

const { OK, IOERR, UNSUPP } = blkStatus;
const MIB = 2 ** 20;
const WRITEBACK = 32; // virtio 1.3, 5.2.4
const FLUSH = 1n << 9n, CONFIG_WCE = 1n << 11n, VERSION_1 = 1n << 32n; // 5.2.3, 6
const SECTOR = new Uint8Array(512).fill(1);

interface Setup {
  path: string;
  socketPath: string;
  serve(options?: Record<string, unknown>): Promise<Served>;
}

interface Served extends AsyncDisposable {
  server: DeviceServer;
  /** The lines that it logged. */
  said: string[];
  /** The number of flushes of the store since the last call. */
  flushes(): number;
  /** Makes the next flush fail. */
  failFlush(errno: number): void;
}

/** Runs a test with an image that it can serve repeatedly on the same socket. */
async function withImage(test: (setup: Setup) => Promise<void>): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const path = `${directory}/disk.img`;
  const socketPath = `${directory}/blk.sock`;
  try {
    Deno.writeFileSync(path, new Uint8Array(MIB));
    await test({
      path,
      socketPath,
      async serve(options = {}) {
        const said: string[] = [];
        const server = await serve(faulty, {
          socketPath,
          threads: 2,
          options: { blkFile: path, io: "sync", numQueues: 2, manner: "now", ...options },
          log: (message) => said.push(message),
        });
        const { orders } = server.host.control.shared as { orders: SharedArrayBuffer };
        const words = new Int32Array(orders);
        return {
          server,
          said,
          flushes: () => Atomics.exchange(words, FLUSHES, 0),
          failFlush: (errno) => void Atomics.store(words, MAX_STRIPES, errno),
          [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
        };
      },
    });
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Writes and expects this number of flushes. */
async function expectWrite(driver: VirtioDriver, served: Served, flushes: number): Promise<void> {
  served.flushes();
  const disk = new BlkDriver(driver);
  assertEquals((await disk.write(0, SECTOR)).status, OK);
  assertEquals((await disk.writeZeroes(8, 8)).status, OK);
  assertEquals(served.flushes(), 2 * flushes);
}

/** Makes the disk write-through, and awaits the flush of each thread that follows. */
async function becomeWriteThrough(driver: VirtioDriver, served: Served): Promise<void> {
  let flushes = -served.flushes();
  await driver.config.write(WRITEBACK, Uint8Array.of(0));
  while ((flushes += served.flushes()) < 2) await driver.connection.getFeatures();
  assertEquals(flushes, 2);
}

Deno.test("write-through survives a reset and a new connection, until config changes it", () =>
  withImage(async ({ socketPath, serve }) => {
    await using served = await serve();
    await using driver = await VirtioDriver.start(socketPath, { queues: 2 });
    await expectWrite(driver, served, 0);
    await becomeWriteThrough(driver, served);
    await expectWrite(driver, served, 1);
    // QEMU does not send it again: it keeps a copy, which its guest reads.
    await driver.reset();
    await driver.restart();
    await expectWrite(driver, served, 1);
    await driver.reconnect();
    await expectWrite(driver, served, 1);
    assertEquals(await driver.config.u8(WRITEBACK), 0);
    await driver.config.write(WRITEBACK, Uint8Array.of(1));
    await driver.reset();
    await driver.restart();
    await expectWrite(driver, served, 0);
    assertEquals(served.said, []);
  }));

for (const inflight of [false, true]) {
  const how = inflight ? "with" : "without";
  Deno.test(`write-through survives a restart, ${how} in-flight records`, () =>
    withImage(async ({ socketPath, serve }) => {
      const first = await serve();
      await using driver = await VirtioDriver.start(socketPath, {
        queues: 2,
        inflight,
      });
      await driver.config.write(WRITEBACK, Uint8Array.of(0));
      await driver.disconnect();
      await first[Symbol.asyncDispose]();
      await using second = await serve();
      await driver.reconnect();
      await expectWrite(driver, second, 1);
      await driver.reset();
      await driver.restart();
      await expectWrite(driver, second, 1);
    }));
}

Deno.test("write-back survives a restart if the in-flight record has it", () =>
  withImage(async ({ socketPath, serve }) => {
    const first = await serve();
    await using driver = await VirtioDriver.start(socketPath, {
      queues: 2,
      inflight: true,
    });
    await expectWrite(driver, first, 0);
    await driver.disconnect();
    await first[Symbol.asyncDispose]();
    await using second = await serve();
    await driver.reconnect();
    await expectWrite(driver, second, 0);
    await driver.reset();
    await driver.restart();
    await expectWrite(driver, second, 0);
  }));

const drivers: [features: bigint, writeback: number, flushes: number][] = [
  [FLUSH | CONFIG_WCE, 1, 0],
  [FLUSH | CONFIG_WCE, 0, 1],
  [FLUSH, 1, 0],
  [0n, 1, 1],
  [CONFIG_WCE, 0, 1],
];

Deno.test("--cache=writethrough makes each write durable, until the driver chooses write-back", () =>
  withImage(async ({ socketPath, serve }) => {
    for (const cache of ["writethrough", "directsync"]) {
      await using served = await serve({ cache });
      const mode = () => (served.server.record().report as { mode: string }).mode;
      {
        const features = FLUSH | VERSION_1 | 1n << 14n;
        await using driver = await VirtioDriver.start(socketPath, { features });
        await expectWrite(driver, served, 1);
      }
      await using driver = await VirtioDriver.start(socketPath);
      assertEquals([await driver.config.u8(WRITEBACK), mode()], [0, "write-through"]);
      await expectWrite(driver, served, 1);
      await driver.config.write(WRITEBACK, Uint8Array.of(1));
      await expectWrite(driver, served, 0);
      assertEquals(mode(), "write-back");
      assertEquals(served.said, []);
    }
  }));

for (const [features, writeback, flushes] of drivers) {
  const names = [features & FLUSH && "FLUSH", features & CONFIG_WCE && "CONFIG_WCE"];
  Deno.test(`a write of a driver with ${names.filter(Boolean).join(" and ") || "neither"}, writeback ${writeback}, makes ${flushes} flushes`, () =>
    withImage(async ({ socketPath, serve }) => {
      await using served = await serve();
      const options: VirtioDriverOptions = {
        features: features | VERSION_1 | 1n << 14n,
      };
      await using driver = await VirtioDriver.start(socketPath, options);
      if (features === (FLUSH | CONFIG_WCE)) {
        if (writeback === 0) await becomeWriteThrough(driver, served);
        else await driver.config.write(WRITEBACK, Uint8Array.of(writeback));
      }
      assertEquals(await driver.config.u8(WRITEBACK), writeback);
      await expectWrite(driver, served, flushes);
    }));
}

for (const manner of ["now", "promise", "later"]) {
  Deno.test(`a flush that failed fails on every queue until the image is opened again (${manner})`, () =>
    withImage(async ({ socketPath, serve }) => {
      {
        await using served = await serve({ manner });
        await using driver = await VirtioDriver.start(socketPath, { queues: 2 });
        const disk = new BlkDriver(driver);
        const EIO = 5, ENOSPC = 28;
        assertEquals((await disk.flush({ queue: 0 })).status, OK);
        served.failFlush(ENOSPC);
        assertEquals((await disk.flush({ queue: 1 })).status, IOERR);
        for (const queue of [0, 1, 0]) {
          served.failFlush(EIO);
          assertEquals((await disk.flush({ queue })).status, IOERR);
        }
        // Writes without durability still succeed; durable ones fail.
        assertEquals((await disk.write(0, SECTOR, { queue: 1 })).status, OK);
        await driver.config.write(WRITEBACK, Uint8Array.of(0));
        assertEquals((await disk.write(0, SECTOR, { queue: 1 })).status, IOERR);
        assertEquals((await disk.writeZeroes(0, 1, { queue: 0 })).status, IOERR);
        assertEquals((await disk.read(0, 512)).data, SECTOR);
        await driver.reconnect();
        assertEquals((await disk.flush()).status, IOERR);
        const { lostWrites, failures } = served.server.record().report as {
          lostWrites: string;
          failures: { error: string }[];
        };
        assertEquals(lostWrites, errnoName(ENOSPC));
        assert(
          failures.every(({ error }) => error === errnoName(ENOSPC)),
          JSON.stringify(failures),
        );
      }
      await using _served = await serve({ manner });
      await using driver = await VirtioDriver.start(socketPath, { queues: 2 });
      assertEquals((await new BlkDriver(driver).flush({ queue: 1 })).status, OK);
    }));

  Deno.test(`a write-through write whose flush failed makes later writes and flushes fail (${manner})`, () =>
    withImage(async ({ socketPath, serve }) => {
      for (const kind of ["write", "writeZeroes"] as const) {
        await using served = await serve({ manner });
        await using driver = await VirtioDriver.start(socketPath, { queues: 2 });
        const disk = new BlkDriver(driver);
        await becomeWriteThrough(driver, served);
        served.failFlush(5);
        const request = kind === "write" ? disk.write(0, SECTOR) : disk.writeZeroes(0, 1);
        assertEquals((await request).status, IOERR);
        assertEquals((await disk.write(0, SECTOR, { queue: 1 })).status, IOERR);
        assertEquals((await disk.flush({ queue: 1 })).status, IOERR);
      }
    }));
}

const lesser: [options: Record<string, unknown>, names: string, discard: number, zeroes: number][] =
  [
    [{ discard: "ignore" }, "DISCARD", OK, OK],
    [{ readOnly: true }, "CONFIG_WCE, DISCARD, WRITE_ZEROES", IOERR, IOERR],
  ];

for (const [options, names, discard, zeroes] of lesser) {
  Deno.test(`a guest continues with a back-end that was restarted with ${JSON.stringify(options)}`, () =>
    withImage(async ({ path, socketPath, serve }) => {
      const first = await serve();
      await using driver = await VirtioDriver.start(socketPath);
      const disk = new BlkDriver(driver);
      assertEquals((await disk.write(0, SECTOR)).status, OK);
      await driver.disconnect();
      await first[Symbol.asyncDispose]();
      await using second = await serve(options);
      await driver.reconnect({ asBefore: true });
      assertEquals((await disk.read(0, 512)).data, SECTOR);
      assertEquals((await disk.discard(0, 1)).status, discard);
      assertEquals((await disk.read(0, 512)).data, SECTOR);
      assertEquals((await disk.writeZeroes(1, 1)).status, zeroes);
      assertEquals((await disk.flush()).status, OK);
      assertEquals(second.said.filter((line) => line.includes(names)).length, 1, `${second.said}`);
      assertEquals(second.server.record().errors.total, 0);
      assertEquals(Deno.readFileSync(path).subarray(0, 512), SECTOR);
      // Logged once, however often it connects.
      const { length } = second.said;
      await driver.reconnect({ asBefore: true });
      assertEquals(second.said.length, length);
    }));
}

Deno.test("a device ignores features that a driver did not negotiate", () =>
  withImage(async ({ socketPath, serve }) => {
    await using _served = await serve();
    await using driver = await VirtioDriver.start(socketPath, {
      features: VERSION_1 | FLUSH,
    });
    assertEquals((await new BlkDriver(driver).discard(0, 1)).status, UNSUPP);
  }));

Deno.test("a guest that uses more queues than a restarted back-end has is not served, and one line says why", () =>
  withImage(async ({ socketPath, serve }) => {
    const first = await serve({ numQueues: 2 });
    // QEMU does not wait for an answer to SET_FEATURES.
    const protocolFeatures = protocolFeatureMask("MQ", "CONFIG", "RESET_DEVICE");
    await using driver = await VirtioDriver.start(socketPath, {
      protocolFeatures,
    });
    await expectWrite(driver, first, 0);
    await driver.disconnect();
    await first[Symbol.asyncDispose]();
    {
      await using second = await serve({ numQueues: 1 });
      for (let times = 0; times < 2; times++) {
        await driver.reconnect({ asBefore: true });
        await driver.connection.getFeatures();
        const { queues: [queue] } = second.server.record();
        assertEquals([queue.running, queue.broken], [false, false]);
      }
      const lines = second.said.filter((line) => line.startsWith("SET_FEATURES is refused"));
      assertEquals(lines.length, 1, `${second.said}`);
      assertStringIncludes(lines[0], "got MQ; its queues do not run; start the device with");
      await driver.disconnect();
    }
    await using third = await serve({ numQueues: 2 });
    await driver.reconnect({ asBefore: true });
    await expectWrite(driver, third, 1);
  }));

for (const io of ["auto", "uring", "sync"]) {
  for (const mode of ["write-back", "write-through"]) {
    Deno.test(`a failed flush on a full file system keeps failing (--io=${io}, ${mode})`, async () => {
      if (!canMount()) return;
      using directory = smallTmpfs("1m");
      const image = `${directory.path}/disk.img`;
      Deno.writeFileSync(image, new Uint8Array(0));
      Deno.truncateSync(image, 16 * MIB);
      using disk = loopDevice(image);
      const socketPath = `${directory.path}/blk.sock`;
      {
        const options = { blkFile: disk.path, io, numQueues: 2 };
        const said = Promise.withResolvers<string>();
        const log = (line: string) => line.includes("may be lost") && said.resolve(line);
        await using _server = await serve(blk, { socketPath, threads: 2, options, log });
        await using driver = await VirtioDriver.start(socketPath, {
          queues: 2,
        });
        const device = new BlkDriver(driver);
        const data = new Uint8Array(MIB).fill(1);
        if (mode === "write-through") {
          await driver.config.write(WRITEBACK, Uint8Array.of(0));
          const statuses = await Promise.all(
            [0, 1, 2, 3].map(async (i) =>
              (await device.write(i * 4096, data, { queue: i % 2 })).status
            ),
          );
          assert(statuses.includes(IOERR), statuses.join());
          assertEquals((await device.write(0, SECTOR, { queue: 1 })).status, IOERR);
        } else {
          for (let i = 0; i < 4; i++) {
            assertEquals((await device.write(i * 4096, data, { queue: i % 2 })).status, OK);
          }
        }
        // The kernel reports the error to one of them only.
        for (const queue of [1, 0, 1, 0]) {
          assertEquals((await device.flush({ queue })).status, IOERR);
        }
        assertStringIncludes(await said.promise, "flushes fail until the disk is served again");
      }
      await watchesEnded();
    });
  }
}
