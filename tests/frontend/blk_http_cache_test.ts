import { assert, assertEquals } from "@std/assert";
import { CHUNK_BYTES } from "../../backends/blk/http/cache_file.ts";
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { canMount, smallTmpfs } from "./lib/block_devices.ts";
import { CliProcess } from "./lib/cli_process.ts";
import { DiskServer } from "./lib/disk_server.ts";
import { HttpDisk, MIB, PATIENT } from "./lib/http_disk.ts";

const DISK_BYTES = 6 * MIB + 700;

/** A directory for the cache, which ends with the block. */
function cacheDirectory(): Disposable & { path: string; files(): Deno.FileInfo[] } {
  const path = Deno.makeTempDirSync();
  return {
    path,
    files: () => [...Deno.readDirSync(path)].map(({ name }) => Deno.statSync(`${path}/${name}`)),
    [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }),
  };
}

/** The chunks that were asked for, in order of their places, without the requests when it opened. */
function fetched({ ranges }: DiskServer): number[] {
  return ranges.map(({ from }) => from / CHUNK_BYTES).sort((a, b) => a - b);
}

const allChunks = Array.from({ length: Math.ceil(DISK_BYTES / CHUNK_BYTES) }, (_, i) => i);

Deno.test("a cached disk is not fetched again, except what a crash has torn", async () => {
  using cache = cacheDirectory();
  await using server = new DiskServer(DISK_BYTES);
  const chunks = async () => {
    await using disk = await HttpDisk.start(server, { cache: cache.path });
    await disk.expectAll();
    const { cached, of } = disk.report();
    assert(cached as number >= DISK_BYTES, `${cached} of ${of}`);
    return fetched(server);
  };
  assertEquals(await chunks(), allChunks);
  assertEquals(await chunks(), []);

  const [{ name }] = Deno.readDirSync(cache.path);
  assertEquals(name.startsWith("disk.raw."), true);
  assertEquals(Deno.statSync(`${cache.path}/${name}`).mode! & 0o777, 0o600);
  {
    using file = Deno.openSync(`${cache.path}/${name}`, { write: true });
    file.seekSync(2 * CHUNK_BYTES + 4096, Deno.SeekMode.Start);
    file.writeSync(Uint8Array.of(1, 2, 3)); // a part that was not written
    file.truncateSync(allChunks.length * CHUNK_BYTES + 8 * 8 + 4); // the map's end, torn in an entry
  }
  assertEquals(await chunks(), [2, ...allChunks.slice(8)]);
  assertEquals(await chunks(), []);

  server.etag = '"two"'; // of the same content here
  assertEquals(await chunks(), allChunks);
  assertEquals(cache.files().length, 2);
});

Deno.test("what is cached is read while the server is away", async () => {
  using cache = cacheDirectory();
  await using server = new DiskServer(DISK_BYTES);
  {
    await using disk = await HttpDisk.start(server, { cache: cache.path });
    await disk.expectRead(0, MIB);
  }
  await using disk = await HttpDisk.start(server, { cache: cache.path });
  await server.stop();
  let answered = 0;
  const waiting = Array.from(
    { length: 12 },
    (_, i) => disk.expectRead(3 * MIB + i * 65536 * 4, 4096).then(() => answered++),
  );
  await disk.expectRead(0, MIB);
  assertEquals(answered, 0);
  server.start();
  await Promise.all(waiting);
});

Deno.test("processes that share a cache fetch each chunk once", async () => {
  using cache = cacheDirectory();
  await using server = new DiskServer(DISK_BYTES);
  await using one = await HttpDisk.start(server, { cache: cache.path });
  await using other = await HttpDisk.start(server, { cache: cache.path });
  await Promise.all([one.expectAll(), other.expectAll()]);
  await Promise.all([one.expectAll(), other.expectAll()]);
  assertEquals(fetched(server), allChunks);
});

Deno.test("a cache keeps to its size: unused disks go first, then what was not used lately", async () => {
  using cache = cacheDirectory();
  const limit = 16 * MIB;
  await using server = new DiskServer(20 * MIB);
  const within = () => {
    const bytes = cache.files().reduce((sum, { blocks }) => sum + blocks! * 512, 0);
    assert(bytes <= limit, `${bytes} bytes in the cache`);
  };
  const options = { cache: cache.path, storeOptions: `${PATIENT},cache-size=16M` };
  {
    await using first = await HttpDisk.start(server, options);
    for (let at = 0; at < 8 * MIB; at += MIB) await first.expectRead(at, MIB);
  }
  server.etag = '"two"';
  await using second = await HttpDisk.start(server, options);
  for (let round = 0; round < 2; round++) {
    for (let at = 0; at < 20 * MIB; at += MIB) {
      await second.expectRead(at, MIB);
      await second.expectRead(0, 4096); // used all the time
      within();
    }
  }
  assertEquals(cache.files().length, 1);
  assertEquals(fetched(server).filter((chunk) => chunk === 0).length, 1);
});

Deno.test("without room for its cache, a disk is served without, and says so once", async () => {
  if (!canMount()) return;
  using small = smallTmpfs("2m");
  await using server = new DiskServer(DISK_BYTES);
  await using disk = await HttpDisk.start(server, { cache: small.path });
  await disk.expectAll();
  await disk.expectAll();
  await disk.line("The cache fails (ENOSPC)");
  assertEquals(disk.lines.length, 1);
});

/** `VHOSTD_KILLS=50` for as many. */
const kills = Number(Deno.env.get("VHOSTD_KILLS") ?? 2);

Deno.test(`a cache survives kill -9 at any moment (${kills} times)`, async () => {
  using cache = cacheDirectory();
  using sockets = cacheDirectory();
  await using server = new DiskServer(32 * MIB);
  const seed = Number(Deno.env.get("VHOSTD_SEED") ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`seed ${seed} (VHOSTD_SEED)`);
  let state = seed;
  const random = (below: number) => {
    state = Math.imul(state, 1103515245) + 12345 & 0x7fff_ffff;
    return Math.floor(state / 2 ** 31 * below);
  };
  // SECURITY.md, Permissions of Deno
  const permissions = [
    ...["--allow-ffi", `--allow-net=${new URL(server.url).host}`, `--allow-write=${cache.path}`],
    `--allow-read=${new URL("../../", import.meta.url).pathname},${cache.path}`,
  ];
  await using survivor = await HttpDisk.start(server, { cache: cache.path });
  for (let kill = 0; kill < kills; kill++) {
    const socketPath = `${sockets.path}/${kill}.sock`;
    await using process = new CliProcess([
      ...["blk", `--socket-path=${socketPath}`, "--num-queues=1", server.url],
      `--store-options=cache=${cache.path},${PATIENT}`,
    ], { permissions });
    await process.until("-device");
    await using connected = new AsyncDisposableStack();
    const disk = new BlkDriver(
      connected.use(await VirtioDriver.start(socketPath, { queues: [64] })),
    );
    let left = random(60);
    const lanes = Promise.allSettled(Array.from({ length: 8 }, async () => {
      for (;;) {
        const at = random(32 * MIB / 4096) * 4096;
        const { status, data } = await disk.read(at / 512, 4096);
        assertEquals([status, data], [blkStatus.OK, server.content.subarray(at, at + 4096)]);
        if (left-- === 0) process.kill("SIGKILL");
      }
    }));
    for (let i = 0; i < 4; i++) await survivor.expectRead(random(31) * MIB, MIB);
    await process.end();
    await connected.disposeAsync(); // and with it reads that were not answered
    await lanes;
    assert(left < 0, "reads failed before the process was killed");
  }
  await survivor.expectAll();
  await using disk = await HttpDisk.start(server, { cache: cache.path });
  await disk.expectAll();
  assert(server.ranges.length < 32 * MIB / CHUNK_BYTES, "nothing was in the cache");
});
