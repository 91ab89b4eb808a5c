/**
 * Soak test: random requests to disks over rings of every kind, from two threads to two threads.
 * Every byte is checked: none may be lost, repeated or misplaced.
 *
 * `SOAK_SECONDS=600 SOAK_SEED=7 deno test -A tests/frontend/soak_test.ts` runs longer, from a seed.
 * A seed repeats the kinds of rings and the requests, but not the threads' races.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import { type DeviceServer, serve, type ServeOptions } from "../../mod.ts";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { Random } from "../../tools/lib/random.ts";
import shuffled from "./lib/shuffled_disk.ts";
import {
  ARENA_BYTES,
  BLOCK_BYTES,
  INDIRECT_PARTS,
  type SoakOrder,
  type SoakResult,
} from "./lib/soak_order.ts";
import { WorkerThread } from "./lib/worker_thread.ts";

const SECONDS = Number(Deno.env.get("SOAK_SECONDS") ?? 20);
const SEED = Number(Deno.env.get("SOAK_SEED") ?? Math.floor(Math.random() * 2 ** 32));

// Printed first, in case the process does not survive.
console.log(`SOAK_SEED=${SEED}`);

/** How long each kind of ring is used. */
const PHASE_MS = 250;

const QUEUES = 2;
const BLOCKS_PER_QUEUE = 256;
const DISK_BYTES = QUEUES * BLOCKS_PER_QUEUE * BLOCK_BYTES;

/** How a ring is negotiated and where it begins. */
interface Ring {
  packed: boolean;
  eventIndex: boolean;
  inOrder: boolean;
  indirect: boolean;
  sizes: number[];
  bases: number[];
  /** The queues that have requests: with one alone, more of its requests are concurrent. */
  active: number[];
  /** Disturbances meanwhile: the memory table is set again, or rings are disabled for a while. */
  disturb: "memory" | "enable" | "nothing";
}

function randomRing(random: Random): Ring {
  const packed = random.chance(1, 2);
  const sizes = Array.from(
    { length: QUEUES },
    () => packed ? random.between(4, 40) : random.pick([4, 8, 16, 32, 64]),
  );
  return {
    packed,
    sizes,
    bases: sizes.map((size) => {
      // Just before the index wraps around, or anywhere.
      if (!packed) return random.chance(1, 2) ? 0x10000 - random.between(1, 100) : 0;
      const half = random.below(size) | (random.chance(1, 2) ? 0x8000 : 0);
      return (half | half << 16) >>> 0;
    }),
    active: random.pick([[0], [1], [0, 1], [0, 1]]),
    eventIndex: random.chance(2, 3),
    inOrder: random.chance(1, 3),
    indirect: random.chance(2, 3),
    disturb: random.pick(["memory", "enable", "nothing"]),
  };
}

/** The threads that drive queues. They outlive rings, so that their code stays compiled. */
class Drivers implements Disposable {
  readonly #threads = Array.from(
    { length: QUEUES },
    () => new WorkerThread<SoakOrder, SoakResult>(new URL("./lib/soak_worker.ts", import.meta.url)),
  );

  /** Makes a thread drive its queue. */
  async run(queue: number, order: SoakOrder): Promise<number> {
    const { requests, error } = await this.#threads[queue].run(order);
    if (error === undefined) return requests;
    throw new Error(`Queue ${queue}, after ${requests} requests: ${error}`);
  }

  [Symbol.dispose](): void {
    for (const thread of this.#threads) thread[Symbol.dispose]();
  }
}

/** Drives one kind of ring for a while; returns how many requests each queue had. */
async function soak(
  socketPath: string,
  drivers: Drivers,
  ring: Ring,
  random: Random,
  milliseconds: number,
): Promise<number[]> {
  await using driver = await VirtioDriver.connect(socketPath, {
    ...ring,
    queues: ring.sizes,
    indirectParts: INDIRECT_PARTS,
    useMemSlots: false,
    // Threads start meanwhile, and the processors may be busy.
    timeoutMs: 30_000,
  });
  for (const [i, queue] of driver.queues.entries()) queue.reset(ring.bases[i]);
  await driver.restart(ring.bases);
  const results = driver.queues.map((queue, i) =>
    ring.active.includes(i)
      ? drivers.run(i, {
        memory: driver.memory.handle,
        queue: queue.handle,
        gpa: driver.memory.alloc(ARENA_BYTES),
        seed: random.u32(),
        firstBlock: i * BLOCKS_PER_QUEUE,
        blocks: BLOCKS_PER_QUEUE,
        milliseconds,
      })
      : Promise.resolve(0)
  );
  const all = Promise.all(results);
  for (let running = true; running;) {
    await disturb(driver, ring, random);
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, random.below(20));
    await Promise.race([promise, all.then(() => running = false)]);
    clearTimeout(timer);
  }
  return await all;
}

/** What a front-end may do at any time. */
async function disturb(driver: VirtioDriver, ring: Ring, random: Random): Promise<void> {
  const { connection } = driver;
  const queue = random.below(QUEUES);
  switch (ring.disturb) {
    case "memory":
      return await connection.setMemTable(driver.memory);
    case "enable":
      await connection.setVringEnable(queue, false);
      await connection.setVringEnable(queue, true);
  }
}

/** Runs phases on a served disk until the time is up. */
async function soakDisk(
  name: string,
  open: (socketPath: string, directory: string) => Promise<DeviceServer>,
  seed: number,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const socketPath = `${directory}/disk.sock`;
  const random = new Random(seed);
  {
    await using server = await open(socketPath, directory);
    using drivers = new Drivers();
    const expected = new Array<number>(QUEUES).fill(0);
    const end = performance.now() + SECONDS / disks.length * 1000;
    for (let phase = 0; performance.now() < end; phase++) {
      const ring = randomRing(random);
      try {
        const requests = await soak(socketPath, drivers, ring, random, PHASE_MS);
        const { queues, errors } = server.record();
        requests.forEach((count, i) => expected[i] += count);
        assertEquals(errors.latest, []);
        assertEquals(queues.map(({ requests }) => requests), expected);
      } catch (cause) {
        const faults = server.record().queues.flatMap(({ faults }) => faults);
        throw new Error(
          `${name}: ${(cause as Error).message}, in phase ${phase} of SOAK_SEED=${SEED}, ${
            JSON.stringify({ ...ring, faults })
          }`,
          { cause },
        );
      }
    }
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
}

const disks: [string, (socketPath: string, directory: string) => Promise<DeviceServer>][] = [];

function disk(
  name: string,
  options: (directory: string) => Partial<ServeOptions>,
): void {
  disks.push([
    name,
    (socketPath, directory) => serve(blk, { socketPath, threads: QUEUES, ...options(directory) }),
  ]);
}

disk("A disk in memory", () => ({ options: { size: DISK_BYTES, numQueues: QUEUES } }));
disk("A disk in a file", (directory) => {
  const blkFile = `${directory}/disk.img`;
  Deno.writeFileSync(blkFile, new Uint8Array(DISK_BYTES));
  return { options: { blkFile, io: "uring", numQueues: QUEUES } };
});
disk("A disk in memory whose threads poll", () => ({
  options: { size: DISK_BYTES, numQueues: QUEUES },
  pollUs: 50,
}));
disks.push(["A disk that completes in any order", (socketPath) =>
  serve(shuffled, {
    socketPath,
    threads: QUEUES,
    options: { size: DISK_BYTES, numQueues: QUEUES },
  })]);

for (const [i, [name, open]] of disks.entries()) {
  Deno.test(`${name} loses, repeats and misplaces nothing over rings of every kind`, () =>
    soakDisk(name, open, SEED + i));
}
