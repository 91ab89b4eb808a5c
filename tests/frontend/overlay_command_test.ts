/** What `vhostd overlay` does with the files of overlays. */
import { crc32 } from "node:zlib";
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import command from "../../backends/blk/overlay/command.ts";
import { loadMap, readHeader, writeHeader } from "../../backends/blk/overlay/delta_file.ts";
import { HEADER_BYTES, layoutOf } from "../../backends/blk/overlay/format.ts";
import { openFile } from "../../src/linux/mod.ts";
import { Random } from "../../tools/lib/random.ts";
import { smallTmpfs } from "./lib/block_devices.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { attachDisk, openDisk } from "./lib/overlay_disk.ts";
import { SectorLoad, untouched } from "./lib/sector_load.ts";

const SECTORS = 2045;

/** How often a commit is killed. */
const KILLS = Number(Deno.env.get("VHOSTD_TEST_KILLS") ?? 3);

/** Runs a test with an overlay that was written, and its base. */
async function withOverlay(
  test: (
    files: { base: string; overlay: string; load: SectorLoad; random: Random },
  ) => Promise<void>,
  sectors = SECTORS,
): Promise<void> {
  const seed = Number(Deno.env.get("VHOSTD_TEST_SEED") ?? Math.trunc(Math.random() * 2 ** 32));
  const directory = Deno.makeTempDirSync();
  const base = `${directory}/base.img`, overlay = `${directory}/overlay.img`;
  Deno.writeFileSync(base, untouched(sectors));
  try {
    const random = new Random(seed);
    const load = new SectorLoad(random, { sectors, lanes: 8 });
    await write(load, { overlay, blkFile: base });
    await test({ base, overlay, load, random });
  } catch (cause) {
    throw new Error(`With VHOSTD_TEST_SEED=${seed}`, { cause });
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

async function write(load: SectorLoad, options: { overlay: string; blkFile?: string }) {
  await using open = await openDisk(options);
  load.start([await attachDisk(open)]);
  await load.requests(200);
  await load.stop();
}

async function verify(load: SectorLoad, overlay: string): Promise<void> {
  await using open = await openDisk({ overlay });
  await load.verify(await attachDisk(open));
}

Deno.test("overlay commit writes an overlay to its base and empties it, also when repeated", () =>
  withOverlay(async ({ base, overlay, load }) => {
    await command.run({}, ["commit", overlay]);
    await verify(load, overlay);
    {
      await using open = await openDisk({ overlay });
      assertEquals(open.describe().allocatedBytes, 0);
    }
    const committed = Deno.readFileSync(base);
    await command.run({}, ["commit", overlay]);
    assertEquals(Deno.readFileSync(base), committed);
  }));

Deno.test("an interrupted commit is repeated before the overlay is served", () =>
  withOverlay(async ({ base, overlay, load }) => {
    {
      // As it is left: the header says so, and a block that the overlay has is in the base.
      using file = openFile(overlay, { write: true });
      const header = readHeader(overlay, file.number);
      writeHeader(file.number, { ...header, sequence: 2, isCommitting: true });
      const map = loadMap(file.number, header, true);
      const block = map.live.find(true, 0, 255);
      const data = Deno.readFileSync(overlay).subarray(layoutOf(header.roomBytes).dataOffset);
      const image = Deno.readFileSync(base);
      image.set(
        data.subarray(block * 4096, Math.min(data.length, block * 4096 + 4096)),
        block * 4096,
      );
      Deno.writeFileSync(base, image);
    }
    await assertRejects(() => openDisk({ overlay }), Error, "end it: vhostd overlay commit");
    await command.run({}, ["commit", overlay]);
    await verify(load, overlay);
  }));

Deno.test("an overlay in which a guest wrote what other formats begin with is committed all the same", () =>
  withOverlay(async ({ base, overlay }) => {
    const sector = new Uint8Array(512);
    sector.set([0x51, 0x46, 0x49, 0xfb]);
    for (let round = 1; round < 3; round++) {
      {
        await using open = await openDisk({ overlay });
        using disk = await attachDisk(open);
        await disk.write(0, sector.fill(round, 100));
      }
      await command.run({}, ["commit", overlay]);
      assertEquals(Deno.readFileSync(base).subarray(0, 512), sector);
    }
    const other = `${base}.other`;
    Deno.copyFileSync(base, other);
    const args: ["rebase", string, string] = ["rebase", overlay, other];
    await assertRejects(() => command.run({}, args), Error, "add --format=raw");
    await command.run({ format: "raw" }, args);
    assertEquals(readHeader(overlay).base.name, other);
    await assertRejects(() => command.run({ format: "raw" }, ["info", overlay]), RangeError);
  }));

Deno.test("a commit to a full file system fails, and is repeated once there is room", async () => {
  using small = smallTmpfs("256k");
  const base = `${small.path}/base.img`, overlay = Deno.makeTempFileSync();
  Deno.removeSync(overlay);
  Deno.writeFileSync(base, new Uint8Array());
  Deno.truncateSync(base, 2 ** 20);
  const data = new Uint8Array(32_768).fill(7);
  {
    await using open = await openDisk({ overlay, blkFile: base });
    using disk = await attachDisk(open);
    for (let sector = 0; sector < 2048; sector += 64) await disk.write(sector, data);
  }
  const commit = () => command.run({}, ["commit", overlay]);
  await assertRejects(commit, Error, `ENOSPC; ${overlay} still has all of it: mend that, and`);
  new Deno.Command("mount", { args: ["-o", "remount,size=2m", small.path] }).outputSync();
  await commit();
  assertEquals(Deno.readFileSync(base).every((byte) => byte === 7), true);
  Deno.removeSync(overlay);
});

Deno.test("a commit that is killed is repeated, whatever it has done by then", () =>
  withOverlay(async ({ base, overlay, load, random }) => {
    for (let kill = 0; kill < KILLS; kill++) {
      // What it does to the base: it opens it for writing, then it writes
      let left = kill === 0 ? 1 : random.between(2, 50);
      using changes = Deno.watchFs(base);
      {
        await using commit = new CliProcess(["overlay", "commit", overlay]);
        const ended = commit.end().then(() => changes.close());
        for await (const { kind } of changes) {
          if (kind !== "modify" || --left > 0) continue;
          try {
            commit.kill("SIGKILL");
          } catch {
            // It has ended: this process was late.
          }
          break;
        }
        await ended;
      }
      await verify(load, overlay).catch((error) =>
        assertStringIncludes(error.message, "end it: vhostd overlay commit")
      );
      await command.run({}, ["commit", overlay]);
      await verify(load, overlay);
      await write(load, { overlay });
    }
  }, 20_000));

Deno.test("overlay rebase keeps the content of an overlay on another disk", () =>
  withOverlay(async ({ base, overlay, load }) => {
    const other = `${base}.other`;
    Deno.writeFileSync(other, new Uint8Array(SECTORS * 512 - 4096).fill(3));
    await command.run({}, ["rebase", overlay, other]);
    await verify(load, overlay);
    await assertRejects(() => command.run({}, ["commit", overlay]), Error, "behind the end of");
    await verify(load, overlay);
    await command.run({}, ["rebase", overlay, base]);
    await verify(load, overlay);
    const moved = `${base}.moved`;
    Deno.copyFileSync(base, moved);
    await command.run({ unsafe: true }, ["rebase", overlay, moved]);
    await verify(load, overlay);
  }));

Deno.test("overlay info shows nothing that a terminal would obey, or that reverses a name", async () => {
  const directory = Deno.makeTempDirSync();
  const base = `${directory}/\u009b2J\u202egnp.img`, overlay = `${directory}/overlay.img`;
  Deno.writeFileSync(base, new Uint8Array(4096));
  await (await openDisk({ overlay, blkFile: base }) as AsyncDisposable)[Symbol.asyncDispose]();
  const { stdout } = await runCli(["overlay", "info", overlay]);
  assertStringIncludes(stdout, `${directory}/\\x9b2J\\u{202e}gnp.img (raw, 4.0 KiB)`);
  const json = await runCli(["overlay", "info", "--json", overlay]);
  assertStringIncludes(json.stdout, "/\\u009b2J\\u202egnp.img");
  assertEquals(JSON.parse(json.stdout).base.name, base);
  const { stderr } = await runCli(["overlay", "commit", overlay]);
  assertStringIncludes(stderr, `is committed to ${directory}/\\x9b2J\\u{202e}gnp.img, and empty`);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("an overlay that is served from memory can be looked at, and is in use", async () => {
  const directory = Deno.makeTempDirSync({ dir: "/dev/shm" });
  const overlay = `${directory}/overlay.img`;
  Deno.writeFileSync(`${directory}/base.img`, new Uint8Array(4096));
  const blk = (name: string, ...args: string[]) => [
    ...["blk", `--socket-path=${directory}/${name}.sock`, `--overlay=${overlay}`, ...args],
  ];
  {
    await using cli = new CliProcess(blk("a", `${directory}/base.img`));
    await cli.until("listens on");
    const { stdout, stderr } = await runCli(["overlay", "info", overlay]);
    assertStringIncludes(stdout + stderr, "allocated  0 B");
    assertStringIncludes((await runCli(blk("b"))).stderr, "another program writes to it");
  }
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("vhostd overlay says in one line what is wrong", () =>
  withOverlay(async ({ base, overlay, load }) => {
    const torn = (name: string, change: (bytes: Uint8Array) => Uint8Array) => {
      const path = `${overlay}.${name}`;
      Deno.writeFileSync(path, change(Deno.readFileSync(overlay)));
      return path;
    };
    const at = (place: number) => (bytes: Uint8Array) => {
      bytes[place] ^= 255;
      return bytes;
    };
    const old = (bytes: Uint8Array) => {
      const view = new DataView(bytes.buffer);
      view.setUint32(8, 1, true);
      view.setUint32(HEADER_BYTES - 4, crc32(bytes.subarray(0, HEADER_BYTES - 4)), true);
      return bytes;
    };
    const cases: [args: string[], message: string, status: number][] = [
      [[], "Expected one of info, commit, rebase, got none", 2],
      [["mend", overlay], "Expected one of info, commit, rebase, got mend", 2],
      [["info"], "Expected one path after info, got 0", 2],
      [["rebase", overlay], "Expected two paths after rebase, got 1", 2],
      [["commit", overlay, "--json"], "Expected --json of info only", 2],
      [["info", `${base}.none`], "it does not exist", 1],
      [["info", base], "it is not an overlay", 1],
      [["info", torn("old", old)], "version 1, and this program reads version 2; commit it by", 1],
      [["info", torn("header", at(20))], "its header is damaged", 1],
      [["info", torn("short", (bytes) => bytes.subarray(0, 9000))], "it is cut off", 1],
      [["rebase", overlay, `${base}.none`], "it does not exist", 1],
      [["rebase", overlay, overlay], `Cannot lay ${overlay} on itself`, 1],
      [["rebase", overlay, `${base}.none`, "--format=overlay"], "it does not exist", 1],
    ];
    await Promise.all(cases.map(async ([args, message, status]) => {
      const result = await runCli(["overlay", ...args]);
      assertStringIncludes(result.stderr, message);
      assertEquals(result.stderr.trimEnd().split("\n").length, 1, result.stderr);
      assertEquals(result.status, status, result.stderr);
    }));
    await assertRejects(
      () => openDisk({ overlay, blkFile: overlay }),
      Error,
      `Cannot lay ${overlay} on itself`,
    );
    {
      await using _open = await openDisk({ overlay });
      const other = ["blk", "--socket-path=/none", `--overlay=${overlay}`];
      await Promise.all([["overlay", "commit", overlay], other].map(async (args) => {
        const { stderr, status } = await runCli(args);
        assertStringIncludes(stderr, "another program");
        assertEquals([status, stderr.trimEnd().split("\n").length], [1, 1], stderr);
      }));
    }
    {
      await using _other = await openDisk({ blkFile: base, readOnly: true });
      const { stderr, status } = await runCli(["overlay", "commit", overlay]);
      assertStringIncludes(stderr, `${base}: another program does not allow others to write`);
      assertEquals([status, stderr.trimEnd().split("\n").length], [1, 1], stderr);
    }
    const text = (await runCli(["overlay", "info", overlay])).stdout;
    assertStringIncludes(text, "disk       1022.5 KiB");
    assertStringIncludes(text, `base       ${base} (raw, 1022.5 KiB)`);
    await verify(load, overlay);
    const { stdout, status } = await runCli(["overlay", "info", overlay, "--json"]);
    const { diskBytes, base: { name, format } } = JSON.parse(stdout);
    assertEquals([status, diskBytes, name, format], [0, SECTORS * 512, base, "raw"]);
  }));
