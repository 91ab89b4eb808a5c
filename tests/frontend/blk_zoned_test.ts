/** A host-managed disk in memory: virtio 1.3, 5.2.6. What its zones do is in blk_zones_test.ts. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import {
  BlkDriver,
  blkHeader,
  blkStatus,
  VirtioDriver,
  type VirtioDriverOptions,
} from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { Random } from "../../tools/lib/random.ts";
import { runCli } from "./lib/cli_process.ts";

const { OK, IOERR, UNSUPP } = blkStatus;
const { ZONE_INVALID_CMD, ZONE_UNALIGNED_WP, ZONE_OPEN_RESOURCE, ZONE_ACTIVE_RESOURCE } = blkStatus;
const KIB = 1024, MIB = 2 ** 20;

/** Offsets in config space, and feature bits: virtio 1.3, 5.2.3 and 5.2.4. */
const ZONED_OFFSET = 72;
const DISCARD = 1n << 13n, WRITE_ZEROES = 1n << 14n, ZONED = 1n << 17n, VERSION_1 = 1n << 32n;

interface Disk {
  server: DeviceServer;
  driver: VirtioDriver;
  disk: BlkDriver;
  /** Resolves with the next line that is logged. */
  line: Promise<string>;
}

async function withDisk(
  device: Record<string, unknown>,
  test: (disk: Disk) => Promise<void>,
  driverOptions?: VirtioDriverOptions,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const socketPath = `${directory}/blk.sock`;
  const line = Promise.withResolvers<string>();
  try {
    await using server = await serve(blk, { socketPath, options: device, log: line.resolve });
    await using driver = await VirtioDriver.start(socketPath, driverOptions);
    await test({ server, driver, disk: new BlkDriver(driver), line: line.promise });
  } finally {
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  }
}

const sectors = (count: number, value: number) => new Uint8Array(count * 512).fill(value);

Deno.test("a zoned disk tells its zones, and offers nothing that writes anywhere", () =>
  withDisk({
    size: 10 * MIB,
    zoned: "host-managed,size=1M,capacity=768K,conventional=1,open=2,active=4",
    blockSize: 4096,
  }, async ({ driver: { config, negotiated }, disk, server }) => {
    const fields = [0, 4, 8, 12, 16].map((at) => config.u32(ZONED_OFFSET + at));
    assertEquals(await Promise.all(fields), [2048, 2, 4, 1536, 4096]);
    assertEquals(await config.u8(ZONED_OFFSET + 20), 1); // host-managed
    assertEquals(negotiated.offeredFeatures & (DISCARD | WRITE_ZEROES | ZONED), ZONED);
    const { zones } = await disk.reportZones(2048, 3);
    assertEquals(
      zones,
      [1, 2, 3].map((zone) => {
        const start = zone * 2048;
        return { start, capacity: 1536, writePointer: start, type: 2, state: 1 };
      }),
    );
    assertEquals((await disk.write(2048, sectors(8, 1))).status, OK);
    const { store } = server.record().report as { store: Record<string, unknown> };
    const { zoneSectors, ...counts } = store.zones as Record<string, number>;
    assertEquals(store.kind, "zoned memory");
    assertEquals([zoneSectors, counts.conventional, counts.empty], [2048, 1, 8]);
    assertEquals(counts.implicitlyOpen, 1);
    assertEquals((await disk.discard(0, 8)).status, UNSUPP);
  }));

Deno.test("a zoned disk answers with the statuses of zones", () =>
  withDisk({ size: MIB, zoned: "host-managed,size=128K,open=1,active=2" }, async (it) => {
    const { disk, server } = it;
    assertEquals((await disk.write(256, sectors(4, 1))).status, OK);
    assertEquals((await disk.write(256, sectors(4, 2))).status, ZONE_UNALIGNED_WP);
    assertEquals((await disk.write(500, sectors(20, 2))).status, ZONE_INVALID_CMD);
    assertEquals((await disk.read(500, 20 * 512)).status, ZONE_INVALID_CMD);
    const appended = await disk.zoneAppend(256, sectors(8, 3));
    assertEquals([appended.status, appended.sector, appended.written], [OK, 260, 9]);
    assertEquals((await disk.zoneAppend(257, sectors(8, 3))).status, ZONE_INVALID_CMD);
    assertEquals((await disk.manageZone("OPEN", 512)).status, OK);
    assertEquals((await disk.write(268, sectors(1, 1))).status, ZONE_OPEN_RESOURCE);
    assertEquals((await disk.manageZone("OPEN", 768)).status, ZONE_ACTIVE_RESOURCE);
    assertEquals((await disk.manageZone("FINISH", 512)).status, OK);
    assertEquals((await disk.manageZone("CLOSE", 512)).status, ZONE_INVALID_CMD);
    assertEquals((await disk.read(256, 16 * 512)).data, joined([4, 1], [8, 3], [4, 0]));
    assertEquals((await disk.manageZone("RESET", 256)).status, OK);
    assertEquals((await disk.read(256, 16 * 512)).data, sectors(16, 0));
    assertEquals((await disk.manageZone("RESET_ALL")).status, OK);
    // No room for append_sector, for the report's header; no whole sector
    assertEquals((await disk.request(blkHeader(15, 0), [sectors(1, 1)], [7])).status, IOERR);
    assertEquals((await disk.request(blkHeader(16, 0), [], [63])).status, ZONE_INVALID_CMD);
    assertEquals((await disk.zoneAppend(0, new Uint8Array(100))).status, IOERR);
    assertEquals((await disk.request(blkHeader(17, 0), [], [])).status, UNSUPP);
    assertEquals((await disk.reportZones(0, 20)).zones.map(({ state }) => state), Array(8).fill(1));
    const { requests, statuses } = server.record().report as Record<
      "requests" | "statuses",
      Record<string, number>
    >;
    assertEquals([requests.ZONE_APPEND, requests.ZONE_RESET_ALL, requests.ZONE_OPEN], [4, 1, 2]);
    assertEquals([statuses.ZONE_UNALIGNED_WP, statuses.ZONE_ACTIVE_RESOURCE], [1, 1]);
  }));

function joined(...runs: [count: number, value: number][]): Uint8Array {
  return Uint8Array.from(runs.flatMap(([count, value]) => [...sectors(count, value)]));
}

Deno.test("appends from all queues together fill zones without a gap, and each says where it is", async () => {
  const seed = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);
  const random = new Random(seed);
  await withDisk(
    { size: 4 * MIB, zoned: "host-managed,size=1M,capacity=900K", numQueues: 4 },
    async ({ disk, driver }) => {
      const model = new Uint8Array(4 * MIB);
      const taken = new Map<number, number>();
      let refused = 0;
      for (let round = 0; round < 30; round++) {
        await Promise.all(Array.from({ length: 32 }, async (_, i) => {
          const zone = random.below(4) * 2048;
          const count = random.between(1, 16);
          const data = sectors(count, (round * 32 + i) % 255 + 1);
          const options = { queue: i % 4, parts: [data.length] };
          const { status, sector } = await disk.zoneAppend(zone, data, options);
          if (status !== OK) {
            assertEquals(status, ZONE_INVALID_CMD, `SEED=${seed}`);
            refused++;
            return;
          }
          assert(sector >= zone && sector + count <= zone + 1800, `SEED=${seed}`);
          model.set(data, sector * 512);
          taken.set(zone, (taken.get(zone) ?? 0) + count);
        }));
        if (round % 10 === 5) {
          const zone = random.below(4) * 2048;
          assertEquals((await disk.manageZone("RESET", zone, { queue: 1 })).status, OK);
          model.fill(0, zone * 512, zone * 512 + MIB);
          taken.delete(zone);
        }
      }
      assert(refused > 0, `SEED=${seed}: no zone became full`);
      for (const { start, writePointer, state } of (await disk.reportZones(0, 4)).zones) {
        const written = state === 14 ? 1800 : writePointer - start;
        assertEquals(written, taken.get(start) ?? 0, `SEED=${seed}`);
        assertEquals(
          (await disk.read(start, MIB)).data,
          model.subarray(start * 512, start * 512 + MIB),
        );
      }
      // Zones stay over a driver's reset
      const { zones } = await disk.reportZones(0, 4);
      await driver.reset();
      await driver.restart();
      assertEquals((await disk.reportZones(0, 4)).zones, zones);
    },
    { queues: 4 },
  );
});

Deno.test("a driver that does not know zones cannot use a zoned disk, and a line says why", () =>
  withDisk({ size: MIB, zoned: "host-managed" }, async ({ disk, server, line }) => {
    for (const { status } of [await disk.read(0, 512), await disk.write(0, sectors(1, 1))]) {
      assertEquals(status, IOERR);
    }
    assertEquals((await disk.manageZone("RESET_ALL")).status, IOERR);
    assertMatch(await line, /the driver does not know zones.*vhost-user-test-device/);
    const { failures } = server.record().report as { failures: { error: string }[] };
    assertEquals(failures[0].error, "not zoned");
  }, { features: VERSION_1 }));

Deno.test("a disk without zones refuses requests about them", () =>
  withDisk({ size: MIB }, async ({ disk }) => {
    assertEquals((await disk.zoneAppend(0, sectors(1, 1))).status, UNSUPP);
    assertEquals((await disk.reportZones(0, 1)).status, UNSUPP);
    for (const operation of ["OPEN", "CLOSE", "FINISH", "RESET", "RESET_ALL"] as const) {
      assertEquals((await disk.manageZone(operation)).status, UNSUPP);
    }
  }));

Deno.test("a read-only zoned disk reports, and refuses what changes zones", () =>
  withDisk({ size: MIB, zoned: "host-managed", readOnly: true }, async ({ disk }) => {
    assertEquals((await disk.reportZones(0, 1)).zones.length, 1);
    assertEquals((await disk.zoneAppend(0, sectors(1, 1))).status, IOERR);
    assertEquals((await disk.manageZone("OPEN")).status, IOERR);
    assertEquals((await disk.read(0, 512)).status, OK);
  }));

Deno.test("a zoned disk of nothing has zones too, and long appends are limited", () =>
  withDisk({ size: 64 * MIB, null: true, zoned: "host-managed,size=32M" }, async (it) => {
    const { disk, driver } = it;
    assertEquals(await driver.config.u32(ZONED_OFFSET + 12), 16_384);
    assertEquals((await disk.zoneAppend(0, new Uint8Array(8 * MIB))).sector, 0);
    assertEquals((await disk.zoneAppend(0, new Uint8Array(8 * MIB))).sector, 16_384);
    const { status } = await disk.zoneAppend(0, new Uint8Array(8 * MIB + 512));
    assertEquals(status, ZONE_INVALID_CMD);
    assertEquals((await disk.write(32_768, new Uint8Array(12 * MIB))).status, OK);
    assertEquals((await disk.manageZone("RESET")).status, OK);
  }));

Deno.test("vhostd blk explains what is wrong with zones", async () => {
  for (
    const [args, message] of [
      [["--size=1M", "--zoned=host-aware"], "--zoned takes host-managed[,NAME=VALUE…]"],
      [["--size=1M", "--zoned=host-managed,size=3K"], "--zoned: size takes 4096 to"],
      [["--blk-file=a.img", "--zoned=host-managed"], "--zoned has no effect without --size"],
    ] as const
  ) {
    const { status, stderr } = await runCli(["blk", "--socket-path=/tmp/none.sock", ...args]);
    assertStringIncludes(stderr, message);
    assertEquals(stderr.trimEnd().split("\n").length, 1, stderr);
    assert(status !== 0);
  }
});

Deno.test("a zoned disk keeps its size", () =>
  withDisk({ size: 64 * KIB, zoned: "host-managed" }, async ({ server }) => {
    const { resize } = server.host.control.commands!;
    await assertRejects(
      async () => await resize.run({ size: MIB }),
      TypeError,
      "the zoned memory has its own",
    );
  }));
