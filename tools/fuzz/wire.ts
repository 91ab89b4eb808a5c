/**
 * A front-end that breaks the vhost-user protocol in every way, against three
 * devices of this process; a fourth one must not notice. A case is one message of a sequence with
 * something wrong.
 */
import { Scratch } from "../lib/scratch.ts";
import blk from "../../backends/blk/mod.ts";
import net from "../../backends/net/mod.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import { BlkDriver, SharedMemory, VirtioDriver } from "../../src/frontend/mod.ts";
import { expectNothingLeft, type ProcessState, processState } from "../lib/process_state.ts";
import type { Random } from "../lib/random.ts";
import { type FuzzTarget, playParts, randomOf, type Tally, TIMEOUT_MS } from "./frame.ts";
import { withTimeout } from "../lib/process.ts";
import { DescriptorPool } from "./wire/descriptors.ts";
import device from "./wire/device.ts";
import { flood, storm } from "./wire/crowd.ts";
import { NET_PROTOCOL_FEATURES, randomMessage, scribble, validSession } from "./wire/messages.ts";
import { mutate } from "./wire/mutate.ts";
import { play } from "./wire/play.ts";
import { type Message, readRecordings } from "./wire/recording.ts";

/** How many connections there are between two looks at what is left of them. */
const CHECK_CONNECTIONS = 100;
/** How many looks there are between one flood and storm and the next. */
const CROWD_CHECKS = 40;
/** How much more memory the process may have at the end than when it was warm. */
const MOST_GROWTH_BYTES = 128 * 2 ** 20;

/** Something that is served, and attacked. */
interface Victim {
  name: string;
  path: string;
  server: DeviceServer;
  /** Makes it do its work once. */
  check(driver: VirtioDriver): Promise<void>;
  queues: number[];
  /** What it offers, if not what the others do. */
  protocolFeatures?: bigint;
}

/** The whole of it: what is attacked, and what must not notice. */
class World implements AsyncDisposable {
  readonly victims: Victim[] = [];
  readonly #stack = new AsyncDisposableStack();
  #bystander!: VirtioDriver;
  #bystanderServer!: DeviceServer;
  readonly #unhandled: unknown[] = [];
  #warm: ProcessState | undefined;
  #warmBytes = 0;
  pool!: DescriptorPool;

  static async open(recordings: readonly Message[][]): Promise<World> {
    const world = new World();
    const directory = world.#stack.use(new Scratch("fuzz-")).directory();
    const onRejection = (event: PromiseRejectionEvent) => {
      event.preventDefault();
      world.#unhandled.push(event.reason);
    };
    globalThis.addEventListener("unhandledrejection", onRejection);
    world.#stack.defer(() => globalThis.removeEventListener("unhandledrejection", onRejection));
    world.pool = world.#stack.use(new DescriptorPool(directory));
    for (const { fds } of recordings.flat()) for (const fd of fds) world.pool.number(fd);
    const open = async (name: string, definition: Parameters<typeof serve>[0], options: object) => {
      const path = `${directory}/${name}`;
      const server = await serve(definition, { socketPath: path, threads: 1, ...options });
      world.#stack.use(server);
      return { name, path, server };
    };
    world.victims.push({
      ...await open("main", device, { plane: "main" }),
      queues: [64, 64],
      async check(driver) {
        const { data } = await driver.request(0, [Uint8Array.of(1, 2, 3)], [3]);
        if (data[0].join() !== "1,2,3") throw new Error(`Expected an echo, got ${data[0]}`);
      },
    }, {
      ...await open("thread", blk, { options: { size: 2 ** 20 } }),
      queues: [64],
      check: (driver) => checkDisk(new BlkDriver(driver)),
    }, {
      ...await open("pairs", net, { options: { source: 64, queuePairs: 2 } }),
      queues: [64, 64, 64, 64],
      protocolFeatures: NET_PROTOCOL_FEATURES,
      async check(driver) {
        for (const pair of [0, 1]) {
          const { written } = await driver.request(2 * pair, [], [100]);
          if (written !== 76) throw new Error(`Expected a packet of 76 bytes, got ${written}`);
          await driver.request(2 * pair + 1, [new Uint8Array(76)], []);
        }
      },
    });
    const bystander = await open("bystander", blk, { options: { size: 2 ** 20 } });
    world.#bystanderServer = bystander.server;
    world.#bystander = world.#stack.use(
      await VirtioDriver.start(bystander.path, { timeoutMs: TIMEOUT_MS }),
    );
    return world;
  }

  /** Checks that all devices work. */
  check(): Promise<void> {
    return limited(this.#check());
  }

  async #check(): Promise<void> {
    for (const { path, queues, check } of this.victims) {
      // Little of it: V8 collects garbage for each large view of memory that is not its own.
      using memory = new SharedMemory(2 ** 20);
      await using driver = await VirtioDriver.start(path, {
        queues,
        memory,
        timeoutMs: TIMEOUT_MS,
        connectMs: TIMEOUT_MS,
      });
      await check(driver);
    }
    for (const { server } of this.victims) await server.idle();
    await checkDisk(new BlkDriver(this.#bystander));
    const { errors, queues, connections: had } = this.#bystanderServer.record();
    if (errors.total + queues[0].errors > 0 || had.total !== 1) {
      throw new Error(`Expected an unharmed bystander, got ${errors.total} errors`);
    }
    if (this.#unhandled.length > 0) throw this.#unhandled[0];
    this.#checkLeaks();
  }

  #checkLeaks(): void {
    const now = processState();
    const { rss } = Deno.memoryUsage();
    if (this.#warm === undefined) {
      this.#warm = now;
      this.#warmBytes = rss;
      return;
    }
    expectNothingLeft(this.#warm, now);
    if (rss - this.#warmBytes > MOST_GROWTH_BYTES) {
      throw new Error(`Expected about ${this.#warmBytes} bytes of resident memory, got ${rss}`);
    }
  }

  /** Counts what the records say, as far as they keep it. */
  tally(tally: Tally): void {
    for (const { server } of this.victims) {
      const { errors, connections, queues } = server.record();
      for (const { rule } of errors.latest) tally.add(`refused: ${rule}`);
      for (const { faults } of queues) for (const { rule } of faults) tally.add(`fault: ${rule}`);
      for (const { reason } of connections.latest) {
        if (reason) tally.add(`ended: ${reason.replaceAll(/0x[0-9a-f]+|\d+/g, "N")}`);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack[Symbol.asyncDispose]();
  }
}

async function checkDisk(disk: BlkDriver): Promise<void> {
  const sector = crypto.getRandomValues(new Uint8Array(512));
  await disk.write(7, sector);
  const { data: back } = await disk.read(7, 512);
  if (back.some((byte, i) => byte !== sector[i])) throw new Error("Expected the sector back");
}

/** A sequence of messages in which something is wrong. */
function sequence(
  random: Random,
  { protocolFeatures }: Victim,
  recordings: readonly Message[][],
  tally: Tally,
): Message[] {
  switch (random.below(4)) {
    case 0:
      return Array.from({ length: random.between(1, 120) }, () => randomMessage(random));
    case 1:
      return mutate(random.pick(recordings), random, tally);
    default: {
      const more = Array.from({ length: random.below(60) }, () => randomMessage(random));
      return mutate([...validSession(random, undefined, protocolFeatures), ...more], random, tally);
    }
  }
}

export const target: FuzzTarget = {
  about: "vhost-user messages and descriptors, wrong in every way, from front-ends of every kind",
  async run(run) {
    const { seed, tally } = run;
    const recordings = readRecordings();
    await using world = await World.open(recordings);
    // Everything is there afterwards that is made when it is first used.
    for (const { path, protocolFeatures } of world.victims) {
      const random = randomOf(seed, -1);
      const session = validSession(random, "shrinking memory", protocolFeatures);
      await play(session, path, world.pool, random, tally, true);
    }
    await world.check();
    let connections = 0;
    await playParts("Connection", [async (random) => {
      const victim = random.pick(world.victims);
      scribble(random, world.pool.memory);
      const messages = sequence(random, victim, recordings, tally);
      const done = await limited(play(messages, victim.path, world.pool, random, tally));
      tally.add("connections");
      if (++connections % CHECK_CONNECTIONS === 0) {
        if ((connections / CHECK_CONNECTIONS - 1) % CROWD_CHECKS === 0) {
          await flood(victim.path, tally);
          await storm(victim.path, tally);
        }
        world.tally(tally);
        await world.check();
      }
      return done;
    }], run);
    world.tally(tally);
    await world.check();
  },
};

/** Fails when something takes too long: then it hangs. */
function limited<T>(work: Promise<T>): Promise<T> {
  return withTimeout(
    work,
    TIMEOUT_MS,
    () => `Expected an end within ${TIMEOUT_MS / 1000} s: it hangs`,
  );
}
