import {
  assert,
  assertEquals,
  assertLessOrEqual,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { equals } from "@std/bytes";
import blk from "../../backends/blk/mod.ts";
import { type DeviceServer, serve, type ServeOptions } from "../../mod.ts";
import {
  BlkDriver,
  blkHeader,
  blkStatus,
  FrontendError,
  VirtioDriver,
  type VirtioDriverOptions,
} from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { canMount, loopDevice, run, smallTmpfs } from "./lib/block_devices.ts";
import { splitRing } from "./lib/raw_rings.ts";

const { OK, IOERR, UNSUPP } = blkStatus;

const MIB = 2 ** 20;

/** Offsets in config space: virtio 1.3, 5.2.4. */
const SEG_MAX = 12, GEOMETRY = 16, BLK_SIZE = 20, TOPOLOGY = 24, WRITEBACK = 32, NUM_QUEUES = 34;
const DISCARD_ALIGNMENT = 44, MAY_UNMAP = 56;

/** Feature bits: virtio 1.3, 5.2.3. */
const RO = 1n << 5n, FLUSH = 1n << 9n, CONFIG_WCE = 1n << 11n, MQ = 1n << 12n;
const DISCARD = 1n << 13n, WRITE_ZEROES = 1n << 14n;

interface Disk {
  server: DeviceServer;
  driver: VirtioDriver;
  disk: BlkDriver;
  socketPath: string;
}

interface DiskOptions {
  device: Record<string, unknown>;
  server?: Partial<ServeOptions>;
  driver?: VirtioDriverOptions;
}

/** Serves a disk, runs a test with a driver for it, and closes both. */
async function withDisk(
  { device, server: serverOptions, driver: driverOptions }: DiskOptions,
  test: (disk: Disk) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const socketPath = `${directory}/blk.sock`;
  try {
    await using server = await serve(blk, { socketPath, options: device, ...serverOptions });
    await using driver = await VirtioDriver.start(socketPath, driverOptions);
    await test({ server, driver, disk: new BlkDriver(driver), socketPath });
  } finally {
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Runs a test with an image, which is sparse at the start. */
async function withImage(
  bytes: number,
  test: (path: string) => Promise<void>,
  dir?: string,
): Promise<void> {
  const path = Deno.makeTempFileSync({ dir, suffix: ".img" });
  Deno.truncateSync(path, bytes);
  try {
    await test(path);
  } finally {
    Deno.removeSync(path);
  }
}

/** Random numbers from a seed. */
function generator(seed: number): (below: number) => number {
  return (below) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor(seed / 2 ** 32 * below);
  };
}

/** Divides bytes into up to 40 parts of random lengths. */
function divide(bytes: number, random: (below: number) => number): number[] {
  const parts: number[] = [];
  while (bytes > 0 && parts.length < 39) {
    const part = Math.min(bytes, 1 + random(random(2) === 0 ? 16 : bytes));
    parts.push(part);
    bytes -= part;
  }
  return bytes > 0 ? [...parts, bytes] : parts;
}

function pattern(bytes: number, seed: number): Uint8Array<ArrayBuffer> {
  const random = generator(seed);
  return Uint8Array.from({ length: bytes }, () => random(256));
}

/** Makes random requests on a disk of 2 MiB and checks every byte. Returns the disk's content. */
async function exercise(
  { disk, server }: Disk,
  queues: number,
  seed: number,
): Promise<Uint8Array> {
  const random = generator(seed);
  const model = new Uint8Array(2 * MIB);
  for (let i = 0; i < 300; i++) {
    const bytes = 512 * (1 + random(random(4) === 0 ? 128 : 8));
    const sector = random((model.length - bytes) / 512 + 1);
    const options = {
      queue: random(queues),
      parts: divide(bytes, random),
      indirect: random(2) === 0,
    };
    if (random(2) === 0) {
      const data = pattern(bytes, random(2 ** 32));
      const result = await disk.write(sector, data, options);
      assertEquals([result.status, result.written], [OK, 1], `seed ${seed}, request ${i}`);
      model.set(data, sector * 512);
    } else {
      const { status, data, written } = await disk.read(sector, bytes, options);
      assertEquals([status, written], [OK, bytes + 1], `seed ${seed}, request ${i}`);
      const expected = model.subarray(sector * 512, sector * 512 + bytes);
      assert(equals(data, expected), `seed ${seed}, request ${i}`);
    }
  }
  const { statuses } = server.record().report as { statuses: Record<string, number> };
  assertEquals(statuses, { OK: 300, IOERR: 0, UNSUPP: 0 });
  return model;
}

const thorough = { queues: [128, 128, 128], indirectParts: 128 };

for (const plane of ["thread", "main"] as const) {
  Deno.test(`blk stores writes of any framing in its image (${plane})`, async () => {
    await withImage(2 * MIB, async (path) => {
      let model: Uint8Array | undefined;
      await withDisk({
        device: { blkFile: path, numQueues: 3 },
        server: { plane, threads: 2 },
        driver: thorough,
      }, async (disk) => {
        model = await exercise(disk, 3, Date.now() >>> 0);
      });
      assert(equals(Deno.readFileSync(path), model!));
    });
  });
}

Deno.test("blk stores writes in memory that all queue threads share", async () => {
  await withDisk({
    device: { size: 2 * MIB, numQueues: 3 },
    server: { threads: 3 },
    driver: thorough,
  }, async (disk) => {
    await exercise(disk, 3, Date.now() >>> 0);
  });
});

Deno.test("blk takes 126 parts of data in a queue of 128 descriptors", async () => {
  await withDisk({
    device: { size: MIB },
    driver: { queues: [128], indirectParts: 128 },
  }, async ({ disk, driver }) => {
    assertEquals(await driver.config.u32(SEG_MAX), 126);
    const parts = new Array<number>(126).fill(1024);
    const data = pattern(126 * 1024, 1);
    for (const indirect of [false, true]) {
      assertEquals((await disk.write(3, data, { parts, indirect })).status, OK);
      assertEquals((await disk.read(3, data.length, { parts, indirect })).data, data);
    }
  });
});

Deno.test("blk handles many concurrent requests on several queues", async () => {
  await withDisk({
    device: { size: 4 * MIB, numQueues: 4 },
    server: { threads: 2 },
    driver: { queues: 4 },
  }, async ({ disk }) => {
    const numbers = Array.from({ length: 1000 }, (_, i) => i);
    const written = await Promise.all(
      numbers.map((i) => disk.write(i * 8, pattern(4096, i), { queue: i % 4 })),
    );
    assert(written.every(({ status }) => status === OK));
    const read = await Promise.all(
      numbers.map((i) => disk.read(i * 8, 4096, { queue: (i + 1) % 4 })),
    );
    for (const [i, { data }] of read.entries()) assertEquals(data, pattern(4096, i));
  });
});

Deno.test("blk --null completes requests and leaves the driver's buffers unchanged", async () => {
  await withDisk({ device: { null: true, size: 2 ** 40 } }, async ({ disk, server }) => {
    assertEquals(await disk.capacitySectors(), 2 ** 31);
    assertEquals((await disk.write(2 ** 31 - 1, new Uint8Array(512))).status, OK);
    assertEquals((await disk.read(0, 4096)).status, OK);
    assertEquals((await disk.flush()).status, OK);
    assertEquals((await disk.read(2 ** 31, 512)).status, IOERR);
    const { store } = server.record().report as { store: { kind: string } };
    assertEquals(store.kind, "null");
  });
});

Deno.test("blk flushes and returns its serial number", async () => {
  await withImage(MIB, async (path) => {
    await withDisk({ device: { blkFile: path, serial: "S-0123456789abcdefgh" } }, async (it) => {
      assertEquals(await it.disk.flush().then(({ status, written }) => [status, written]), [OK, 1]);
      const { status, id, written } = await it.disk.getId();
      assertEquals([status, id, written], [OK, "S-0123456789abcdefgh", 21]);
    });
  });
});

Deno.test("blk describes its layout in config space", async () => {
  await withImage(MIB, async (path) => {
    await withDisk({ device: { blkFile: path, blockSize: 1024, numQueues: 5 } }, async (it) => {
      const { config, negotiated } = it.driver;
      assertEquals(await config.u32(BLK_SIZE), 1024);
      assertEquals(await config.u8(TOPOLOGY), 2); // 4096-byte physical blocks
      assertEquals(await config.u16(TOPOLOGY + 2), 4);
      assertEquals(await config.u8(WRITEBACK), 1);
      assertEquals(await config.u16(NUM_QUEUES), 5);
      assertEquals(await config.u32(DISCARD_ALIGNMENT), 8);
      assertEquals(await config.u8(MAY_UNMAP), 1);
      const wanted = FLUSH | CONFIG_WCE | MQ | DISCARD | WRITE_ZEROES;
      assertEquals(negotiated.offeredFeatures & (wanted | RO), wanted);
      assertEquals(negotiated.maxQueues, 5);
    });
  });
});

Deno.test("blk has the geometry that its image's partition table has, or a common one", async () => {
  const geometry = async (
    { driver: { config } }: Disk,
  ) => [await config.u16(GEOMETRY), await config.u8(GEOMETRY + 2), await config.u8(GEOMETRY + 3)];
  await withImage(MIB, async (path) => {
    await withDisk({ device: { blkFile: path } }, async (it) => {
      assertEquals(await geometry(it), [2, 16, 63]);
      const record = new Uint8Array(512);
      record.set([1, 0, 0, 0, 0x83, 7, 32, 0, 32, 0, 0, 0, 100], 446);
      record.set([0x55, 0xaa], 510);
      assertEquals((await it.disk.write(0, record)).status, OK);
    });
    await withDisk({ device: { blkFile: path } }, async (it) => {
      assertEquals(await geometry(it), [8, 8, 32]);
      assert(it.driver.negotiated.offeredFeatures & 1n << 4n);
    });
  });
});

Deno.test("blk has one queue per processor by default", async () => {
  await withDisk({ device: { size: MIB } }, ({ driver }) => {
    assertEquals(driver.negotiated.maxQueues ?? 1, navigator.hardwareConcurrency);
    return Promise.resolve();
  });
});

const blocks = (path: string) => Deno.statSync(path).blocks!;

Deno.test("blk punches holes into its image where the driver discards", async () => {
  await withImage(MIB, async (path) => {
    await withDisk({ device: { blkFile: path, io: "uring" } }, async ({ disk, server }) => {
      await disk.write(0, pattern(MIB, 1));
      await disk.flush();
      const full = blocks(path);
      assertEquals((await disk.discard(256, 1024)).status, OK);
      assert(Math.abs(full - blocks(path) - 1024) <= 16);
      const { data } = await disk.read(255, 1026 * 512);
      const expected = pattern(MIB, 1).subarray(255 * 512, 1281 * 512);
      expected.fill(0, 512, 512 + 1024 * 512);
      assertEquals(data, expected);
      const { store } = server.record().report as { store: Record<string, unknown> };
      assertEquals(store, {
        io: "uring",
        cache: "writeback",
        kind: "file",
        readOnly: false,
        path,
        allocatedBytes: blocks(path) * 512,
      });
    });
  });
});

Deno.test("blk discards several segments in one request", async () => {
  await withDisk({ device: { size: MIB } }, async ({ disk }) => {
    await disk.write(0, pattern(MIB, 1));
    const segments = new Uint8Array(32);
    segments[0] = 8; // sector
    segments[8] = 8; // sectors
    segments[16] = 24;
    segments[24] = 8;
    const { status } = await disk.request(blkHeader(11, 0), [segments], []);
    assertEquals(status, OK);
    const { data } = await disk.read(0, 32 * 512);
    const expected = pattern(MIB, 1).subarray(0, 32 * 512);
    expected.fill(0, 8 * 512, 16 * 512);
    expected.fill(0, 24 * 512, 32 * 512);
    assertEquals(data, expected);
  });
});

Deno.test("blk ignores discards when told to", async () => {
  await withImage(MIB, async (path) => {
    await withDisk({ device: { blkFile: path, discard: "ignore" } }, async ({ disk, driver }) => {
      assertEquals(driver.negotiated.offeredFeatures & DISCARD, 0n);
      assertEquals(await driver.config.u8(MAY_UNMAP), 0);
      await disk.write(0, pattern(MIB, 1));
      const full = blocks(path);
      assertEquals((await disk.discard(0, 2048)).status, UNSUPP);
      assertEquals((await disk.writeZeroes(0, 2048, { unmap: true })).status, OK);
      assertEquals((await disk.read(0, MIB)).data, new Uint8Array(MIB));
      assertEquals(blocks(path), full);
    });
  });
});

// tmpfs has no FALLOC_FL_ZERO_RANGE: zeroes are written there.
for (const [name, dir] of [["the temporary directory", undefined], ["tmpfs", "/dev/shm"]]) {
  Deno.test(`blk writes zeroes that keep their space, or free it with unmap (${name})`, async () => {
    await withImage(8 * MIB, async (path) => {
      await withDisk({ device: { blkFile: path } }, async ({ disk }) => {
        const data = pattern(8 * MIB, 1);
        for (let at = 0; at < data.length; at += MIB) {
          await disk.write(at / 512, data.subarray(at, at + MIB));
        }
        await disk.flush();
        const full = blocks(path);
        assertEquals((await disk.writeZeroes(1, 8001)).status, OK);
        data.fill(0, 512, 8002 * 512);
        // A file system may need another block for its metadata
        assertLessOrEqual(Math.abs(full - blocks(path)), 16);
        assertEquals((await disk.writeZeroes(8192, 4096, { unmap: true })).status, OK);
        data.fill(0, 8192 * 512, 12288 * 512);
        assertLessOrEqual(Math.abs(full - blocks(path) - 4096), 16);
        assert(equals(await Deno.readFile(path), data));
      });
    }, dir);
  });
}

Deno.test("a read-only blk refuses writes and changes nothing", async () => {
  await withImage(MIB, async (path) => {
    Deno.chmodSync(path, 0o444);
    await withDisk({ device: { blkFile: path, readOnly: true } }, async ({ disk, driver }) => {
      const { offeredFeatures } = driver.negotiated;
      assertEquals(offeredFeatures & (RO | DISCARD | WRITE_ZEROES | CONFIG_WCE), RO);
      assertEquals((await disk.write(0, pattern(512, 1))).status, IOERR);
      assertEquals((await disk.discard(0, 8)).status, UNSUPP);
      assertEquals((await disk.writeZeroes(0, 8)).status, UNSUPP);
      assertEquals((await disk.read(0, 512)).data, new Uint8Array(512));
      assertEquals((await disk.flush()).status, OK);
    });
    assert((await Deno.readFile(path)).every((byte) => byte === 0));
  });
});

Deno.test("blk refuses invalid requests, and the record says why", async () => {
  await withDisk({ device: { size: MIB } }, async ({ disk, server }) => {
    assertEquals((await disk.read(2047, 1024)).status, IOERR);
    assertEquals((await disk.write(0, new Uint8Array(100))).status, IOERR);
    const read = await disk.read(2 ** 52, 512);
    assertEquals([read.status, read.written, read.data], [IOERR, 513, new Uint8Array(512)]);
    assertEquals((await disk.request(blkHeader(77, 0), [], [])).status, UNSUPP);
    assertEquals((await disk.request(new Uint8Array(3), [], [])).status, IOERR);
    const report = server.record().report as {
      requests: Record<string, number>;
      statuses: Record<string, number>;
      failures: { queue: number; request: string | number; sector: number; error: string }[];
    };
    assertEquals(report.statuses, { OK: 0, IOERR: 4, UNSUPP: 1 });
    const { IN, OUT, other } = report.requests;
    assertEquals([IN, OUT, other], [2, 1, 2]);
    assertEquals(report.failures.map(({ request, sector, error }) => [request, sector, error]), [
      ["IN", 2047, "out of range"],
      ["OUT", 0, "not aligned"],
      ["IN", 2 ** 52, "out of range"],
      [77, 0, "unsupported"],
      [null, 0, "short header"],
    ]);
    assertEquals(server.record().queues[0].broken, false);
  });
});

Deno.test("blk announces that its image grew or shrank", async () => {
  await withImage(MIB, async (path) => {
    const device = { blkFile: path };
    await withDisk({ device, server: { log: () => {} } }, async ({ disk, driver, server }) => {
      const { onReload, commands } = server.host.control;
      const channel = driver.negotiated.backChannel!;
      assertEquals((await disk.read(4095, 512)).status, IOERR);

      await Deno.truncate(path, 2 * MIB);
      await onReload!();
      assertEquals((await channel.next()).message.request, "CONFIG_CHANGE_MSG");
      assertEquals(await disk.capacitySectors(), 4096);
      // A repeated command announces the config again.
      await onReload!();
      assertEquals((await channel.next()).message.request, "CONFIG_CHANGE_MSG");
      assertEquals((await disk.read(4095, 512)).status, OK);

      await Deno.truncate(path, MIB / 2);
      assertEquals((await disk.read(1024, 512)).status, IOERR); // not known yet
      assertEquals(await commands!.resize.run(undefined), { before: 2 * MIB, bytes: MIB / 2 });
      assertEquals((await channel.next()).message.request, "CONFIG_CHANGE_MSG");
      assertEquals(await disk.capacitySectors(), 1024);
      assertEquals((await disk.read(1024, 512)).status, IOERR);
      assertEquals((await disk.write(1024, new Uint8Array(512))).status, IOERR);
      assertEquals(Deno.statSync(path).size, MIB / 2);
      const { failures } = server.record().report as { failures: { error: string }[] };
      assertEquals(failures.map(({ error }) => error), [
        "out of range",
        "ENODATA",
        "out of range",
        "out of range",
      ]);

      // An impossible size changes nothing
      await Deno.truncate(path, MIB + 1);
      await assertRejects(async () => await onReload!(), RangeError, "multiple of 512");
      assertEquals(await disk.capacitySectors(), 1024);
      await assertRejects(() => channel.next(50), FrontendError, "within 50 ms");

      for (const size of [4 * MIB, MIB]) {
        await commands!.resize.run({ size });
        assertEquals((await channel.next()).message.request, "CONFIG_CHANGE_MSG");
        assertEquals(Deno.statSync(path).size, size);
        assertEquals(await disk.capacitySectors(), size / 512);
      }
    });
  });
});

Deno.test("blk in memory changes its size on command", async () => {
  await withDisk({ device: { size: MIB } }, async ({ disk, driver, server }) => {
    const { resize } = server.host.control.commands!;
    const channel = driver.negotiated.backChannel!;
    await disk.write(0, pattern(MIB, 1));
    for (const [size, bytes] of [["2M", 2 * MIB], [MIB / 2, MIB / 2], ["1M", MIB]] as const) {
      await resize.run({ size });
      assertEquals((await channel.next()).message.request, "CONFIG_CHANGE_MSG");
      assertEquals(await disk.capacitySectors(), bytes / 512);
      assertEquals((await disk.read(bytes / 512 - 1, 512)).status, OK);
      assertEquals((await disk.read(bytes / 512, 512)).status, IOERR);
    }
    const expected = pattern(MIB, 1).fill(0, MIB / 2);
    assertEquals((await disk.read(0, MIB)).data, expected);
    for (const body of [{ size: "1X" }, { size: {} }, { size: 100 }, { bytes: 1 }, "1G", 7, []]) {
      const error = await assertRejects(async () => await resize.run(body));
      assert(error instanceof TypeError || error instanceof RangeError, String(error));
    }
  });
});

Deno.test("blk toggles between write-back and write-through", async () => {
  await withImage(MIB, async (path) => {
    await withDisk({ device: { blkFile: path } }, async ({ disk, driver, server }) => {
      await driver.config.write(WRITEBACK, Uint8Array.of(0));
      assertEquals(await driver.config.u8(WRITEBACK), 0);
      assertEquals((await disk.write(0, pattern(4096, 1))).status, OK);
      await assertRejects(
        () => driver.config.write(WRITEBACK, Uint8Array.of(2)),
        FrontendError,
        "error",
      );
      assertEquals(await driver.config.u8(WRITEBACK), 0);
      const field = server.record().config.fields.find(({ name }) => name === "writeback")!;
      assertEquals([field.writes, field.changes], [1, 1]);
    });
  });
});

Deno.test("blk is write-through for a driver that cannot flush", async () => {
  await withImage(MIB, async (path) => {
    await withDisk({
      device: { blkFile: path },
      driver: { features: CONFIG_WCE | 1n << 32n },
    }, async ({ driver, disk }) => {
      assertEquals((await disk.write(0, pattern(512, 1))).status, OK);
      assertEquals(await driver.config.u8(WRITEBACK), 0);
    });
  });
});

Deno.test("blk breaks only the queue whose chain has no room for a status", async () => {
  const device = { size: MIB, numQueues: 2 };
  await withDisk({ device, driver: { queues: 2 } }, async ({ server, driver, disk }) => {
    assertEquals((await disk.write(0, pattern(512, 1), { queue: 0 })).status, OK);
    await assertRejects(
      () => driver.request(0, [blkHeader(1, 0), pattern(512, 2)], []),
      FrontendError,
      "broken",
    );
    assertEquals((await disk.read(0, 512, { queue: 1 })).data, pattern(512, 1));
    // The queue's thread tells the record, and an eventfd tells the driver.
    while (server.record().queues[0].faults.length === 0) await driver.connection.getFeatures();
    const [broken, other] = server.record().queues;
    assertEquals([broken.broken, other.broken], [true, false]);
    assertEquals(broken.faults.length, 1);
    assertEquals(broken.faults[0].rule, "device");
    assertStringIncludes(broken.faults[0].message, "status byte");
    assertStringIncludes(broken.faults[0].message, "5.2.6");
  });
});

Deno.test("blk breaks only the queue whose ring breaks a rule, and names the rule", async () => {
  const device = { size: MIB, numQueues: 2 };
  await withDisk({ device, driver: { queues: 2 } }, async ({ server, driver, disk }) => {
    const [{ handle }] = driver.queues;
    const raw = splitRing(driver);
    raw.setDescriptor(0, { gpa: 2n ** 40n, bytes: 16, flags: 0, next: 0 });
    raw.push(0);
    driver.queues[0].kick();
    assert(handle.errFd >= 0);
    const until = Date.now() + 5000;
    while (!server.record().queues[0].broken && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assertEquals((await disk.write(0, pattern(512, 1), { queue: 1 })).status, OK);
    const { broken, faults } = server.record().queues[0];
    assertEquals([broken, faults[0].rule], [true, "buffer-address"]);
  });
});

Deno.test("blk keeps its data over a driver's reset and the next connection", async () => {
  await withDisk({ device: { size: MIB } }, async ({ disk, driver, socketPath }) => {
    await disk.write(8, pattern(4096, 1));
    await driver.reset();
    await driver.restart();
    assertEquals((await disk.read(8, 4096)).data, pattern(4096, 1));
    await driver.close();
    await using next = await VirtioDriver.start(socketPath);
    assertEquals((await new BlkDriver(next).read(8, 4096)).data, pattern(4096, 1));
  });
});

Deno.test("blk returns IOERR when the file system is full, and works again afterwards", async () => {
  if (Deno.uid() !== 0) return console.log("skipped: a small tmpfs needs root");
  using small = smallTmpfs("1m");
  await withImage(8 * MIB, async (path) => {
    await withDisk({ device: { blkFile: path } }, async ({ disk, server }) => {
      assertEquals((await disk.write(0, pattern(MIB / 2, 1))).status, OK);
      assertEquals((await disk.write(1024, pattern(MIB, 2))).status, IOERR);
      const { failures } = server.record().report as {
        failures: { error: string; request: string; sector: number }[];
      };
      assertEquals(failures.map(({ error, request, sector }) => [error, request, sector]), [
        ["ENOSPC", "OUT", 1024],
      ]);
      assertEquals((await disk.read(0, MIB / 2)).data, pattern(MIB / 2, 1));
      assertEquals((await disk.writeZeroes(4096, 4096)).status, IOERR);
      assertEquals((await disk.discard(0, 16384)).status, OK);
      assertEquals((await disk.write(0, pattern(MIB / 2, 3))).status, OK);
      assertEquals((await disk.read(0, MIB / 2)).data, pattern(MIB / 2, 3));
    });
  }, small.path);
});

Deno.test("blk serves a block device", async () => {
  await withImage(4 * MIB, async (path) => {
    if (!canMount()) return;
    using loop = loopDevice(path, "--sector-size=4096");
    const device = loop.path;
    await withDisk({ device: { blkFile: device } }, async ({ disk, driver, server }) => {
      assertEquals(await disk.capacitySectors(), 8192);
      assertEquals(await driver.config.u32(BLK_SIZE), 4096);
      const { store } = server.record().report as { store: { kind: string } };
      assertEquals(store.kind, "block device");
      const data = pattern(MIB, 1);
      assertEquals((await disk.write(0, data)).status, OK);
      assertEquals((await disk.write(3, data.subarray(0, 512))).status, OK);
      data.copyWithin(3 * 512, 0, 512);
      assertEquals((await disk.flush()).status, OK);
      assertEquals((await disk.discard(1024, 512)).status, OK);
      assertEquals((await disk.discard(1025, 1)).status, OK); // too small to take
      assertEquals((await disk.writeZeroes(8, 8)).status, OK);
      assertEquals((await disk.writeZeroes(17, 1)).status, OK); // too small for the kernel
      assertEquals((await disk.writeZeroes(24, 8, { unmap: true })).status, OK);
      data.fill(0, 8 * 512, 16 * 512).fill(0, 17 * 512, 18 * 512).fill(0, 24 * 512, 32 * 512);
      assertEquals((await disk.read(0, MIB / 2)).data, data.subarray(0, MIB / 2));
      assertEquals((await disk.flush()).status, OK);
    });
    const error = await assertRejects(() =>
      serve(blk, { socketPath: `${path}.sock`, options: { blkFile: device, blockSize: 512 } })
    );
    assertStringIncludes(error.message, "--block-size takes at least 4096");
  });
});

const directory = Deno.makeTempDirSync();
const image = (name: string, bytes: number) => {
  const path = `${directory}/${name}`;
  Deno.writeFileSync(path, new Uint8Array(bytes));
  return path;
};

const mistakes: [options: Record<string, unknown>, message: string][] = [
  [{}, "Expected what to serve: --blk-file=PATH"],
  [{ null: true }, "--null needs a size"],
  [{ blkFile: image("a.img", 512), null: true }, "--blk-file and --null exclude each other"],
  [{ blkFile: image("a.img", 512), size: 512 }, "--blk-file and --size exclude each other"],
  [{ blkFile: `${directory}/none.img` }, "none.img: it does not exist"],
  [{ blkFile: directory }, "it is a directory"],
  [{ blkFile: directory, readOnly: true }, "it is a directory"],
  [{ blkFile: "/dev/null" }, "it is not a file or block device"],
  [{ blkFile: image("empty.img", 0) }, "an empty one"],
  [{ blkFile: image("odd.img", 1000) }, "multiple of 512 bytes, got 1000; truncate -s %512 makes"],
  [{ blkFile: image("a.img", 512), blockSize: 4096 }, "a multiple of 4096"],
  [{ size: 1000 }, "a multiple of 512 bytes, got 1000; the next larger one is 1024"],
  [
    { size: 1024, cache: "none" },
    "--cache=none is for a file, a block device or an --overlay, got",
  ],
  [
    { null: true, size: 1024, io: "sync" },
    "--io is for a file, a block device or an --overlay, got --null",
  ],
  [{ size: 4096, blockSize: 1000 }, "--block-size takes a power of 2, got 1000"],
  [{ size: 4096, serial: "123456789012345678901" }, "--serial takes up to 20"],
  [{ size: 4096, serial: "ü" }, "--serial takes up to 20"],
];

for (const [options, expected] of mistakes) {
  const shown = JSON.stringify(options).replaceAll(`${directory}/`, "").replace(directory, "DIR");
  Deno.test(`blk refuses ${shown} with one clear line`, async () => {
    const socketPath = `${directory}/blk.sock`;
    const error = await assertRejects(() => serve(blk, { socketPath, options }));
    assertStringIncludes(error.message, expected);
    assertEquals(error.message.includes("\n"), false);
    await watchesEnded();
  });
}

Deno.test("blk refuses a named pipe as image, without waiting", async () => {
  const path = `${directory}/pipe`;
  run("mkfifo", path);
  const options = { blkFile: path, readOnly: true };
  const error = await assertRejects(() =>
    serve(blk, { socketPath: `${directory}/blk.sock`, options })
  );
  assertStringIncludes(error.message, "not a file or block device");
  await watchesEnded();
});

Deno.test.afterAll(() => Deno.removeSync(directory, { recursive: true }));
