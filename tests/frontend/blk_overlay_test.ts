import { assert, assertEquals, assertRejects } from "@std/assert";
import { equals } from "@std/bytes";
import blk from "../../backends/blk/mod.ts";
import { type BlkOptions, blkOptions } from "../../backends/blk/options.ts";
import { readHeader } from "../../backends/blk/overlay/delta_file.ts";
import { SESSION_OFFSET } from "../../backends/blk/overlay/format.ts";
import { takeSnapshot } from "../../backends/blk/overlay/snapshot.ts";
import type { AnyOpenStore, Store } from "../../backends/blk/store.ts";
import { serve } from "../../mod.ts";
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { defaultOptions } from "../../src/virtio/mod.ts";
import { Random } from "../../tools/lib/random.ts";
import { smallTmpfs } from "./lib/block_devices.ts";
import { CliProcess } from "./lib/cli_process.ts";
import { attachDisk, openDisk } from "./lib/overlay_disk.ts";
import { type SectorDisk, SectorLoad, sectorOf, untouched } from "./lib/sector_load.ts";
import { diskBytes, VerifiedLoad } from "./lib/verified_load.ts";

/** Not a multiple of a block, so that the last one is cut off. */
const SECTORS = 2045;

/** How often each overlay is killed. */
const KILLS = Number(Deno.env.get("VHOSTD_TEST_KILLS") ?? 3);

const MODULE = new URL("lib/patterned_store.ts", import.meta.url).pathname;

/** Runs a randomised test in a folder with a base, and names its seed if it fails. */
async function withBase(
  test: (folder: { base: string; overlay: string; random: Random }) => Promise<void>,
): Promise<void> {
  const seed = Number(Deno.env.get("VHOSTD_TEST_SEED") ?? Math.trunc(Math.random() * 2 ** 32));
  const directory = Deno.makeTempDirSync();
  const base = `${directory}/base.img`;
  Deno.writeFileSync(base, untouched(SECTORS));
  try {
    await test({ base, overlay: `${directory}/overlay.img`, random: new Random(seed) });
    assertEquals(Deno.readFileSync(base), untouched(SECTORS));
  } catch (cause) {
    throw new Error(`With VHOSTD_TEST_SEED=${seed}`, { cause });
  } finally {
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  }
}

async function close(open: AnyOpenStore): Promise<void> {
  await using _ = open;
}

for (const kind of ["file", "now", "promise", "later"]) {
  Deno.test(`an overlay keeps what two threads write, part of a block by part (${kind})`, () =>
    withBase(async ({ base, overlay, random }) => {
      const below = kind === "file"
        ? { blkFile: base }
        : { blkFile: MODULE, storeOptions: `manner=${kind},sectors=${SECTORS}` };
      const load = new SectorLoad(random, { sectors: SECTORS, lanes: 24 });
      let allocated: unknown = 0;
      for (let round = 0; round < 3; round++) {
        await using open = await openDisk({ overlay, ...below });
        // What the threads counted is what the file has
        assertEquals(open.describe().allocatedBytes, allocated);
        const disks = [await attachDisk(open), await attachDisk(open)];
        load.start(disks);
        await load.requests(400);
        await load.stop();
        for (const disk of disks) await load.verify(disk);
        allocated = open.describe().allocatedBytes;
      }
    }));
}

Deno.test("an overlay reads whole blocks of its base, also those that it has a part of", () =>
  withBase(async ({ overlay }) => {
    const storeOptions = "block=32768,sectors=128";
    await using open = await openDisk({ overlay, blkFile: MODULE, storeOptions });
    const disk = await attachDisk(open);
    // As a rebase leaves them: at the beginning, inside, and at the end of a block of the base
    for (const sector of [0, 24, 56, 72]) await disk.write(sector, new Uint8Array(4096).fill(9));
    const expected = untouched(128);
    for (const sector of [0, 24, 56, 72]) expected.fill(9, sector * 512, sector * 512 + 4096);
    for (const sector of [0, 64]) {
      assertEquals(
        await disk.read(sector, 64),
        expected.subarray(sector * 512, (sector + 64) * 512),
      );
    }
  }));

Deno.test("an overlay lies on an overlay, and both on the base", () =>
  withBase(async ({ base, overlay, random }) => {
    const load = new SectorLoad(random, { sectors: SECTORS, lanes: 24 });
    let name = base;
    for (let depth = 0; depth < 4; depth++) {
      const path = `${overlay}.${depth}`;
      const format = depth > 0 ? "overlay" : undefined;
      await using open = await openDisk({ overlay: path, blkFile: name, format });
      const disks = [await attachDisk(open), await attachDisk(open)];
      load.start(disks);
      await load.requests(200);
      await load.stop();
      await load.verify(disks[1]);
      name = path;
    }
    await using open = await openDisk({ overlay: name, readOnly: true });
    await load.verify(await attachDisk(open));
  }));

Deno.test("a guest that writes an overlay to its raw disk gets no base that it names", () =>
  withBase(async ({ base: secret, overlay, random }) => {
    const disk = `${overlay}.raw`, above = `${overlay}.above`;
    await close(await openDisk({ overlay: disk, blkFile: secret })); // as the guest writes it
    const raw = Deno.readFileSync(disk).subarray(0, 512);
    await assertRejects(() => openDisk({ blkFile: disk }), Error, "if you made it by --overlay");
    const both = { overlay: above, blkFile: disk };
    await assertRejects(() => openDisk(both), Error, "lay another overlay on it by --format=over");
    await assertRejects(() => Deno.stat(above), Deno.errors.NotFound);
    await close(await openDisk({ ...both, format: "raw" }));
    for (const options of [both, { overlay: above }]) {
      await using open = await openDisk(options);
      assertEquals(await (await attachDisk(open)).read(0, 1), raw);
    }
    // The person's own word
    await using open = await openDisk({ ...both, overlay: `${above}.2`, format: "overlay" });
    const sector = random.below(SECTORS);
    assertEquals(await (await attachDisk(open)).read(sector, 1), sectorOf(sector, 0));
  }));

Deno.test("a raw base that begins like an overlay stays raw when the host resizes it", () =>
  withBase(async ({ base: secret, overlay: above }) => {
    const disk = `${above}.raw`;
    await close(await openDisk({ overlay: disk, blkFile: secret })); // as the guest writes it
    const { size } = Deno.statSync(disk);
    const resize = (bytes: number) => {
      Deno.truncateSync(disk, bytes);
      Deno.utimeSync(disk, 1, 1);
    };
    resize(SECTORS * 512);
    await close(await openDisk({ overlay: above, blkFile: disk, format: "raw" }));
    resize(size); // to that of the overlay that it looks like
    await assertRejects(
      () => openDisk({ overlay: above }),
      Error,
      `with which it would be a mix; restore its base`,
    );
  }));

Deno.test("an overlay keeps what its base is, and takes no other word of it", () =>
  withBase(async ({ base, overlay }) => {
    const above = `${overlay}.above`;
    await close(await openDisk({ overlay, blkFile: base }));
    await close(await openDisk({ overlay: above, blkFile: overlay, format: "overlay" }));
    for (const [path, is, other] of [[above, "overlay", "raw"], [overlay, "raw", "overlay"]]) {
      const { name, format } = readHeader(path).base;
      assertEquals(format, is);
      await close(await openDisk({ overlay: path, blkFile: name, format: is as "raw" }));
      await assertRejects(
        () => openDisk({ overlay: path, blkFile: name, format: other as "raw" }),
        Error,
        `it was made with --format=${is}, got --format=${other}; leave that out`,
      );
    }
  }));

Deno.test("an overlay that lost power has what was flushed, or what was written since", () =>
  withBase(async ({ base, overlay, random }) => {
    const load = new SectorLoad(random, { sectors: SECTORS, lanes: 24 });
    for (let round = 0; round < 8; round++) {
      const open = await openDisk({ overlay, blkFile: base });
      let durable = Deno.readFileSync(overlay);
      // A medium with a cache: what is in it is durable after a flush.
      const withCache = (store: Store): Store => {
        const { flush } = store;
        store.flush = function (request) {
          const result = flush.call(this, request);
          durable = Deno.readFileSync(overlay);
          return result;
        };
        return store;
      };
      const disks = [
        await attachDisk(open, withCache),
        await attachDisk(open, withCache),
      ];
      await load.verifyFlushed(disks[0]);
      load.start(disks);
      await load.requests(random.between(1, 200));
      await load.stop();
      // Any sector that was written since may be durable too.
      const written = Deno.readFileSync(overlay);
      const share = random.below(5);
      for (let at = 0; at < written.length; at += 512) {
        if (random.chance(share, 4)) durable.set(written.subarray(at, at + 512), at);
      }
      await close(open);
      // Of another boot.
      durable.fill(0, SESSION_OFFSET, SESSION_OFFSET + 512);
      Deno.writeFileSync(overlay, durable);
    }
    await using open = await openDisk({ overlay, blkFile: base });
    await load.verifyFlushed(await attachDisk(open));
  }));

Deno.test("an overlay on a full file system fails writes, and loses none that succeeded", () =>
  withBase(async ({ base, random }) => {
    using small = smallTmpfs("256k");
    const overlay = `${small.path}/overlay.img`;
    /** The versions that a sector may have. */
    const versions = Array.from({ length: SECTORS }, () => [0]);
    const verify = async (disk: SectorDisk) => {
      for (const [sector, allowed] of versions.entries()) {
        const data = await disk.read(sector, 1);
        const found = allowed.find((version) => equals(data, sectorOf(sector, version)));
        assert(found !== undefined, `sector ${sector} has none of the versions ${allowed}`);
      }
    };
    {
      await using open = await openDisk({ overlay, blkFile: base });
      using disk = await attachDisk(open);
      let refused = 0;
      for (let version = 1; version <= 300; version++) {
        const count = random.between(1, 24), first = random.below(SECTORS - count);
        const data = new Uint8Array(count * 512);
        for (let i = 0; i < count; i++) data.set(sectorOf(first + i, version), i * 512);
        const isWritten = await disk.write(first, data).then(() => true, () => false);
        if (!isWritten) refused++;
        for (let i = first; i < first + count; i++) {
          versions[i] = isWritten ? [version] : [...versions[i], version];
        }
      }
      assert(refused > 0 && refused < 300);
      await verify(disk);
      await disk.flush();
    }
    {
      await using open = await openDisk({ overlay });
      using disk = await attachDisk(open);
      await verify(disk);
    }
    await watchesEnded();
  }));

Deno.test("an overlay grows, with zeroes behind its base, and does not shrink", () =>
  withBase(async ({ base, overlay }) => {
    // The maps of the first size have room for 128 MiB
    const grown = 2 ** 28 / 512 + 5;
    {
      await using open = await openDisk({ overlay, blkFile: base });
      using disk = await attachDisk(open);
      await disk.write(SECTORS - 1, sectorOf(SECTORS - 1, 1));
      await open.resize!(grown * 512);
      assertEquals(open.bytes(), grown * 512);
      assertEquals(await disk.read(SECTORS, 64), new Uint8Array(64 * 512));
      await disk.write(grown - 1, sectorOf(grown - 1, 1));
      await disk.flush();
      await assertRejects(async () => await open.resize!(grown * 512 - 512), TypeError, "shrink");
      await assertRejects(async () => await open.resize!(2 ** 37), TypeError, "grows that far");
    }
    await using open = await openDisk({ overlay });
    assertEquals(open.bytes(), grown * 512);
    const disk = await attachDisk(open);
    for (const sector of [SECTORS - 1, grown - 1]) {
      assertEquals(await disk.read(sector, 1), sectorOf(sector, 1));
    }
    assertEquals(await disk.read(0, 1), sectorOf(0, 0));
    assertEquals(await disk.read(SECTORS, 3), new Uint8Array(3 * 512));
    assertEquals(await disk.read(grown - 9, 8), new Uint8Array(8 * 512));
  }));

Deno.test("an overlay knows a module by any path of it", () =>
  withBase(async ({ overlay }) => {
    const relative = MODULE.replace(`${Deno.cwd()}/`, "");
    assertEquals(relative[0], "t");
    for (const blkFile of [relative, `./${relative}`, MODULE]) {
      await close(await openDisk({ overlay, blkFile, storeOptions: `sectors=${SECTORS}` }));
      assertEquals(readHeader(overlay).base.name, MODULE);
    }
  }));

Deno.test("an overlay refuses a base that has changed", () =>
  withBase(async ({ base, overlay }) => {
    await close(await openDisk({ overlay, blkFile: base }));
    await close(await openDisk({ overlay }));
    Deno.utimeSync(base, 1, 1);
    await assertRejects(() => openDisk({ overlay }), Error, "restore its base, or if that has");
  }));

Deno.test("an overlay is not made on a base whose name it cannot note", () =>
  withBase(async ({ base, overlay }) => {
    const named = `${base}\n`;
    Deno.renameSync(base, named);
    await assertRejects(
      () => openDisk({ overlay, blkFile: named }),
      RangeError,
      "is text without control characters, got ",
    );
    await assertRejects(() => Deno.stat(overlay), Deno.errors.NotFound);
    Deno.renameSync(named, base);
  }));

/** The disk as a driver has it, by one of its queues. */
function driverDisk(driver: VirtioDriver, queue: number): SectorDisk {
  const disk = new BlkDriver(driver);
  const options = { queue, timeoutMs: 120_000 };
  const done = async (result: Promise<{ status: number }>) =>
    assertEquals((await result).status, blkStatus.OK);
  return {
    async read(sector, count) {
      const { status, data } = await disk.read(sector, count * 512, options);
      assertEquals(status, blkStatus.OK);
      return data;
    },
    write: (sector, data) =>
      done(disk.write(sector, data, { ...options, parts: [100, data.length - 100] })),
    writeZeroes: (sector, count, unmap) =>
      done(disk.writeZeroes(sector, count, { ...options, unmap })),
    discard: (sector, count) => done(disk.discard(sector, count, options)),
    flush: () => done(disk.flush(options)),
  };
}

for (const flags of [[], ["--cache=none", "--io=uring"]]) {
  Deno.test(`kill -9 at any moment loses nothing of an overlay (${flags})`, () =>
    withBase(async ({ base, overlay, random }) => {
      const socketPath = `${overlay}.sock`;
      const vhostd = () =>
        new CliProcess([
          ...["blk", `--overlay=${overlay}`, base, `--socket-path=${socketPath}`],
          ...["--num-queues=2", "--threads=2", ...flags],
        ]);
      let process = vhostd();
      try {
        await process.until("listens on");
        await using driver = await VirtioDriver.start(socketPath, {
          ...{ queues: [64, 64], timeoutMs: 120_000, inflight: true },
        });
        const disks = [driverDisk(driver, 0), driverDisk(driver, 1)];
        const load = new SectorLoad(random, { sectors: SECTORS, lanes: 24 });
        load.start(disks);
        for (let kill = 0; kill < KILLS; kill++) {
          await load.requests(random.between(1, 300));
          const resume = load.pause();
          await process[Symbol.asyncDispose]();
          process = vhostd();
          await process.until("listens on");
          await driver.reconnect();
          resume();
        }
        await load.requests(50);
        await load.stop();
        await load.verify(disks[0]);
        await driver.close();
        await process.stop();
        await using open = await openDisk({ overlay });
        await load.verify(await attachDisk(open));
      } finally {
        await process[Symbol.asyncDispose]();
      }
    }));
}

Deno.test("a snapshot under load is consistent, and the disk goes on in the overlay", () =>
  withBase(async ({ overlay, random }) => {
    const shape = { queues: 2, lanes: 8 };
    const directory = overlay.slice(0, overlay.lastIndexOf("/"));
    const blkFile = `${directory}/disk.img`, socketPath = `${directory}/blk.sock`;
    Deno.writeFileSync(blkFile, new Uint8Array());
    Deno.truncateSync(blkFile, diskBytes(shape));
    const name = (i: number) => `${overlay}.${i}`;
    let contents;
    {
      await using server = await serve(blk, {
        ...{ socketPath, threads: 2, options: { blkFile, numQueues: 2 }, log() {} },
      });
      const snapshot = (path: string) =>
        server.host.control.commands!.snapshot.run({ overlay: path }) as Promise<unknown>;
      await using driver = await VirtioDriver.start(socketPath, {
        ...{ queues: [64, 64], timeoutMs: 60_000 },
      });
      const load = new VerifiedLoad(driver, shape);
      for (let i = 0; i < 3; i++) {
        await load.progress(random.between(1, 200));
        const below = i === 0 ? blkFile : name(i - 1);
        await snapshot(name(i));
        const frozen = Deno.statSync(below).mtime;
        await load.progress(200);
        assertEquals(Deno.statSync(below).mtime, frozen);
        // What fails leaves all as it was.
        await assertRejects(() => snapshot(name(i)), Error, "a path where nothing is yet");
        await assertRejects(() => snapshot(`${directory}/none/x`), Error, "ENOENT");
        await assertRejects(() => snapshot(""), TypeError, 'Expected {"overlay": "PATH"}');
        await assertRejects(() => snapshot(`${directory}/\n`), TypeError, "control characters");
      }
      await load.progress(100);
      await load.end();
      contents = load.contents();
      await driver.close();
    }
    await using open = await openDisk({ overlay: name(2) });
    const disk = await attachDisk(open);
    for (let at = 0; at < contents.length; at += 4096) {
      assertEquals(await disk.read(at / 512, 8), contents.subarray(at, at + 4096));
    }
  }));

Deno.test("a snapshot stays where a thread is late to lay it", () =>
  withBase(async ({ overlay }) => {
    const blkFile = `${overlay}.disk`;
    Deno.writeFileSync(blkFile, untouched(SECTORS));
    await using store = await openDisk({ blkFile });
    const options = { ...defaultOptions(blkOptions), blkFile, io: "sync" } as BlkOptions;
    const late = ["lay", "resume"];
    await using made = await takeSnapshot({
      ...{ store, name: blkFile, options, log() {}, hasLost: () => false },
      fence: () => Promise.resolve(),
      post: (message) =>
        late.includes(Object(message).snapshot)
          ? Promise.reject(new Error("Expected an answer within 30 s, got none"))
          : Promise.resolve(),
    }, overlay);
    // Its file is open, and at its place
    const disk = await attachDisk(made);
    await disk.write(3, sectorOf(3, 1));
    await disk.flush();
    assertEquals(readHeader(overlay).base.name, blkFile);
  }));

Deno.test("a snapshot of a disk by promises, with faults: they are the whole disk's before and after", () =>
  withBase(async ({ overlay }) => {
    const directory = overlay.slice(0, overlay.lastIndexOf("/"));
    const socketPath = `${directory}/blk.sock`;
    const blkFile = new URL("lib/keeping_store.ts", import.meta.url).pathname;
    await using server = await serve(blk, {
      ...{ socketPath, options: { blkFile, faults: "none" }, log() {} },
    });
    const { snapshot, faults } = server.host.control.commands!;
    await using driver = await VirtioDriver.start(socketPath, { queues: [64], timeoutMs: 60_000 });
    const disk = new BlkDriver(driver);
    const written = (sector: number) => disk.write(sector, sectorOf(sector, 1));
    assertEquals((await written(1)).status, blkStatus.OK);
    await faults.run({ faults: "error=write" });
    assertEquals((await written(2)).status, blkStatus.IOERR);
    await snapshot.run({ overlay });
    assertEquals((await written(2)).status, blkStatus.IOERR);
    await faults.run({});
    assertEquals((await written(2)).status, blkStatus.OK);
    await faults.run({ faults: "delay=read:20ms" });
    for (const sector of [1, 2]) {
      const { status, data } = await disk.read(sector, 512);
      assertEquals([status, data], [blkStatus.OK, sectorOf(sector, 1)]);
    }
    assertEquals((await disk.flush()).status, blkStatus.OK);
    await driver.close();
  }));
