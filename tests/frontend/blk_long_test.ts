/** Long requests: other queues continue, and a stop waits for one of them. */
import { assertEquals, assertLess } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import { BlkDriver, blkHeader, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { fileBytes, watchesEnded } from "../../src/linux/mod.ts";
import { Random } from "../../tools/lib/random.ts";

const { OK, IOERR } = blkStatus;
const MIB = 2 ** 20;
const DISCARD = 11, WRITE_ZEROES = 13;

interface Disk {
  server: DeviceServer;
  driver: VirtioDriver;
  disk: BlkDriver;
  /** The size of the store, in bytes. */
  bytes(): number;
}

/** Runs a test with a disk of two queues. */
async function withDisk(
  options: Record<string, unknown>,
  threads: number,
  test: (disk: Disk) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  try {
    {
      const socketPath = `${directory}/blk.sock`;
      await using server = await serve(blk, {
        socketPath,
        threads,
        options: { numQueues: 2, ...options },
      });
      await using driver = await VirtioDriver.start(socketPath, { queues: 2, timeoutMs: 60_000 });
      const { store } = server.host.control.shared as { store: { fd: number } };
      await test({
        server,
        driver,
        disk: new BlkDriver(driver),
        bytes: () => fileBytes(store.fd),
      });
    }
    await watchesEnded();
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Runs a test with a sparse file in a directory. */
async function withFile(
  dir: string | undefined,
  bytes: number,
  test: (blkFile: string) => Promise<void>,
): Promise<void> {
  const path = Deno.makeTempFileSync({ dir, suffix: ".img" });
  try {
    Deno.truncateSync(path, bytes);
    await test(path);
  } finally {
    Deno.removeSync(path);
  }
}

const stores: [name: string, dir: string | undefined, options: Record<string, unknown>][] = [
  ["memory", undefined, {}],
  ["a mapped file", "/dev/shm", {}],
  ["a file", undefined, {}],
  ["a file by io_uring", undefined, { io: "uring" }],
  ["a file by system calls", undefined, { io: "sync" }],
  ["a file past the page cache", undefined, { cache: "none" }],
];

for (const [name, dir, options] of stores) {
  const isMemory = name === "memory";
  const withStore = (bytes: number, threads: number, test: (disk: Disk) => Promise<void>) =>
    isMemory
      ? withDisk({ size: bytes }, threads, test)
      : withFile(dir, bytes, (blkFile) => withDisk({ blkFile, ...options }, threads, test));

  Deno.test(`No write ends beyond the new size of ${name} that shrinks`, () =>
    withStore(8 * MIB, 2, async ({ server, disk, bytes }) => {
      const seed = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);
      const random = new Random(seed);
      const { resize } = server.host.control.commands!;
      let isOver = false;
      const statuses = new Set<number>();
      const load = Array.from({ length: 16 }, async (_, i) => {
        const data = new Uint8Array(65_536).fill(i);
        while (!isOver) {
          const sector = random.below(8 * MIB / 512 - 128);
          const queue = i % 2;
          const { status } = i % 5 === 0
            ? await disk.writeZeroes(sector, 128, { queue })
            : await disk.write(sector, data, { queue });
          statuses.add(status);
        }
      });
      try {
        for (const size of [4 * MIB, MIB + 512, 8 * MIB, 2 * MIB]) {
          await resize.run({ size });
          assertEquals(bytes(), size, `SEED=${seed}`);
          for (let i = 0; i < 20; i++) await disk.read(0, 512, { queue: i % 2 });
          assertEquals(bytes(), size, `SEED=${seed}`);
          assertEquals(await disk.capacitySectors(), size / 512);
        }
      } finally {
        isOver = true;
        await Promise.all(load);
      }
      assertEquals([...statuses].sort(), [OK, IOERR]);
    }));

  for (const type of [WRITE_ZEROES, DISCARD]) {
    const what = type === DISCARD ? "discards" : "write zeroes";
    // Discards of holes are fast: fill the file first.
    Deno.test(`Long ${what} of ${name} do not block other queues, and a stop waits for one of them`, () =>
      withStore(64 * MIB, 1, async ({ server, driver, disk }) => {
        // A file system notes zeroes quickly
        const segments = name.startsWith("a file") ? 64 : 16;
        const table = new DataView(new ArrayBuffer(16 * segments));
        for (let i = 0; i < segments; i++) table.setUint32(16 * i + 8, 64 * MIB / 512, true);
        const done = () =>
          (server.record().report as { requests: Record<string, number> }).requests;
        const all: Promise<{ status: number } | undefined>[] = [];
        for (let requests = 32;; requests *= 2) {
          for (let i = 0; i < requests; i++) {
            all.push(
              disk.request(blkHeader(type, 0), [new Uint8Array(table.buffer)], [])
                .catch(() => undefined),
            );
          }
          assertEquals((await disk.read(0, 512, { queue: 1 })).status, OK);
          await driver.stop();
          // Only requests that were taken are completed, one long one at a time.
          const isAheadOfAll = type === DISCARD || done().WRITE_ZEROES < all.length;
          await driver.restart();
          if (isAheadOfAll) break;
          // On a busy machine the stop may come after them.
          assertLess(requests, 4096);
        }
        if (type === DISCARD) {
          for (const result of await Promise.all(all)) assertEquals(result?.status, OK);
        }
        await driver.close();
        await Promise.all(all);
      }));
  }
}
