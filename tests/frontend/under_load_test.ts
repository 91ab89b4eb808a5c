/** Changes by a front-end while rings run, under a load that verifies every block. */
import { assertEquals } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import rng from "../../backends/rng/mod.ts";
import { serve } from "../../mod.ts";
import { frontendMessages, UnixConnection, VirtioDriver } from "../../src/frontend/mod.ts";
import { CliProcess } from "./lib/cli_process.ts";
import { withDirectory } from "./lib/directory.ts";
import { diskBytes, VerifiedLoad } from "./lib/verified_load.ts";

/** Rings are small, so that they are full. */
const SHAPE = { queues: 2, lanes: 24 };
const RING_SIZE = 32;
const ROUNDS = 24;

/** Where the same memory is mapped a second time, in guest and user addresses. */
const ALIAS_GUEST = 1n << 36n;
const ALIAS_USER = 1n << 45n;

/** A driver whose rings a test changes without its knowledge. */
class Target {
  constructor(readonly driver: VirtioDriver) {}

  get connection() {
    return this.driver.connection;
  }

  /** The memory of the driver, mapped again at another address. */
  get alias() {
    const [{ message }] = this.driver.memory.regions;
    return { ...message, guestAddress: ALIAS_GUEST, userAddress: ALIAS_USER };
  }

  async addAlias(): Promise<void> {
    const [{ fd }] = this.driver.memory.regions;
    await this.connection.tell({ request: "ADD_MEM_REG", region: this.alias }, [fd.number]);
  }

  /** Sets a ring's addresses: the driver's, or those of the second mapping. */
  async place(queue: number, isAlias: boolean): Promise<void> {
    const { descriptorGpa, availableGpa, usedGpa } = this.driver.queues[queue].handle;
    const [{ message }] = this.driver.memory.regions;
    const address = (gpa: number) =>
      BigInt(gpa) - message.guestAddress + (isAlias ? ALIAS_USER : message.userAddress);
    await this.connection.setVringAddr({
      index: queue,
      flags: 0,
      descriptor: address(descriptorGpa),
      available: address(availableGpa),
      used: address(usedGpa),
      log: 0n,
    });
  }

  /** Starts a stopped ring with QEMU's sequence of messages. */
  async start(queue: number, base: number, isAlias = false): Promise<void> {
    const { size, kickFd, callFd } = this.driver.queues[queue].handle;
    await this.connection.setVringNum(queue, size);
    await this.connection.setVringBase(queue, base);
    await this.place(queue, isAlias);
    await this.connection.setVringKick(queue, kickFd);
    await this.connection.setVringCall(queue, callFd);
    await this.connection.setVringEnable(queue, true);
    this.driver.queues[queue].kick();
  }
}

/** The repeated change; `round` counts. */
type Disturbance = (target: Target, queue: number, round: number) => Promise<void>;

const disturbances: Record<string, Disturbance> = {
  async "a ring stops and goes on where it was"(target, queue) {
    await target.start(queue, await target.connection.getVringBase(queue));
  },

  async "all rings stop, and go on in another order"(target, queue) {
    const other = 1 - queue;
    const bases = [
      await target.connection.getVringBase(0),
      await target.connection.getVringBase(1),
    ];
    await target.start(queue, bases[queue]);
    await target.start(other, bases[other]);
  },

  async "a ring stops, and goes on elsewhere in memory"(target, queue, round) {
    const base = await target.connection.getVringBase(queue);
    await target.start(queue, base, round % 4 < 2);
  },

  async "a ring that runs is said to be elsewhere"(target, queue, round) {
    await target.place(queue, round % 4 < 2);
  },

  async "the eventfds of a ring that runs are given anew"({ driver, connection }, queue) {
    const { kickFd, callFd, errFd } = driver.queues[queue].handle;
    await connection.setVringKick(queue, kickFd);
    await connection.setVringCall(queue, undefined); // no notifications for a moment
    await connection.setVringCall(queue, callFd);
    await connection.setVringErr(queue, errFd);
  },

  async "a ring is disabled and enabled"({ connection }, queue) {
    await connection.setVringEnable(queue, false);
    await connection.getFeatures();
    await connection.setVringEnable(queue, true);
  },

  async "memory slots come and go"({ driver }) {
    const extra = driver.memory.addRegion({ bytes: 1 << 20 });
    await driver.giveMemory();
    driver.memory.removeRegion(extra);
    await driver.giveMemory();
  },

  async "the memory of the rings goes and comes back"(target, _queue, round) {
    // Both mappings are the same bytes, so one always exists.
    if (round === 0) return;
    for (const queue of target.driver.queues.keys()) await target.place(queue, round % 2 === 1);
    if (round % 2 === 1) return;
    await target.connection.remMemReg({ message: target.alias });
    await target.addAlias();
  },
};

for (const packed of [false, true]) {
  for (const [name, disturb] of Object.entries(disturbances)) {
    Deno.test(`Under load, ${name} (${packed ? "packed" : "split"})`, () =>
      withDirectory(async (directory) => {
        const socketPath = `${directory}/disk.sock`;
        const blkFile = `${directory}/disk.img`;
        Deno.writeFileSync(blkFile, new Uint8Array(diskBytes(SHAPE)));
        await using server = await serve(blk, {
          socketPath,
          threads: SHAPE.queues,
          options: { blkFile, io: "uring", numQueues: SHAPE.queues },
        });
        await using driver = await VirtioDriver.start(socketPath, {
          queues: new Array(SHAPE.queues).fill(RING_SIZE),
          packed,
          useMemSlots: true,
        });
        const target = new Target(driver);
        await target.addAlias();
        const load = new VerifiedLoad(driver, SHAPE);
        for (let round = 0; round < ROUNDS; round++) {
          await disturb(target, round % SHAPE.queues, round);
          await load.progress(SHAPE.queues * SHAPE.lanes);
        }
        await load.end();
        const { errors, queues } = server.record();
        assertEquals(errors, { total: 0, latest: [] });
        assertEquals(queues.map(({ faults }) => faults), [[], []]);
        // Each block was written and read once, and all were read at the end.
        const blocks = diskBytes(SHAPE) / 4096;
        const requests = queues.reduce((sum, queue) => sum + queue.requests, 0);
        assertEquals(requests, load.verified * 2 - blocks);
        assertEquals(Deno.readFileSync(blkFile), load.contents());
      }));
  }
}

/** Sends requests and never reads the replies. */
function floodRequests(path: string): { connection: UnixConnection; flood: Promise<unknown> } {
  const connection = UnixConnection.connect(path);
  const request = frontendMessages.encode({ request: "GET_FEATURES" });
  const many = new Uint8Array(request.length * 100_000);
  for (let i = 0; i < many.length; i += request.length) many.set(request, i);
  return { connection, flood: connection.send(many).then(() => "sent", () => "ended") };
}

Deno.test("A front-end that never reads its replies affects no other device, and ends with its own", () =>
  withDirectory(async (directory) => {
    const [deaf, fine] = [`${directory}/deaf.sock`, `${directory}/fine.sock`];
    await using other = await serve(rng, { socketPath: fine });
    const server = await serve(rng, { socketPath: deaf });
    const { connection, flood } = floodRequests(deaf);
    for (let i = 0; i < 20; i++) {
      await using driver = await VirtioDriver.start(fine);
      assertEquals((await driver.request(0, [], [64])).written, 64);
    }
    assertEquals(await Promise.race([flood, Promise.resolve("waits")]), "waits");
    await server.close();
    assertEquals(await flood, "ended");
    await connection.close();
    assertEquals(other.record().queues[0].requests, 20);
  }));

Deno.test("vhostd ends by SIGTERM while a front-end does not read its replies", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/rng.sock`;
    await using cli = new CliProcess(["rng", `--socket-path=${path}`]);
    await cli.until("listens");
    const { connection, flood } = floodRequests(path);
    assertEquals(await cli.stop(), { status: 0, stderr: "" });
    assertEquals(await flood, "ended");
    await connection.close();
  }));
