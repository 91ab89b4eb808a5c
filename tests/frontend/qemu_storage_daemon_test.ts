/** The front-end against an independent back-end, qemu-storage-daemon. */
import {
  assert,
  assertEquals,
  assertGreaterOrEqual,
  assertNotEquals,
  assertRejects,
} from "@std/assert";
import {
  BlkDriver,
  blkHeader,
  blkRequests,
  blkStatus,
  DriverQueue,
  FrontendError,
  SharedMemory,
  VirtioDriver,
  type VirtioDriverOptions,
} from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { transportMask } from "../../src/virtio/features.ts";
import { programPath } from "../../tools/guest/programs.ts";
import type { LoadOrder, LoadResult } from "./lib/split_queue_worker.ts";
import { WorkerThread } from "./lib/worker_thread.ts";

const PROGRAM = "qemu-storage-daemon";
/** This machine's daemon, or else one that is downloaded into `.cache/`. */
const PATH = await programPath(PROGRAM);
const CAPACITY_BYTES = 4 * 2 ** 20;
const CAPACITY_SECTORS = CAPACITY_BYTES / 512;
const START_TIMEOUT_MS = 60_000;

interface Daemon {
  /** Where it listens. */
  socket: string;
  /** The file that it serves. */
  image: string;
  /** Starts a driver; it is closed at the end. */
  start(options?: VirtioDriverOptions): Promise<VirtioDriver>;
}

/** Runs a test against a daemon that serves a file, and always ends the daemon. */
async function withDaemon(
  test: (daemon: Daemon) => Promise<void>,
  { queues = 1 } = {},
): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "vhostd-frontend-" });
  const socket = `${directory}/blk.sock`;
  const image = `${directory}/disk.img`;
  try {
    await Deno.writeFile(image, new Uint8Array(CAPACITY_BYTES));
    await using daemon = spawn([
      "--blockdev",
      `driver=file,node-name=disk,filename=${image},discard=unmap`,
      "--export",
      `vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=${socket},writable=on,num-queues=${queues}`,
    ]);
    await using started = new AsyncDisposableStack();
    await test({
      socket,
      image,
      start: async (options = {}) =>
        started.use(
          await Promise.race([
            VirtioDriver.start(socket, { connectMs: START_TIMEOUT_MS, ...options }),
            daemon.failed,
          ]),
        ),
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
    await watchesEnded();
  }
}

function spawn(args: string[]): AsyncDisposable & { failed: Promise<never> } {
  // setpriv ends the daemon when this process ends.
  const child = new Deno.Command("setpriv", {
    args: ["--pdeathsig", "KILL", "--", PATH, ...args],
    stdin: "null",
  }).spawn();
  const failed = child.status.then(({ code, signal }): never => {
    throw new Error(`${PROGRAM} ended early with ${signal ?? `status ${code}`}`);
  });
  failed.catch(() => {});
  return {
    failed,
    async [Symbol.asyncDispose]() {
      try {
        child.kill("SIGKILL");
      } catch { /* It has ended. */ }
      await child.status;
    },
  };
}

function randomBytes(bytes: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at += 65536) {
    crypto.getRandomValues(data.subarray(at, Math.min(bytes, at + 65536)));
  }
  return data;
}

Deno.test("VirtioDriver.start() negotiates and reads the config", () =>
  withDaemon(async ({ start }) => {
    const driver = await start();
    const { negotiated } = driver;
    const transport = transportMask("VERSION_1", "EVENT_IDX", "INDIRECT_DESC");
    assertEquals(driver.features & transport, transport);
    assert(negotiated.eventIndex && negotiated.indirect);
    assertEquals(driver.features & ~negotiated.offeredFeatures, 0n);
    assertEquals(negotiated.maxQueues, 3);
    assertGreaterOrEqual(negotiated.memSlots!, 8);
    assertEquals(await new BlkDriver(driver).capacitySectors(), CAPACITY_SECTORS);
    // virtio 1.3, 5.2.4: num_queues. This back-end reads from 0 whatever the offset.
    const config = await driver.config.read(0, 60);
    assertEquals(new DataView(config.buffer).getUint16(34, true), 3);
  }, { queues: 3 }));

Deno.test("VirtioDriver.start() acknowledges no features outside of the given ones", () =>
  withDaemon(async ({ start }) => {
    await assertRejects(() => start({ features: transportMask("RING_RESET") }), RangeError);
    const driver = await start({ indirect: false, eventIndex: false });
    assertEquals(driver.features & transportMask("EVENT_IDX", "INDIRECT_DESC"), 0n);
    assertNotEquals(driver.features & transportMask("VERSION_1"), 0n);
  }));

Deno.test("BlkDriver reads back its writes, and the file has them", () =>
  withDaemon(async ({ start, image }) => {
    const blk = new BlkDriver(await start());
    const data = randomBytes(1 << 20);
    assertEquals((await blk.write(2048, data)).status, blkStatus.OK);
    assertEquals((await blk.flush()).status, blkStatus.OK);
    const read = await blk.read(2048, data.length);
    assertEquals([read.status, read.written], [blkStatus.OK, data.length + 1]);
    assertEquals(read.data, data);
    const file = await Deno.readFile(image);
    assertEquals(file.subarray(2048 * 512, 2048 * 512 + data.length), data);
    assert(file.subarray(0, 2048 * 512).every((byte) => byte === 0));
  }));

Deno.test("BlkDriver gets the ID, discards and writes zeroes", () =>
  withDaemon(async ({ start }) => {
    const blk = new BlkDriver(await start());
    assertEquals((await blk.getId()).id, "vhost_user_blk");
    for (
      const erase of [
        () => blk.discard(8, 8),
        () => blk.writeZeroes(8, 8),
        () => blk.writeZeroes(8, 8, { unmap: true }),
      ]
    ) {
      await blk.write(8, new Uint8Array(4096).fill(0xaa));
      assertEquals((await erase()).status, blkStatus.OK);
      assertEquals((await blk.read(8, 4096)).data, new Uint8Array(4096));
    }
  }));

Deno.test("BlkDriver reports the device's failures as a status", () =>
  withDaemon(async ({ start }) => {
    const blk = new BlkDriver(await start());
    assertEquals((await blk.read(CAPACITY_SECTORS, 512)).status, blkStatus.IOERR);
    assertEquals((await blk.request(blkHeader(77, 0), [], [])).status, blkStatus.UNSUPP);
    assertEquals((await blk.read(0, 512)).status, blkStatus.OK);
  }));

for (const eventIndex of [true, false]) {
  for (const indirect of [true, false]) {
    const how = `${indirect ? "indirect" : "direct"} chains and ${
      eventIndex ? "event index" : "flags"
    }`;
    Deno.test(`VirtioDriver.request() transfers parts of any size with ${how}`, () =>
      withDaemon(async ({ start }) => {
        const blk = new BlkDriver(await start({ queues: [64], indirect, eventIndex }));
        const data = randomBytes(8192);
        const shapes = [[8192], [512, 7680], [1, 2, 3, 506, 7680], [4095, 2, 4095]];
        for (const parts of shapes) {
          await blk.write(16, new Uint8Array(8192));
          assertEquals((await blk.write(16, data, { parts })).status, blkStatus.OK);
          const read = await blk.read(16, 8192, { parts: parts.toReversed() });
          assertEquals(read.data, data);
        }
        // More at once than fit into the ring.
        const all = await Promise.all(Array.from({ length: 200 }, (_, i) => blk.read(i, 512)));
        assert(all.every(({ status }) => status === blkStatus.OK));
        assertEquals(all[16].data, data.subarray(0, 512));
      }));
  }
}

/** Fills a small ring repeatedly through its core, until its 16-bit index wraps around. */
async function goRound(driver: VirtioDriver, indirect: boolean): Promise<void> {
  const { memory, queues: [queue] } = driver;
  const requests = 70_000;
  const slots = indirect ? queue.size : queue.size >> 2;
  const gpa = memory.alloc(slots * 1024, 512);
  const bytes = memory.at(gpa, slots * 1024);
  const slotOf = new Uint16Array(queue.size);
  let completed = 0;
  for (let made = 0; completed < requests;) {
    while (made < requests && queue.begin(3, indirect)) {
      const slot = made % slots, at = slot * 1024, sector = made % CAPACITY_SECTORS;
      bytes.set(blkHeader(blkRequests.IN, sector), at);
      bytes[at + 16] = 255;
      queue.descriptor(gpa + at, 16, false);
      queue.descriptor(gpa + at + 512, 512, true);
      queue.descriptor(gpa + at + 16, 1, true);
      slotOf[queue.end()] = slot;
      made++;
      if (queue.inFlight === slots) break;
    }
    queue.submit();
    assert(await queue.ready(), `Nothing came after ${completed} requests`);
    while (queue.inFlight > 0) {
      const head = queue.poll();
      if (head < 0) {
        assert(await queue.ready());
        continue;
      }
      assertEquals([queue.written, bytes[slotOf[head] * 1024 + 16]], [513, blkStatus.OK]);
      completed++;
    }
  }
  memory.free(gpa);
  assertEquals(queue.resumeBase, requests & 0xffff);
}

for (const eventIndex of [true, false]) {
  for (const indirect of [true, false]) {
    const how = `${indirect ? "indirect" : "direct"}, ${eventIndex ? "event index" : "flags"}`;
    Deno.test(`DriverQueue continues when the index of its ring wraps around (${how})`, () =>
      withDaemon(async ({ start }) => {
        await goRound(await start({ queues: [128], eventIndex }), indirect);
      }));
  }
}

Deno.test("VirtioDriver serves several queues at once", () =>
  withDaemon(async ({ start }) => {
    const blk = new BlkDriver(await start({ queues: [256, 128, 64] }));
    const blocks = Array.from({ length: 96 }, () => randomBytes(4096));
    await Promise.all(blocks.map((data, i) => blk.write(i * 8, data, { queue: i % 3 })));
    const read = await Promise.all(
      blocks.map((_, i) => blk.read(i * 8, 4096, { queue: (i + 1) % 3 })),
    );
    assertEquals(read.map(({ data }) => data), blocks);
  }, { queues: 3 }));

for (const useMemSlots of [true, false]) {
  const how = useMemSlots ? "one by one" : "as a table";
  Deno.test(`VirtioDriver shares memory of several odd regions ${how}`, () =>
    withDaemon(async ({ start }) => {
      using memory = new SharedMemory([
        { bytes: 0x100000, guestAddress: 0 },
        { bytes: 0x23b10, guestAddress: 0x1_2345_6000, userAddress: 0x7654_3210_0000 },
        { bytes: 0x40000, guestAddress: 0x200000, mmapOffset: 0x3000 },
      ]);
      const driver = await start({ memory, useMemSlots, queues: [64] });
      const [queue] = driver.queues;
      const pattern = randomBytes(512);
      await new BlkDriver(driver).write(5, pattern);
      for (const region of memory.regions) {
        const gpa = memory.alloc(1024, 1, region);
        memory.at(gpa, 16).set(blkHeader(blkRequests.IN, 5));
        queue.add([{ gpa, bytes: 16 }], [{ gpa: gpa + 17, bytes: 512 }, {
          gpa: gpa + 16,
          bytes: 1,
        }]);
        queue.submit();
        assert(await queue.ready());
        queue.poll();
        assertEquals(memory.at(gpa + 17, 512), pattern);
        memory.free(gpa);
      }
      const added = memory.addRegion({ bytes: 0x5000 });
      await driver.giveMemory();
      const gpa = memory.alloc(1024, 16, added);
      memory.at(gpa, 16).set(blkHeader(blkRequests.IN, 5));
      queue.add([{ gpa, bytes: 16 }], [{ gpa: gpa + 16, bytes: 513 }]);
      queue.submit();
      assert(await queue.ready());
      assertEquals(memory.at(gpa + 16, 512), pattern);
      queue.poll();
      memory.free(gpa);
      memory.removeRegion(added);
      await driver.giveMemory();
      await driver.close();
      assertEquals(memory.allocations, 0);
    }));
}

Deno.test("VirtioDriver.stop() returns the queues' bases, and restart() resumes from them", () =>
  withDaemon(async ({ start }) => {
    const driver = await start({ queues: 2 });
    const blk = new BlkDriver(driver);
    await Promise.all([1, 2, 3].map((i) => blk.write(i, new Uint8Array(512).fill(i))));
    await blk.flush({ queue: 1 });
    assertEquals(await driver.stop(), [3, 1]);
    await assertRejects(() => blk.read(0, 512), FrontendError, "stopped");
    await driver.restart();
    assertEquals((await blk.read(3, 512)).data[0], 3);
    // Not in the middle of requests: this back-end (7.2) answers GET_VRING_BASE
    // without waiting for them, and signals an eventfd that it has closed.
    for (let round = 0; round < 20; round++) {
      await driver.stop();
      await driver.restart();
      const reads = await Promise.all([1, 2, 3].map((i) => blk.read(i, 512)));
      assertEquals(reads.map(({ data }) => data[0]), [1, 2, 3]);
    }
    assertEquals(await driver.stop(), [64, 1]);
  }, { queues: 2 }));

Deno.test("VirtioDriver.reset() starts over", () =>
  withDaemon(async ({ start }) => {
    const driver = await start();
    const blk = new BlkDriver(driver);
    await blk.write(0, new Uint8Array(512).fill(9));
    await driver.reset();
    assertEquals(driver.queues[0].resumeBase, 0);
    await driver.restart();
    assertEquals((await blk.read(0, 512)).data[511], 9);
    assertEquals(driver.queues[0].resumeBase, 1);
  }));

Deno.test("VirtioDriver.reconnect() resumes, and resubmits requests in flight", () =>
  withDaemon(async ({ start }) => {
    const driver = await start();
    const blk = new BlkDriver(driver);
    await blk.write(0, new Uint8Array(4096).fill(5));
    for (let round = 0; round < 10; round++) {
      const reads = Array.from({ length: 64 }, (_, i) => blk.read(i % 8, 512));
      await Promise.resolve();
      await driver.reconnect();
      for (const { status, data } of await Promise.all(reads)) {
        assertEquals([status, data[0], data[511]], [blkStatus.OK, 5, 5]);
      }
    }
  }));

Deno.test("DriverQueue can be driven by another thread that blocks", () =>
  withDaemon(async ({ start }) => {
    const driver = await start({ queues: [64] });
    const { memory, queues: [queue] } = driver;
    using thread = new WorkerThread<LoadOrder, LoadResult>(
      new URL("./lib/split_queue_worker.ts", import.meta.url),
    );
    const gpa = memory.alloc(1024);
    const order = { memory: memory.handle, queue: queue.handle, gpa, requests: 1000 };
    assertEquals(await thread.run(order), { completed: 1000, failed: 0 });
    memory.free(gpa);
    assertEquals(await driver.stop(), [1000]);
  }));

/** Descriptors and mappings that a front-end costs this process. */
async function held(): Promise<{ fds: number; mappings: number }> {
  await watchesEnded();
  const maps = (await Deno.readTextFile("/proc/self/maps")).split("\n");
  return {
    fds: [...Deno.readDirSync("/proc/self/fd")].length,
    mappings: maps.filter((line) => line.includes("vhostd-frontend")).length,
  };
}

Deno.test("VirtioDriver.close() leaves no descriptor and no mapping", () =>
  withDaemon(async ({ start, socket }) => {
    await (await start()).close();
    const before = await held();
    for (let i = 0; i < 50; i++) {
      await using driver = await VirtioDriver.start(socket);
      const blk = new BlkDriver(driver);
      await blk.read(0, 512);
      // Every second time the connection ends without a stop.
      if (i % 2 === 0) await driver.connection.close();
    }
    assertEquals(await held(), before);
    assertEquals(before.mappings, 0);
  }));

Deno.test("VirtioDriver fails with the cause when the daemon is gone", () =>
  withDaemon(async ({ start, socket }) => {
    const driver = await start();
    const { connection } = driver;
    // A payload that is too long: the daemon disconnects.
    await connection.send(Uint8Array.of(1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255));
    const error = await assertRejects(() => connection.getFeatures(), FrontendError);
    assertEquals(error.reason, "closed");
    const request = () => driver.request(0, [new Uint8Array(16)], [1], { timeoutMs: 300 });
    await assertRejects(request, FrontendError);
    await assertRejects(() => VirtioDriver.start(`${socket}.no`), Error, "ENOENT");
  }));

Deno.test("DriverQueue.create() frees everything when its memory is too small", () => {
  using memory = new SharedMemory(4096);
  const before = [...Deno.readDirSync("/proc/self/fd")].length;
  try {
    DriverQueue.create(memory, { size: 256 });
    throw new Error("Expected no room");
  } catch (error) {
    assert(error instanceof RangeError);
  }
  assertEquals(memory.allocations, 0);
  assertEquals([...Deno.readDirSync("/proc/self/fd")].length, before);
});
