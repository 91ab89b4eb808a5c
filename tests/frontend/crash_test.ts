/**
 * Kills vhostd by SIGKILL under a load that checks every block, and restarts it: nothing is lost,
 * repeated or wrong, and the driver sees a pause.
 *
 * VHOSTD_TEST_KILLS sets how often each device is killed. Prints the lengths of the pauses.
 */
import { assert, assertEquals } from "@std/assert";
import { equals } from "@std/bytes";
import type { RecordJson } from "../../src/runtime/record.ts";
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { CliProcess } from "./lib/cli_process.ts";
import { Random } from "../../tools/lib/random.ts";

const KILLS = Number(Deno.env.get("VHOSTD_TEST_KILLS") ?? 3);

const BLOCK_BYTES = 4096, SECTOR_BYTES = 512;
/** In config space: virtio 1.3, 5.2.4. */
const WRITEBACK = 32;

const QUEUES = 2, WORKERS = 32, BLOCKS_EACH = 32;
const DISK_BYTES = WORKERS * BLOCKS_EACH * BLOCK_BYTES;

/** Long enough for a busy machine. */
const TIMEOUT_MS = 120_000;

/** The most requests between a start and the next kill. */
const MAX_REQUESTS = 600;

/** The content of a block after its owner wrote it n times; zeroes for n = 0. */
function blockOf(block: number, generation: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(BLOCK_BYTES / 4);
  if (generation > 0) {
    let x = Math.imul(block + 1, 0x9e3779b1) ^ generation;
    for (let i = 0; i < words.length; i++) words[i] = x = Math.imul(x, 1664525) + 1013904223 | 0;
    words[0] = block;
    words[1] = generation;
  }
  return new Uint8Array(words.buffer);
}

/** Readers and writers, each with its own blocks and one request at a time. */
class Load {
  readonly #disk: BlkDriver;
  readonly #random: Random;
  readonly #generations = new Uint32Array(WORKERS * BLOCKS_EACH);
  readonly #workers: Promise<unknown>;
  #open = Promise.withResolvers<void>();
  #ended = false;
  /** Called after each request; may pause the load. */
  onRequest: () => void = () => {};

  constructor(disk: BlkDriver, random: Random) {
    this.#disk = disk;
    this.#random = random;
    this.#open.resolve();
    this.#workers = Promise.all(Array.from({ length: WORKERS }, (_, i) => this.#work(i)));
    this.#workers.catch(() => {});
  }

  /** Makes no new requests. */
  pause(): void {
    this.#open = Promise.withResolvers();
  }

  resume(): void {
    this.#open.resolve();
  }

  /** Resolves when all requests are completed; rejects if one was wrong. */
  get ended(): Promise<unknown> {
    return this.#workers;
  }

  end(): Promise<unknown> {
    this.#ended = true;
    this.resume();
    return this.#workers;
  }

  async #work(worker: number): Promise<void> {
    const random = this.#random;
    const options = { queue: worker % QUEUES, timeoutMs: TIMEOUT_MS };
    for (;;) {
      await this.#open.promise;
      if (this.#ended) return;
      const block = worker * BLOCKS_EACH + random.below(BLOCKS_EACH);
      const sector = block * (BLOCK_BYTES / SECTOR_BYTES);
      const parts = random.chance(1, 2) ? [BLOCK_BYTES] : [512, 3000, 584];
      if (random.chance(1, 2)) {
        const data = blockOf(block, this.#generations[block] + 1);
        const { status } = await this.#disk.write(sector, data, { ...options, parts });
        assertEquals(status, blkStatus.OK);
        this.#generations[block]++;
      } else {
        const { status, data } = await this.#disk.read(sector, BLOCK_BYTES, { ...options, parts });
        assertEquals(status, blkStatus.OK);
        this.#check(block, data);
      }
      this.onRequest();
    }
  }

  #check(block: number, data: Uint8Array): void {
    const expected = blockOf(block, this.#generations[block]);
    if (equals(data, expected)) return;
    const [number, generation] = new Uint32Array(data.slice(0, 8).buffer);
    throw new Error(
      `Expected block ${block} as written ${
        this.#generations[block]
      } times, got block ${number} of time ${generation}`,
    );
  }

  /** Checks every block in the image itself. */
  checkImage(path: string): void {
    const image = Deno.readFileSync(path);
    for (let block = 0; block < this.#generations.length; block++) {
      this.#check(block, image.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES));
    }
  }
}

/** Durations of an operation. */
class Times {
  readonly #ms: number[] = [];

  add(ms: number): void {
    this.#ms.push(ms);
  }

  toString(): string {
    const sorted = this.#ms.toSorted((a, b) => a - b);
    const at = (share: number) =>
      Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]);
    return `median ${at(0.5)}, p99 ${at(0.99)}, most ${at(1)} ms`;
  }
}

interface Crashes {
  driver: { packed: boolean; inflight: boolean };
  flags?: string[];
}

async function killAgainAndAgain({ driver: options, flags = [] }: Crashes): Promise<void> {
  const seed = Math.trunc(Math.random() * 2 ** 32);
  const random = new Random(seed);
  const directory = Deno.makeTempDirSync();
  const [image, socketPath, recordPath] = ["img", "sock", "json"].map((end) =>
    `${directory}/disk.${end}`
  );
  Deno.writeFileSync(image, new Uint8Array());
  Deno.truncateSync(image, DISK_BYTES);
  const vhostd = () =>
    new CliProcess([
      ...["blk", `--blk-file=${image}`, `--socket-path=${socketPath}`, `--record=${recordPath}`],
      ...[`--num-queues=${QUEUES}`, ...flags],
    ]);
  const times = { all: new Times(), listening: new Times(), restarted: new Times() };
  let process = vhostd();
  try {
    await process.until(socketPath);
    await using driver = await VirtioDriver.start(socketPath, {
      queues: new Array(QUEUES).fill(64),
      timeoutMs: TIMEOUT_MS,
      ...options,
    });
    assertEquals(driver.inflight !== undefined, options.inflight);
    const load = new Load(new BlkDriver(driver), random);

    /** Resolves after this number of requests. */
    const requests = (count: number) =>
      new Promise<void>((resolve, reject) => {
        load.ended.catch(reject);
        load.onRequest = () => {
          if (--count === 0) resolve();
        };
      });

    for (let kill = 0; kill < KILLS; kill++) {
      await requests(1 + random.below(MAX_REQUESTS));
      // The driver wants every write durable; no front-end sends that again.
      if (kill === KILLS - 1) await driver.config.write(WRITEBACK, Uint8Array.of(0));
      load.pause();
      let killedAt = 0;
      for (let isUp = false; !isUp;) {
        killedAt = performance.now();
        await process[Symbol.asyncDispose]();
        process = vhostd();
        const listening = process.until(socketPath).then(() => performance.now());
        // A crash in the middle of recovery makes no difference.
        const dies = random.chance(1, 4);
        const wait = random.below(30);
        const victim = process;
        if (dies) {
          listening.then(() => setTimeout(() => victim.kill("SIGKILL"), wait)).catch(() => {});
        }
        try {
          await driver.reconnect();
          const restartedAt = performance.now();
          if (dies) throw new Error("It is to die");
          times.listening.add(await listening - killedAt);
          times.restarted.add(restartedAt - await listening);
          isUp = true;
        } catch (error) {
          if (!dies) throw error;
          await process.end();
        }
      }
      const first = requests(1);
      load.resume();
      await first;
      times.all.add(performance.now() - killedAt);
    }
    await load.end();
    // Without a record the strictest mode applies
    assertEquals(await driver.config.u8(WRITEBACK), 0);
    await driver.close();
    await process.stop();
    load.checkImage(image);
    const record = JSON.parse(Deno.readTextFileSync(recordPath)) as RecordJson;
    for (const { tracked, resumed, errors } of record.queues) {
      assertEquals({ tracked, resumed, errors }, {
        ...{ tracked: options.inflight, resumed: true, errors: 0 },
      });
    }
    assert(record.errors.total === 0, JSON.stringify(record.errors.latest));
    console.log(`${KILLS} kills; pause: ${times.all}`);
    console.log(`  until it listens: ${times.listening}; until rings run: ${times.restarted}`);
  } catch (error) {
    throw new Error(`With seed ${seed}`, { cause: error });
  } finally {
    await process[Symbol.asyncDispose]();
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("kill -9 at any moment loses nothing (split rings)", () =>
  killAgainAndAgain({ driver: { packed: false, inflight: true } }));

Deno.test("kill -9 at any moment loses nothing (packed rings)", () =>
  killAgainAndAgain({ driver: { packed: true, inflight: true } }));

Deno.test("kill -9 loses nothing past the page cache", () =>
  killAgainAndAgain({
    driver: { packed: false, inflight: true },
    flags: ["--cache=none", "--io=uring"],
  }));

Deno.test("kill -9 loses nothing without an in-flight record, if the driver resubmits its requests", () =>
  killAgainAndAgain({ driver: { packed: false, inflight: false } }));
