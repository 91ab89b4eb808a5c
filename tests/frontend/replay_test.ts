/** `vhostd replay`: front-ends that `--wire` captured, against devices. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  BlkDriver,
  FrontendConnection,
  protocolFeatureMask,
  VirtioDriver,
} from "../../src/frontend/mod.ts";
import { createMemfd, pcapng } from "../../src/linux/mod.ts";
import { serve, type ServeOptions } from "../../mod.ts";
import blk from "../../backends/blk/mod.ts";
import rng from "../../backends/rng/mod.ts";
import { readRecording } from "../../src/frontend/recording.ts";
import { Replay } from "../../src/frontend/replay.ts";
import { LINKTYPE_CAPTURE } from "../../src/vhost_user/captured_packet.ts";
import { WireCapture } from "../../src/runtime/wire_capture.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { temporaryDirectory } from "./lib/directory.ts";
import echo from "./lib/echo_device.ts";

type Device = Parameters<typeof serve>[0];

/** Serves a device while `work` uses its socket, and returns the capture. */
async function captured(
  device: Device,
  options: Partial<ServeOptions>,
  work: (path: string) => Promise<void>,
): Promise<Uint8Array> {
  using directory = temporaryDirectory();
  const [socketPath, file] = [`${directory.path}/s`, `${directory.path}/wire.pcapng`];
  {
    await using wire = new WireCapture(file, 2 ** 20, [device.name], () => {});
    await using _server = await serve(device, { ...options, socketPath, wire: wire.taps[0] });
    await work(socketPath);
  }
  return await Deno.readFile(file);
}

/** Plays all connections of a capture against a device; returns the first difference. */
async function replayed(file: Uint8Array, device: Device, options: Partial<ServeOptions> = {}) {
  using directory = temporaryDirectory();
  const socketPath = `${directory.path}/s`;
  await using server = await serve(device, { ...options, socketPath });
  await using replay = new Replay(socketPath, 60_000);
  for (const connection of readRecording(file)) {
    const difference = await replay.play(connection);
    if (difference !== undefined) return { difference, record: server.record() };
  }
  await server.idle();
  return { difference: undefined, record: server.record() };
}

/** Its driver starts two queues, also where there is one processor. */
const disk = { options: { size: 2 ** 20, numQueues: 2 } };

for (const packed of [false, true]) {
  const rings = packed ? "packed" : "split";
  Deno.test(`a driver's session with stops, reconnections and in-flight records replays (${rings})`, async () => {
    const file = await captured(blk, disk, async (path) => {
      for (let i = 0; i < 2; i++) {
        await using driver = await VirtioDriver.start(path, { packed, queues: [64, 64] });
        const requests = new BlkDriver(driver);
        for (let sector = 0; sector < 70; sector++) {
          await requests.write(sector, new Uint8Array(512));
        }
        await driver.connection.getConfig(0, 60);
        // The next start is at another base, in memory that is in use.
        const base = await driver.connection.getVringBase(0);
        await driver.connection.setVringBase(0, base);
      }
    });
    const { difference, record } = await replayed(file, blk, disk);
    assertEquals(difference, undefined);
    assertEquals(record.queues.map(({ requests }) => requests).slice(0, 2), [0, 0]);
    assertEquals([record.errors.total, record.queues[0].faults], [0, []]);
    assertEquals(record.connections.total, 2);
    assertEquals(record.queues[0].starts, 2);
  });
}

Deno.test("a device that answers otherwise differs where it does, in words", async () => {
  const file = await captured(blk, disk, async (path) => {
    await using connection = await FrontendConnection.connect(path);
    await connection.getFeatures();
    await connection.setProtocolFeatures(protocolFeatureMask("CONFIG"));
    await connection.getConfig(0, 8);
  });
  const other = await replayed(file, blk, { options: { ...disk.options, size: 2 ** 21 } });
  assertEquals(other.difference, {
    ...{ message: 3, request: "GET_CONFIG" },
    recorded: "offset=0 size=8 flags=0 data=0008000000000000",
    got: "offset=0 size=8 flags=0 data=0010000000000000",
  });
  const { difference } = await replayed(file, rng);
  assertEquals([difference!.message, difference!.request], [1, "GET_FEATURES"]);
  assertMatch(difference!.recorded, /^value=0x\w+ \(.*VERSION_1/);
});

Deno.test("refusals, too many descriptors and an end by the back-end replay as they were", async () => {
  const file = await captured(echo, { plane: "main" }, async (path) => {
    {
      await using connection = await FrontendConnection.connect(path);
      await connection.setProtocolFeatures(protocolFeatureMask("REPLY_ACK"));
      await connection.setVringNum(0, 3).catch(() => {});
      using memory = createMemfd("short", 4096);
      const size = 2n ** 64n - 1n;
      const region = { guestAddress: 0n, size, userAddress: 0n, mmapOffset: size };
      const table = { request: "SET_MEM_TABLE" as const, regions: [region] };
      await connection.tell(table, [memory.number]).catch(() => {});
      const bytes = Uint8Array.of(13, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0);
      await connection.send(bytes, [0, 1]);
      await connection.receive();
    }
    await using connection = await FrontendConnection.connect(path);
    await connection.send(Uint8Array.of(200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0));
    assertEquals(await connection.receive(), undefined);
  });
  assertMatch(readRecording(file)[1].endedByBackend!, /Expected a request that is known, got 200/);
  const { difference, record } = await replayed(file, echo, { plane: "main" });
  assertEquals(difference, undefined);
  assertEquals(record.errors.latest.map(({ rule }) => rule), [
    "SET_VRING_NUM",
    "SET_MEM_TABLE",
    "SET_VRING_CALL",
    "request 200",
  ]);
});

Deno.test("vhostd replay prints the outcome, and its exit status tells it", async () => {
  using directory = temporaryDirectory();
  const socket = `--socket-path=${directory.path}/s`;
  const file = `${directory.path}/wire.pcapng`;
  await Deno.writeFile(
    file,
    await captured(rng, {}, async (path) => {
      await using driver = await VirtioDriver.start(path);
      await driver.request(0, [], [16]);
    }),
  );
  await using cli = new CliProcess(["rng", socket]);
  await cli.until("listens on");
  const same = await runCli(["replay", file, socket]);
  assertEquals([same.status, same.stderr], [0, ""]);
  assertMatch(same.stdout, /^1 connection, \d+ messages: all answers are as recorded\n$/);
  await cli.stop("SIGTERM");
  await using other = new CliProcess(["blk", "--size=1M", socket]);
  await other.until("listens on");
  const differs = await runCli(["replay", file, socket]);
  assertEquals([differs.status, differs.stderr], [1, ""]);
  assertMatch(
    differs.stdout,
    /^connection 1, message 1, GET_FEATURES\n {2}recorded {2}value=.*\n {2}got {7}value=.*\n$/,
  );
  const json = await runCli(["replay", file, socket, "--json"]);
  assertEquals(json.status, 1);
  assertEquals(JSON.parse(json.stdout).difference.request, "GET_FEATURES");
});

Deno.test("vhostd replay says in one line what is wrong with its input", async () => {
  using directory = temporaryDirectory();
  const file = (name: string, bytes: Uint8Array) => {
    Deno.writeFileSync(`${directory.path}/${name}`, bytes);
    return `${directory.path}/${name}`;
  };
  const headerOf = async (linkType: number) =>
    new Uint8Array(await new Blob(pcapng.fileHeader(linkType, ["x"], 64)).arrayBuffer());
  const whole = await captured(rng, {}, async (path) => {
    await using connection = await FrontendConnection.connect(path);
    await connection.getFeatures();
  });
  {
    await using wire = new WireCapture(`${directory.path}/two`, 2 ** 20, ["a", "b"], () => {});
    for (const tap of wire.taps) tap.connected(null);
  }
  const socket = `--socket-path=${directory.path}/none`;
  for (
    const [args, line] of [
      [[file("whole", whole)], "Expected --socket-path, got none"],
      [[`${directory.path}/none`, socket], "No such file or directory\n"],
      [
        [file("text", new Uint8Array(100).fill(65)), socket],
        "Expected a little-endian pcapng file",
      ],
      [[file("packets", await headerOf(1)), socket], "Expected a capture of vhost-user messages"],
      [[file("empty", await headerOf(LINKTYPE_CAPTURE)), socket], "Expected a connection in"],
      [[`${directory.path}/whole`, socket], "ENOENT"],
      [[`${directory.path}/whole`, socket, "--instance=b"], "of device b"],
      [[`${directory.path}/two`, socket], "has several devices: a, b"],
    ] as const
  ) {
    const { status, stderr, stdout } = await runCli(["replay", ...args]);
    assertEquals([status, stdout, stderr.trimEnd().split("\n").length], [2, "", 1], stderr);
    assertStringIncludes(stderr, line);
  }
});

Deno.test("a damaged capture is refused, and never more than that", async () => {
  const whole = await captured(rng, {}, async (path) => {
    await using driver = await VirtioDriver.start(path);
    await driver.request(0, [], [16]);
  });
  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  let state = seed;
  const random = (below: number) => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) % below;
  for (let i = 0; i < 2000; i++) {
    const damaged = whole.slice(0, random(4) === 0 ? random(whole.length) : whole.length);
    for (let n = random(4); n > 0 && damaged.length > 0; n--) {
      damaged[random(damaged.length)] = random(256);
    }
    try {
      readRecording(damaged);
    } catch (error) {
      assertEquals([(error as Error).name], ["RangeError"], `seed ${seed}: ${error}`);
    }
  }
});
