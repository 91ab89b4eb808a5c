import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { FrontendError, VirtioDriver } from "../../src/frontend/mod.ts";
import {
  createEventfd,
  createMemfd,
  drainEventfd,
  Fd,
  ready,
  setNonblocking,
  UnixConnection,
  watchesEnded,
} from "../../src/linux/mod.ts";
import { libc } from "../../src/linux/libc.ts";
import { defineDevice, type DeviceServer, serve } from "../../mod.ts";
import { processState } from "../../tools/lib/process_state.ts";
import { flood, storm } from "../../tools/fuzz/wire/crowd.ts";
import { Tally } from "../../tools/fuzz/frame.ts";
import { withDirectory } from "./lib/directory.ts";
import echo, { Answer } from "./lib/echo_device.ts";

const O_PATH = 0o10000000;

/** Runs a test with a served echo device, on the main thread and on a queue thread. */
function forBothPlanes(
  name: string,
  test: (server: DeviceServer, socketPath: string) => Promise<void>,
): void {
  for (const plane of ["main", "thread"] as const) {
    Deno.test(`${name} (${plane})`, () =>
      withDirectory(async (directory) => {
        const socketPath = `${directory}/echo.sock`;
        await using server = await serve(echo, { socketPath, plane });
        await test(server, socketPath);
      }));
  }
}

const start = (path: string) =>
  VirtioDriver.start(path, { queues: [256, 256], timeoutMs: 60_000, connectMs: 60_000 });

/** Expects that the device answers, with the request's number. */
async function works(driver: VirtioDriver): Promise<void> {
  const { data } = await driver.request(0, [Uint8Array.of(Answer.NOW, 9)], [2]);
  assertEquals(data[0][1], 9);
}

function open(path: string, flags = 0): Fd {
  const fd = libc.open(new TextEncoder().encode(`${path}\0`), flags, 0);
  assertGreater(fd, -1);
  return new Fd(fd);
}

function pipe(): [Fd, Fd] {
  const ends = new Int32Array(2);
  assertEquals(libc.pipe2(ends, 0), 0);
  return [new Fd(ends[0]), new Fd(ends[1])];
}

forBothPlanes(
  "A descriptor that cannot carry signals is refused, and the ring keeps the old one",
  async (server, path) => {
    await using driver = await start(path);
    await works(driver);
    using stack = new DisposableStack();
    const wrong = [
      open("/tmp"),
      open("/tmp", O_PATH),
      open("/dev/null"),
      createMemfd("x", 4096),
      new Fd(libc.epoll_create1(0)),
      new Fd(libc.timerfd_create(1, 0)),
      ...pipe(),
    ].map((fd) => stack.use(fd));
    const before = processState().fds;
    for (const fd of wrong) {
      for (const set of ["setVringKick", "setVringCall", "setVringErr"] as const) {
        await assertRejects(() => driver.connection[set](0, fd.number), FrontendError, "error");
        await works(driver);
      }
      await assertRejects(() => driver.connection.setBackendReqFd(fd), FrontendError, "error");
    }
    assertEquals(processState().fds, before);
    assertEquals(server.record().queues[0].faults, []);
  },
);

forBothPlanes(
  "A ring that cannot start with a change continues without it",
  async (server, path) => {
    await using driver = await start(path);
    const { connection, queues } = driver;
    const starts = () => server.record().queues[0].starts;
    const before = starts();
    const address = {
      index: 0,
      flags: 0,
      descriptor: BigInt(driver.memory.userAddress(queues[0].handle.descriptorGpa)) + 1n,
      available: BigInt(driver.memory.userAddress(queues[0].handle.availableGpa)),
      used: BigInt(driver.memory.userAddress(queues[0].handle.usedGpa)),
      log: 0n,
    };
    using kick = createEventfd();
    const fds = processState().fds;
    await assertRejects(() => connection.setVringAddr(address), FrontendError, "error");
    assertEquals(starts(), before + 1);
    await works(driver);
    // Stopped, then started without an address: the received descriptor is closed.
    await connection.getVringBase(1);
    await connection.setVringAddr({ ...address, index: 1 });
    await assertRejects(() => connection.setVringKick(1, kick.number), FrontendError, "error");
    assertEquals(processState().fds, fds - 1, "the kick of the queue that was stopped is closed");
    await works(driver);
  },
);

forBothPlanes(
  "Unread announcements do not pile up, and end with the connection",
  async (server, path) => {
    const [ours, theirs] = UnixConnection.pair();
    {
      await using driver = await start(path);
      await driver.connection.setBackendReqFd(theirs.fd);
      theirs[Symbol.dispose]();
      // More than the socket's buffer holds.
      for (let i = 0; i < 2000; i++) {
        server.host.onConfigChange!();
        await Promise.resolve();
      }
      await works(driver);
    }
    await server.idle();
    assertEquals(server.record().errors.total <= 1, true);
    // All replies fit into the socket's buffer: none are queued in the process.
    let bytes = 0;
    for (;;) {
      const received = await ours.receive(new Uint8Array(12));
      if (received.bytes === 0) break;
      bytes += received.bytes;
    }
    assertGreater(2000 * 12, bytes - 1);
    await ours.close();
    await using next = await start(path);
    await works(next);
  },
);

forBothPlanes(
  "A front-end that reads no replies is not read from any more, and affects no other",
  async (_server, path) => {
    const tally = new Tally();
    await flood(path, tally);
    assertGreater(tally.counts["flood: questions"], 10);
    await using driver = await start(path);
    await works(driver);
  },
);

forBothPlanes(
  "More connections than the backlog holds leave nothing behind",
  async (server, path) => {
    await (await start(path)).close();
    await server.idle();
    const before = processState().fds;
    const tally = new Tally();
    await storm(path, tally);
    assertGreater(tally.counts["storm: waited"], 100);
    assertGreater(tally.counts["storm: turned away"], 100);
    await using driver = await start(path);
    await works(driver);
    await driver.close();
    await server.idle();
    assertEquals(processState().fds, before);
  },
);

/** Makes the session's timers fire soon while `work` runs. */
async function impatiently<T>(work: () => Promise<T>): Promise<T> {
  const { setTimeout } = globalThis;
  globalThis.setTimeout =
    ((callback: () => void, ms = 0) =>
      setTimeout(callback, ms === 5000 ? 1 : ms)) as typeof globalThis.setTimeout;
  try {
    return await work();
  } finally {
    globalThis.setTimeout = setTimeout;
  }
}

let release: (() => void) | undefined;

/** A device that answers when `release` is called. */
const reluctant = defineDevice({
  name: "reluctant",
  deviceId: 42,
  about: "Answers when it is made to",
  module: import.meta.url,
  queues: { requestq: { about: "Requests" } },
  handlers: () => ({
    queues: {
      requestq: () => new Promise<number>((resolve) => release = () => resolve(0)),
    },
  }),
});

Deno.test("A slow stop is recorded, and still waits for the device", async () => {
  const directory = Deno.makeTempDirSync();
  {
    await using server = await serve(reluctant, { socketPath: `${directory}/s`, plane: "main" });
    await using driver = await VirtioDriver.start(`${directory}/s`, { timeoutMs: 60_000 });
    const answer = driver.request(0, [Uint8Array.of(1)], [1]);
    while (release === undefined) await driver.connection.getFeatures();
    const base = impatiently(() => driver.connection.getVringBase(0));
    while (server.record().errors.total === 0) await new Promise((resolve) => setTimeout(resolve));
    assertEquals(server.record().errors.latest.map(({ rule }) => rule), ["GET_VRING_BASE"]);
    release();
    assertEquals(await base, 1);
    assertEquals((await answer).written, 0);
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});

/** Fills an eventfd's counter and makes writes to it block, as any process that shares it can. */
function fillAndBlock(fd: number): void {
  drainEventfd(fd);
  const most = new Uint8Array(new BigUint64Array([2n ** 64n - 2n]).buffer);
  assertEquals(libc.write(fd, most, 8), 8);
  setNonblocking(fd, false);
}

forBothPlanes("A full, blocking eventfd does not block the device", async (server, path) => {
  await using driver = await start(path);
  using call = createEventfd();
  await driver.connection.setVringCall(0, call.number);
  fillAndBlock(call.number);
  driver.request(0, [Uint8Array.of(Answer.NOW, 1)], [2]).catch(() => {});
  while (server.record().queues[0].requests === 0) await driver.connection.getFeatures();
  // The full eventfd delivers no further signal; others do.
  await driver.connection.setVringCall(0, driver.queues[0].handle.callFd);
  await works(driver);
  const kick = driver.queues[0].handle.kickFd;
  drainEventfd(kick);
  setNonblocking(kick, false);
  await works(driver);
  assertEquals(server.record().errors.total, 0);
});

forBothPlanes("An interrupt that the driver has not read yet stays", async (_server, path) => {
  await using driver = await start(path);
  using full = createEventfd();
  using unread = createEventfd();
  await driver.connection.setVringCall(0, full.number);
  await driver.connection.setVringCall(1, unread.number);
  drainEventfd(unread.number);
  fillAndBlock(full.number);
  const event = driver.request(1, [], [4]);
  driver.request(0, [Uint8Array.of(Answer.NOW, 1)], [2]).catch(() => {});
  await ready(unread.number);
  await impatiently(() => driver.connection.getVringBase(0));
  assertEquals(drainEventfd(unread.number), true);
  await driver.connection.setVringCall(1, driver.queues[1].handle.callFd);
  assertEquals((await event).written, 1);
});

/** Runs a script in a process with a low limit of descriptors. */
async function withFewDescriptors(most: number, script: string): Promise<string> {
  const url = (path: string) => JSON.stringify(import.meta.resolve(path));
  const child = new Deno.Command("sh", {
    args: [
      "-c",
      `ulimit -n ${most}; exec "$0" run --quiet --allow-all --ext=ts -`,
      Deno.execPath(),
    ],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(`
    import { serve } from ${url("../../mod.ts")};
    import { FrontendConnection, VirtioDriver } from ${url("../../src/frontend/mod.ts")};
    import { createEventfd, expectDescriptors, Fd } from ${url("../../src/linux/mod.ts")};
    import echo from ${url("./lib/echo_device.ts")};
    const socketPath = Deno.makeTempDirSync() + "/s";
    ${script}
    Deno.exit(0);
  `));
  await writer.close();
  const { stdout, stderr } = await child.output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert(err === "", err);
  return out.trim();
}

Deno.test("A process without free descriptors refuses requests that need one, and continues", async () => {
  const out = await withFewDescriptors(
    128,
    `
    await using server = await serve(echo, { socketPath, plane: "main" });
    const driver = await VirtioDriver.start(socketPath, { queues: [64, 64] });
    const fd = createEventfd();
    const taken: Fd[] = [];
    try { for (;;) taken.push(createEventfd()); } catch { /* there are none left */ }
    const why = await driver.connection.setVringErr(0, fd.number).catch((error) => error.reason);
    const { data } = await driver.request(0, [Uint8Array.of(0, 5)], [2]);
    console.log(why, data[0][1], server.record().errors.latest.at(-1).message);
    for (const one of taken) one.close();
    await driver.connection.setVringErr(0, fd.number);
    console.log("again", (await driver.request(0, [Uint8Array.of(0, 6)], [2])).data[0][1]);
  `,
  );
  assertEquals(out.split("\n"), [
    "refused 5 Expected at most 1 file descriptors, got more, or more than this process has room for",
    "again 6",
  ]);
});

Deno.test("A thread without free descriptors does not start, and its requests are refused", async () => {
  const out = await withFewDescriptors(
    160,
    `
    const said: string[] = [];
    await using server = await serve(echo, {
      ...{ socketPath, threads: 16, options: { queues: 16 }, log: (line) => said.push(line) },
    });
    await server.host.ready;
    const lost = said.length;
    console.log(lost > 0 && lost < 15, said[0]);
    await using driver = await VirtioDriver.start(socketPath, { queues: [64] });
    const why = await driver.connection.setVringCall(15, driver.queues[0].handle.callFd)
      .catch((error) => error.reason);
    console.log(why, (await driver.request(0, [Uint8Array.of(0, 6)], [2])).data[0][1]);
    // With as many descriptors as a front-end can send.
    await driver.connection.send(new Uint8Array(12), new Array(200).fill(driver.queues[0].handle.callFd))
      .catch(() => {});
    await driver.connection.getFeatures().catch(() => {});
    await driver.close();
    await server.idle();
    await using next = await VirtioDriver.start(socketPath, { queues: [64] });
    console.log("again", (await next.request(0, [Uint8Array.of(0, 7)], [2])).data[0][1]);
  `,
  );
  const [first, second, third] = out.split("\n");
  assert(
    /^true The thread of queue \d+ cannot be started: eventfd: Too many open/.test(first),
    first,
  );
  assertEquals([second, third], ["refused 6", "again 7"]);
});

Deno.test("A SET_MEM_TABLE without enough free descriptors changes nothing, and stops no ring", async () => {
  const out = await withFewDescriptors(
    256,
    `
    const { libc } = await import(${
      JSON.stringify(import.meta.resolve("../../src/linux/libc.ts"))
    });
    const { SharedMemory } = await import(${
      JSON.stringify(import.meta.resolve("../../src/frontend/mod.ts"))
    });
    await using server = await serve(echo, { socketPath, plane: "main" });
    const memory = new SharedMemory(Array(6).fill({ bytes: 1 << 20 }));
    // Sealed against sealing: they can shrink, and each costs a descriptor.
    for (const { fd } of memory.regions) libc.fcntl(fd.number, 1033, 1);
    const driver = await VirtioDriver.start(socketPath, { queues: [64], useMemSlots: false, memory });
    const starts = () => server.record().queues[0].starts;
    const before = starts();
    const taken: Fd[] = [];
    try { for (;;) taken.push(createEventfd()); } catch { /* there are none left */ }
    // Enough for the received descriptors, and for some of the guard's.
    for (const one of taken.splice(0, 9)) one.close();
    const why = await driver.connection.setMemTable(memory).catch((error) => error.reason);
    console.log(why, server.record().errors.latest.at(-1).message.includes("EMFILE"));
    console.log((await driver.request(0, [Uint8Array.of(0, 5)], [2])).data[0][1], starts() - before);
    for (const one of taken) one.close();
    await driver.connection.setMemTable(memory);
    console.log((await driver.request(0, [Uint8Array.of(0, 6)], [2])).data[0][1], starts() - before);
  `,
  );
  assertEquals(out.split("\n"), ["refused true", "5 0", "6 1"]);
});
