/** `--wire`: captures of vhost-user, read back by a strict reader and by the Wireshark dissector. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  BlkDriver,
  FrontendConnection,
  UnixConnection,
  VirtioDriver,
} from "../../src/frontend/mod.ts";
import { createEventfd, pcapng } from "../../src/linux/mod.ts";
import { serve } from "../../mod.ts";
import { ControlSocket } from "../../src/runtime/control_socket.ts";
import { WireCapture } from "../../src/runtime/wire_capture.ts";
import {
  type CapturedPacket,
  decodeCaptured,
  encodeCaptured,
  LINKTYPE_CAPTURE,
} from "../../src/vhost_user/captured_packet.ts";
import { encodeMessage } from "../../src/vhost_user/header.ts";
import {
  AKCIPHER_CREATE_SESSION,
  backendRequests,
  encodePayload,
  frontendRequests,
  type PayloadKind,
  type PayloadValues,
  protocolFeatureMask,
  type RequestRule,
} from "../../src/vhost_user/mod.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { temporaryDirectory } from "./lib/directory.ts";
import echo from "./lib/echo_device.ts";
import {
  type CapturedPacket as PcapngPacket,
  PcapngReader,
  readPcapng,
} from "./lib/pcapng_reader.ts";
import { tshark, tsharkMissing } from "./lib/tshark.ts";

const DISSECTOR = new URL("../../share/wireshark/vhost_user.lua", import.meta.url).pathname;

/** A packet in few words. */
function brief(packet: PcapngPacket): string {
  const { kind, side, channel, connection, fds, bytes } = decodeCaptured(packet.bytes);
  assertEquals(packet.direction, side === "front-end" ? "in" : "out");
  const start = `${connection} ${side}`;
  if (kind !== "message") return `${start} ${kind} ${new TextDecoder().decode(bytes)}`;
  const [id, flags, size] = new Uint32Array(bytes.slice(0, 12).buffer);
  assertEquals(bytes.length, 12 + size);
  const table = Object.entries(channel === "main" ? frontendRequests : backendRequests);
  const name = table.find(([, rule]) => rule.id === id)?.[0] ?? id;
  return [start, name, ...flags & 4 ? ["reply"] : [], ...fds === 0 ? [] : [`fds=${fds}`]].join(" ");
}

Deno.test("a capture has the messages of both sides and channels, and why one was refused", async () => {
  using directory = temporaryDirectory();
  const file = `${directory.path}/wire.pcapng`;
  const before = Date.now();
  {
    await using wire = new WireCapture(file, 2 ** 20, ["echo"], () => {});
    const socketPath = `${directory.path}/echo.sock`;
    const { taps: [tap] } = wire;
    await using server = await serve(echo, { socketPath, plane: "main", wire: tap });
    using call = createEventfd();
    {
      await using connection = await FrontendConnection.connect(socketPath);
      await connection.getFeatures();
      await connection.setProtocolFeatures(
        protocolFeatureMask("REPLY_ACK", "CONFIG", "BACKEND_REQ"),
      );
      const [ours, theirs] = UnixConnection.pair();
      using _ours = ours;
      using _theirs = theirs;
      await connection.setBackendReqFd(theirs.fd);
      await connection.setVringCall(0, call.number);
      await connection.setVringNum(0, 3).catch(() => {});
      await connection.tell({ request: "SET_VRING_CALL", index: 0, noFd: true }, [
        call.number,
        call.number,
      ]).catch(() => {});
    }
    await server.idle();
    await using driver = await VirtioDriver.start(socketPath);
    const { data } = await driver.request(0, [Uint8Array.of(0, 1)], [2]);
    assertEquals(data[0], Uint8Array.of(0, 1));
    const changed = server.host.control.commands!.louder.run(undefined as never);
    assertEquals(changed, { volume: 6 });
    await driver.connection.getConfig(0, 4);
  }
  const { packets, names, linkType } = readPcapng(await Deno.readFile(file));
  assertEquals([linkType, names], [LINKTYPE_CAPTURE, ["echo"]]);
  const all = packets.map(brief);
  assertEquals(all.slice(0, 15), [
    `1 front-end connected deno (pid ${Deno.pid})`,
    "1 front-end GET_FEATURES",
    "1 back-end GET_FEATURES reply",
    "1 front-end SET_PROTOCOL_FEATURES",
    "1 front-end SET_BACKEND_REQ_FD fds=1",
    "1 back-end SET_BACKEND_REQ_FD reply",
    "1 front-end SET_VRING_CALL fds=1",
    "1 back-end SET_VRING_CALL reply",
    "1 front-end SET_VRING_NUM",
    "1 back-end note SET_VRING_NUM: Expected a queue size that is a power of 2 up to 256, got 3",
    "1 back-end SET_VRING_NUM reply",
    "1 front-end SET_VRING_CALL fds=undefined",
    all[12],
    "1 back-end SET_VRING_CALL reply",
    "1 front-end ended the front-end closed the connection",
  ]);
  assertMatch(all[12], /^1 back-end note SET_VRING_CALL: Expected at most 1 file descriptors/);
  assertEquals(
    packets[9].comment,
    "SET_VRING_NUM: Expected a queue size that is a power of 2 up to 256, got 3",
  );
  assertEquals(packets[8].comment, undefined);
  const second = all.slice(15);
  assertEquals(second[0], `2 front-end connected deno (pid ${Deno.pid})`);
  for (const part of ["2 front-end ADD_MEM_REG fds=1", "2 back-end CONFIG_CHANGE_MSG"]) {
    assert(second.includes(part), second.join("\n"));
  }
  let last = before * 1000;
  for (const { timeUs } of packets) {
    assert(timeUs >= last && timeUs <= Date.now() * 1000 + 1000, `${timeUs}`);
    last = timeUs;
  }
});

Deno.test("GET /wire sends the messages of both sides as they come, after the connection's front-end", async () => {
  using directory = temporaryDirectory();
  const socketPath = `${directory.path}/echo.sock`, path = `${directory.path}/echo.ctl`;
  await using server = await serve(echo, { socketPath, plane: "main" });
  await using _control = new ControlSocket(server.host, path);
  await using connection = await FrontendConnection.connect(socketPath);
  await connection.getFeatures();
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  const { body } = await fetch("http://vhostd/wire", { client });
  await connection.getFeatures();
  const reader = new PcapngReader();
  for await (const bytes of body!) {
    reader.add(bytes);
    if (reader.packets.length === 3) break;
  }
  assertEquals([reader.linkType, reader.names], [LINKTYPE_CAPTURE, ["echo"]]);
  assertEquals(reader.packets.map(brief), [
    `1 front-end connected deno (pid ${Deno.pid})`,
    "1 front-end GET_FEATURES",
    "1 back-end GET_FEATURES reply",
  ]);
});

Deno.test("vhostd --wire captures each port of a switch, ends at --wire-max, and closes on SIGTERM", async () => {
  using directory = temporaryDirectory();
  const [a, b, file] = ["a.sock", "b.sock", "wire.pcapng"].map((name) =>
    `${directory.path}/${name}`
  );
  {
    const args = ["switch", `--port=${a}`, `--port=${b}`, `--wire=${file}`, "--wire-max=4K"];
    await using cli = new CliProcess(args);
    await cli.until("b listens on");
    // The last one is taken once the one before it has ended
    for (const path of [a, b, b]) {
      await using connection = await FrontendConnection.connect(path);
      await connection.getFeatures();
    }
    const full = cli.until("the capture has ended");
    await using connection = await FrontendConnection.connect(a);
    for (let i = 0; i < 100; i++) await connection.getFeatures();
    assertMatch(await full, /^vhostd: .*wire.pcapng is full: --wire-max is 4096 bytes; /m);
    await cli.stop("SIGTERM");
  }
  assertEquals((await Deno.stat(file)).mode! & 0o777, 0o600);
  const { packets, names } = readPcapng(await Deno.readFile(file));
  assertEquals(names, ["a", "b"]);
  for (const [name, connection] of [["a", 1], ["b", 2]] as const) {
    const seen = packets.filter(({ port }) => port === name).map(brief);
    assertEquals(seen.slice(1, 4), [
      `${connection} front-end GET_FEATURES`,
      `${connection} back-end GET_FEATURES reply`,
      `${connection} front-end ended the front-end closed the connection`,
    ]);
  }
});

Deno.test("vhostd --wire says in one line what is wrong with its file, and leaves no socket", async () => {
  using directory = temporaryDirectory();
  const socket = `${directory.path}/s`;
  for (
    const [flags, line] of [
      [[`--wire=${directory.path}`], `vhostd: --wire=${directory.path}: `],
      [[`--wire=${directory.path}/none/x`], "ENOENT"],
      [["--wire-max=4K"], "vhostd: --wire-max has no effect without --wire; leave it out"],
      [[`--wire=${directory.path}/x`, "--wire-max=1"], "--wire-max takes 4096"],
    ] as const
  ) {
    const { status, stderr } = await runCli(["rng", `--socket-path=${socket}`, ...flags]);
    assertEquals([status, stderr.trimEnd().split("\n").length], [2, 1], stderr);
    assertStringIncludes(stderr, line);
  }
  assertEquals([...Deno.readDirSync(directory.path)], []);
});

/** A payload of each kind, with a value of its own in each field. */
const region = (n: bigint) => ({
  guestAddress: n << 32n,
  size: n << 12n,
  userAddress: n << 40n,
  mmapOffset: n << 21n,
});
const data = Uint8Array.from({ length: 9 }, (_, i) => 200 + i);
const uuid = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
const samples: { [K in PayloadKind]: PayloadValues[K] } = {
  empty: {},
  u64: { value: 0xff00_0000_0000_0101n },
  optionalU64: { value: 7n },
  vringState: { index: 3, num: 256 },
  vringAddress: { index: 2, flags: 1, descriptor: 0x10n, used: 0x20n, available: 0x30n, log: 4n },
  memory: { regions: [region(1n), region(2n)] },
  memoryRegion: { region: region(3n) },
  log: { size: 4096n, offset: 512n },
  iotlb: { iova: 1n << 60n, size: 2n, userAddress: 3n, permission: 2, type: 4 },
  config: { offset: 6, size: data.length, flags: 1, data },
  configReply: { offset: 6, size: data.length, flags: 1, data },
  vringFd: { index: 200, noFd: true },
  vringArea: { index: 3, noFd: true, size: 4096n, offset: 8192n },
  inflight: { mmapSize: 1n << 20n, mmapOffset: 4096n, numQueues: 258, queueSize: 1024 },
  deviceState: { direction: 1, phase: 0 },
  shared: { uuid },
  cryptoSession: {
    ...{ kind: "asymmetric", opCode: AKCIPHER_CREATE_SESSION, sessionId: -5n, key: data },
    ...{ algorithm: 1, keyType: 2, rsaPadding: 3, rsaHash: 4 },
  },
  cryptoSessionReply: { sessionId: -1n },
  mmap: { shmid: 255, fdOffset: 4096n, shmOffset: 8192n, length: 12288n, writable: true },
};

/** What the dissector shows of a payload: field, value. */
function shownValues(value: object): string[] {
  return Object.entries(value).flatMap(([name, inner]): string[] => {
    const field = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    if (name === "region") return shownValues(inner);
    if (name === "regions") return [`regions=${inner.length}`, ...inner.flatMap(shownValues)];
    if (inner instanceof Uint8Array) {
      return [`${field}=${[...inner].map((byte) => byte.toString(16).padStart(2, "0")).join(":")}`];
    }
    return [`${field}=${inner === true ? 1 : inner}`];
  });
}

/** The leaves of tshark's JSON. */
function* leaves(tree: Record<string, unknown>): Iterable<[string, string]> {
  for (const [name, value] of Object.entries(tree)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (typeof one === "object") yield* leaves(one);
      else yield [name, one];
    }
  }
}

Deno.test({
  name: `the Wireshark dissector decodes every request and reply${tsharkMissing}`,
  ignore: tsharkMissing !== "",
  fn: async () => {
    using directory = temporaryDirectory();
    const file = `${directory.path}/all.pcapng`;
    const blocks: Uint8Array<ArrayBuffer>[] = pcapng.fileHeader(LINKTYPE_CAPTURE, ["all"], 65_536);
    const expected: string[][] = [];
    const put = (packet: Partial<CapturedPacket>, values: string[]) => {
      const whole: CapturedPacket = {
        ...{ kind: "message", side: "front-end", channel: "main", connection: 9, fds: 0 },
        ...{ bytes: new Uint8Array(), ...packet },
      };
      const trailer = pcapng.packetTrailer(pcapng.INBOUND);
      blocks.push(pcapng.packetBlock(0, 1e15 + expected.length, encodeCaptured(whole), trailer));
      expected.push(values.sort());
    };
    for (
      const [channel, table] of [["main", frontendRequests], ["back", backendRequests]] as const
    ) {
      const back = channel === "back";
      for (const [name, rule] of Object.entries(table) as [string, RequestRule][]) {
        const replies = [undefined, rule.reply ?? "u64"] as const;
        for (const reply of replies) {
          const kind = reply ?? rule.payload;
          const bytes = encodeMessage(
            rule.id,
            { reply: reply !== undefined, needReply: reply === undefined },
            encodePayload(kind, samples[kind]),
          );
          const side = back === (reply === undefined) ? "back-end" : "front-end";
          const fields = kind === "cryptoSession"
            ? { opCode: AKCIPHER_CREATE_SESSION, sessionId: -5n }
            : samples[kind];
          put({ channel, side, bytes, fds: 3 }, [
            `request=${name}`,
            `reply=${reply !== undefined}`,
            ...shownValues(fields),
          ]);
        }
      }
    }
    put({ kind: "note", bytes: new TextEncoder().encode("wrong ✗") }, ["text=wrong ✗"]);
    await Deno.writeFile(file, new Blob(blocks).stream());
    const json = await tshark(["-r", file, "-T", "json", "--no-duplicate-keys"], DISSECTOR);
    const noise =
      /kind|side|channel|connection|descriptors|request.|need_reply|version|payload|bit|time|_in/;
    const got = JSON.parse(json).map((
      { _source: { layers } }: { _source: { layers: { vhost_user: Record<string, unknown> } } },
    ) =>
      [...leaves(layers.vhost_user)].map(([name, value]) => {
        const field = name.replace("vhost_user.", "");
        return `${field}=${field === "reply" ? value === "1" || value === "True" : value}`;
      }).filter((text) => !noise.test(text.split("=")[0])).sort()
    );
    for (const [i, values] of expected.entries()) assertEquals(got[i], values, values.join(" "));
    assertEquals(got.length, expected.length);
  },
});

Deno.test({
  name:
    `tshark shows a whole session in words, with the bits and the replies' times${tsharkMissing}`,
  ignore: tsharkMissing !== "",
  fn: async () => {
    using directory = temporaryDirectory();
    const [socket, file] = [`${directory.path}/s`, `${directory.path}/wire.pcapng`];
    {
      await using cli = new CliProcess([
        "blk",
        "--size=1M",
        `--socket-path=${socket}`,
        `--wire=${file}`,
      ]);
      await cli.until("listens on");
      {
        await using driver = await VirtioDriver.start(socket);
        await new BlkDriver(driver).read(0, 512);
      }
      await cli.stop("SIGTERM");
    }
    const fields = ["_ws.col.Info", "vhost_user.time", "vhost_user.malformed"];
    const args = ["-r", file, "-T", "fields", ...fields.flatMap((field) => ["-e", field])];
    const lines = (await tshark(args, DISSECTOR)).trimEnd().split("\n").map((l) => l.split("\t"));
    const text = lines.map(([info]) => info).join("\n");
    assertMatch(text, /^\[1\] SET_VRING_NUM \(acknowledge\): index=0 num=\d+$/m);
    assertMatch(text, /^\[1\] GET_FEATURES reply: .*VERSION_1/m);
    assertMatch(text, /^\[1\] ended: the front-end closed the connection$/m);
    assert(lines.every(([info, time]) => / reply/.test(info) === Number(time || "-1") >= 0), text);
    assert(lines.every(([, , malformed]) => malformed === undefined || malformed === ""), text);
  },
});
