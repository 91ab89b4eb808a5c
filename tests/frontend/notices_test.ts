import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { type AnyDevice, type DeviceServer, serve } from "../../mod.ts";
import blk from "../../backends/blk/mod.ts";
import { mountTmpfs } from "../../tools/lib/scratch.ts";
import {
  BlkDriver,
  FrontendConnection,
  FrontendError,
  SharedMemory,
  UnixConnection,
  VirtioDriver,
} from "../../src/frontend/mod.ts";
import { createEventfd, signalEventfd, watchesEnded } from "../../src/linux/mod.ts";
import { CliProcess } from "./lib/cli_process.ts";
import { withDirectory } from "./lib/directory.ts";
import echo, { Answer } from "./lib/echo_device.ts";

/** Collects notices. */
class Told {
  readonly lines: string[] = [];
  readonly stacks: (string | undefined)[] = [];
  #wake: (() => void) | undefined;

  readonly log = (line: string, stack?: string) => {
    this.lines.push(line);
    this.stacks.push(stack);
    this.#wake?.();
  };

  /** Resolves to the first line that contains a text. */
  async line(text: string): Promise<string> {
    for (;;) {
      const line = this.lines.find((line) => line.includes(text));
      if (line !== undefined) return line;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

/** Runs a test with a served echo device, on the main thread and on a queue thread. */
function forBothPlanes(
  name: string,
  test: (told: Told, socketPath: string, server: DeviceServer) => Promise<void>,
  device: AnyDevice = echo,
): void {
  for (const plane of ["main", "thread"] as const) {
    Deno.test(`${name} (${plane})`, () =>
      withDirectory(async (directory) => {
        const socketPath = `${directory}/echo.sock`;
        const told = new Told();
        await using server = await serve(device, { socketPath, plane, log: told.log });
        await test(told, socketPath, server);
      }));
  }
}

const start = (path: string) => VirtioDriver.start(path, { queues: [256, 256] });

forBothPlanes(
  "a throwing handler is reported once, with its stack and the remedy",
  async (told, path, server) => {
    await using driver = await start(path);
    const fail = () =>
      assertRejects(() => driver.request(0, [Uint8Array.of(Answer.THROW)], [1]), FrontendError);
    await fail();
    const line = await told.line("queue 0 (requestq) is broken");
    assertStringIncludes(line, ", by the device: The device could not make sense of that; a reset");
    assertStringIncludes(told.stacks[told.lines.indexOf(line)]!, "echo_device.ts:");
    for (let i = 0; i < 3; i++) {
      await driver.reset();
      await driver.restart();
      await fail();
    }
    await driver.close();
    await server.close();
    assertEquals(told.lines.length, 2);
    assertMatch(told.lines[1], /^queue 0 \(requestq\) is broken, by the device: 3 more since; /);
  },
);

forBothPlanes(
  "a refused message and missing memory are reported, with the remedy",
  async (told, path) => {
    await using connection = await FrontendConnection.connect(path);
    await connection.setProtocolFeatures(await connection.getProtocolFeatures());
    const message = {
      index: 0,
      flags: 0,
      descriptor: 0x1000n,
      available: 0x2000n,
      used: 0x3000n,
      log: 0n,
    };
    using kick = createEventfd();
    await connection.setVringNum(0, 256);
    await assertRejects(async () => {
      await connection.setVringAddr(message);
      await connection.setVringKick(0, kick.number);
    }, FrontendError);
    const line = await told.line("SET_VRING_ADDR is refused");
    assertStringIncludes(line, "inside guest memory");
    assertStringIncludes(
      line,
      "start QEMU with -object memory-backend-memfd,id=mem,size=SIZE,share=on",
    );
    await assertRejects(() => connection.setVringNum(99, 1), FrontendError);
    assertStringIncludes(await told.line("SET_VRING_NUM is refused"), "got 99");
  },
);

forBothPlanes(
  "guest memory that the device does not share is reported",
  async (told, path, server) => {
    using memory = new SharedMemory(2 ** 22);
    memory.alloc(2 ** 17, 4096); // where a running guest has written
    await using driver = await VirtioDriver.start(path, { queues: [256, 256], memory });
    const { connection } = driver;
    const countKicks = () => server.record().queues[0].kicks;
    while (countKicks() === 0) await connection.getFeatures(); // the driver's first, at its start
    // Memory that was never written to, as with share=off.
    const [descriptor, available, used] = [0, 1, 2].map(() =>
      BigInt(memory.userAddress(memory.alloc(2 ** 16, 4096)))
    );
    await connection.getVringBase(0);
    await connection.setVringAddr({ index: 0, flags: 0, descriptor, available, used, log: 0n });
    using kick = createEventfd();
    await connection.setVringKick(0, kick.number);
    await connection.setVringEnable(0, true);
    // QEMU's kick and then the driver's: an idle ring that restarts gets one each time.
    const kicks = countKicks();
    signalEventfd(kick.number);
    while (countKicks() === kicks) await connection.getFeatures();
    signalEventfd(kick.number);
    const line = await told.line("Guest memory seems not to be shared with queue 0 (requestq)");
    assertStringIncludes(line, "share=on");
    assertEquals(told.lines.length, 1, "the other queue's ring is the driver's");
  },
);

forBothPlanes(
  "a waiting front-end is reported, and one that reconnects is not",
  async (told, path, server) => {
    const first = await start(path);
    await first.close();
    await (await start(path)).close();
    await server.idle();
    assertEquals(told.lines, []);
    await using _driver = await start(path);
    using _second = UnixConnection.connect(path);
    const line = await told.line("A front-end waits: ");
    assertStringIncludes(
      line,
      `(pid ${Deno.pid}) is connected, and one is served at a time; give each`,
    );
  },
);

forBothPlanes("a connection with another protocol is reported", async (told, path) => {
  using connection = UnixConnection.connect(path);
  await connection.send(new TextEncoder().encode("GET /record HTTP/1.1\r\n\r\n"));
  const line = await told.line("A connection is ended: ");
  assertStringIncludes(line, "this socket is for a vhost-user front-end");
});

Deno.test("vhostd reports a broken queue in one line on stderr, with its stack if VHOSTD_TRACE=1", async () => {
  const directory = Deno.makeTempDirSync();
  try {
    for (const trace of ["0", "1"]) {
      const socket = `${directory}/echo.sock`;
      await using cli = new CliProcess(
        ["tests/frontend/lib/echo_device.ts", `--socket-path=${socket}`],
        { env: { VHOSTD_TRACE: trace } },
      );
      await cli.until("listens");
      {
        await using driver = await start(socket);
        const request = () => driver.request(0, [Uint8Array.of(Answer.THROW)], [1]);
        await assertRejects(request, FrontendError);
      }
      const line = await cli.until("\n");
      assertMatch(
        line,
        /^vhostd: echo: queue 0 \(requestq\) is broken, by the device: The device /,
      );
      const { status, stderr } = await cli.stop();
      assertEquals(status, 0);
      if (trace === "0") assertEquals(stderr, "");
      else assert(/RangeError.*\n +at .*echo_device\.ts:/.test(stderr), stderr);
    }
    await watchesEnded();
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a disk whose file system is full is reported in one line, and counted", async () => {
  const directory = Deno.makeTempDirSync();
  const unmount = await mountTmpfs(directory, 1 << 20);
  try {
    if (unmount === undefined) {
      return console.log("skipped: nothing can be mounted; run it as root");
    }
    const blkFile = `${directory}/disk.img`;
    Deno.createSync(blkFile).close();
    Deno.truncateSync(blkFile, 4 << 20);
    const told = new Told();
    {
      const options = { blkFile, numQueues: 1 };
      const socketPath = `${directory}/disk.sock`;
      await using _server = await serve(blk, { socketPath, options, log: told.log });
      await using driver = await VirtioDriver.start(socketPath);
      const disk = new BlkDriver(driver);
      const data = new Uint8Array(64 << 10).fill(1);
      for (let i = 0; i < 64; i++) await disk.write(i * 128, data);
      const line = await told.line("OUT requests fail with ENOSPC");
      assertStringIncludes(
        line,
        ": the host has no room for the image; make room on its file system",
      );
      assertEquals(told.lines.length, 1);
    }
    await watchesEnded();
  } finally {
    unmount?.();
    Deno.removeSync(directory, { recursive: true });
  }
});

forBothPlanes("A slow request is not reported as a refused one", (told, _, server) => {
  server.host.record.slow("SET_FEATURES", "Expected the device to be done, still waiting");
  assertEquals(told.lines, [
    "SET_FEATURES takes long: Expected the device to be done, still waiting",
  ]);
  assertEquals(server.record().errors.latest.map(({ rule }) => rule), ["SET_FEATURES"]);
  return Promise.resolve();
});

forBothPlanes(
  "A message to the data half that fails is reported, and ends nothing where nobody awaits it",
  async (told, _, { host }) => {
    host.control.commands!.send.run(undefined);
    await told.line("A message to the data half failed: Expected onMessage() in the handlers");
  },
  {
    ...echo,
    open: ({ post }) => ({ commands: { send: { about: "Sends", run: () => void post(1) } } }),
  },
);
