/** Every `--io` mode, checked against a copy in memory. */
import { assert, assertEquals } from "@std/assert";
import { equals } from "@std/bytes";
import blk from "../../backends/blk/mod.ts";
import { serve } from "../../mod.ts";
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";

const BLOCK_BYTES = 4096, BLOCKS = 512;
const SEED = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);

/** Random numbers below a limit, from a seed (mulberry32). */
function randomNumbers(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ state >>> 15, 1 | state);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) % limit;
  };
}

/** Runs a test with a disk on a file of random bytes. */
async function withFile(
  options: Record<string, unknown>,
  test: (disk: BlkDriver, path: string, content: Uint8Array<ArrayBuffer>) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/disk.img`;
  const content = new Uint8Array(BLOCKS * BLOCK_BYTES).map((_, i) => (i >> 12) * 7 + i);
  try {
    await Deno.writeFile(path, content);
    {
      const socketPath = `${directory}/blk.sock`;
      await using _server = await serve(blk, {
        socketPath,
        options: { blkFile: path, numQueues: 1, ...options },
      });
      await using driver = await VirtioDriver.start(socketPath, { queues: [1024] });
      await test(new BlkDriver(driver), path, content);
    }
    await watchesEnded();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Divides a number of bytes into up to five parts of random sizes. */
function divide(bytes: number, random: (limit: number) => number): number[] {
  const parts: number[] = [];
  for (let left = bytes; left > 0;) {
    const part = parts.length === 4 ? left : 1 + random(left);
    parts.push(part);
    left -= part;
  }
  return parts;
}

/** Drops clean pages from the page cache, where that is allowed. */
async function dropCaches(): Promise<void> {
  await Deno.writeTextFile("/proc/sys/vm/drop_caches", "1").catch(() => {});
}

for (const cache of ["writeback", "none"]) {
  for (const io of ["auto", "uring", "sync"]) {
    const name = `blk --io=${io} --cache=${cache}`;

    Deno.test(`${name} reads and writes the same as a copy in memory`, () =>
      withFile({ io, cache }, async (disk, path, content) => {
        const random = randomNumbers(SEED);
        for (let round = 0; round < 6; round++) {
          await dropCaches();
          // Concurrent requests never share a block.
          const blocks = Array.from({ length: BLOCKS }, (_, i) => i);
          const requests: Promise<void>[] = [];
          while (blocks.length > 0) {
            const at = random(blocks.length);
            const count = Math.min(1 + random(8), blocks.length - at);
            const run = blocks.splice(at, count);
            const length = run.findIndex((block, i) => block !== run[0] + i);
            const taken = length < 0 ? run : run.slice(0, length);
            blocks.splice(at, 0, ...run.slice(taken.length));
            const offset = taken[0] * BLOCK_BYTES + 512 * random(4);
            const bytes = taken.length * BLOCK_BYTES - 512 * random(4) -
              (offset - taken[0] * BLOCK_BYTES);
            const parts = divide(bytes, random);
            if (random(2) === 0) {
              const data = new Uint8Array(bytes).map(() => random(256));
              requests.push(
                disk.write(offset / 512, data, { parts }).then(({ status }) => {
                  assertEquals(status, blkStatus.OK, `seed ${SEED}`);
                  content.set(data, offset);
                }),
              );
            } else {
              requests.push(
                disk.read(offset / 512, bytes, { parts }).then(({ status, data }) => {
                  assertEquals(status, blkStatus.OK, `seed ${SEED}`);
                  const expected = content.subarray(offset, offset + bytes);
                  assert(equals(data, expected), `seed ${SEED}`);
                }),
              );
            }
          }
          await Promise.all(requests);
          assertEquals((await disk.flush()).status, blkStatus.OK);
        }
        assertEquals(await Deno.readFile(path), content, `seed ${SEED}`);
      }));

    Deno.test(`${name} completes more requests than it may have in the kernel at once`, () =>
      withFile({ io, cache }, async (disk, _path, content) => {
        await dropCaches();
        const reads = Array.from({ length: 600 }, (_, i) => disk.read(i % BLOCKS * 8, 512));
        for (const [i, read] of reads.entries()) {
          const { status, data } = await read;
          assertEquals(status, blkStatus.OK);
          assertEquals(data[5], content[i % BLOCKS * BLOCK_BYTES + 5]);
        }
      }));

    Deno.test(`${name} fails requests beyond the end of a truncated file`, () =>
      withFile({ io, cache }, async (disk, path) => {
        await Deno.truncate(path, BLOCK_BYTES);
        assertEquals((await disk.read(0, 512)).status, blkStatus.OK);
        assertEquals((await disk.read(BLOCKS * 4, 4096)).status, blkStatus.IOERR);
        assertEquals(
          (await disk.read(BLOCKS * 4, 4096, { parts: [1, 1095, 3000] })).status,
          blkStatus.IOERR,
        );
      }));
  }
}
