/** Captures: files and live ones, read back by a strict reader and by tshark. */
import {
  assert,
  assertEquals,
  assertGreater,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { CaptureRing, ringMemory } from "../../backends/net/capture/capture_ring.ts";
import { Recorder } from "../../backends/net/capture/recorder.ts";
import { serve } from "../../mod.ts";
import net from "../../backends/net/mod.ts";
import { OptionError } from "../../mod.ts";
import {
  AppendedFile,
  CaptureStream,
  pcapng,
  pinnedBuffer,
  readNow,
  ready,
  writeNow,
} from "../../src/linux/mod.ts";
import { ControlSocket } from "../../src/runtime/control_socket.ts";
import { smallTmpfs } from "./lib/block_devices.ts";
import { frame, NetDriver, packet } from "./lib/net_driver.ts";
import { packetSockets } from "../../tools/lib/packet_sockets.ts";
import { PcapngReader, readPcapng } from "./lib/pcapng_reader.ts";
import { tshark, tsharkMissing } from "./lib/tshark.ts";

async function scratch(made: AsyncDisposableStack): Promise<string> {
  const directory = await Deno.makeTempDir();
  made.defer(() => Deno.remove(directory, { recursive: true }));
  return directory;
}

for (const { name, ...setup } of [{ name: "split" }, { name: "packed", packed: true }]) {
  Deno.test(`net --pcap captures packets both ways as they are (${name})`, async () => {
    await using made = new AsyncDisposableStack();
    const pcap = `${await scratch(made)}/net.pcapng`;
    const [fd, peer] = packetSockets();
    made.defer(() => peer.close());
    const before = Date.now();
    const sizes = [14, 15, 60, 1514, 9000, 18 + 65_535];
    {
      await using setUp = await NetDriver.create({ tapFd: `${fd}`, pcap }, {
        ...setup,
        buffer: [700],
      });
      for (const [i, bytes] of sizes.entries()) {
        await setUp.send(packet(frame(bytes, i)), { parts: [5, 7, 6, bytes - 6] });
        writeNow(peer.number, packet(frame(bytes, i + 100)));
        setUp.post(Math.ceil((12 + bytes) / 700));
        await setUp.receive();
      }
      await setUp.send(new Uint8Array(20));
      assertEquals(setUp.report.pcap.captured, 13);
    }
    const { packets, ...capture } = readPcapng(await Deno.readFile(pcap));
    assertEquals([capture.linkType, capture.names], [1, ["inherited socket"]]);
    assertEquals(capture.statistics, undefined);
    assertEquals(packets.length, 13);
    for (const [i, bytes] of sizes.entries()) {
      const [out, received] = packets.slice(2 * i);
      assertEquals([out.direction, received.direction], ["out", "in"]);
      assertEquals([out.bytes, received.bytes], [frame(bytes, i), frame(bytes, i + 100)]);
    }
    assertEquals(packets[12].comment, "dropped: tiny");
    assertEquals(packets[12].bytes, new Uint8Array(8));
    let last = before * 1000;
    for (const { timeUs } of packets) {
      assert(timeUs >= last && timeUs <= Date.now() * 1000 + 1000, `${timeUs}`);
      last = timeUs;
    }
    assertEquals((await Deno.stat(pcap)).mode! & 0o777, 0o600);
  });
}

Deno.test("net --pcap-snap captures beginnings, and --pcap comments on what is dropped", async () => {
  await using made = new AsyncDisposableStack();
  const pcap = `${await scratch(made)}/net.pcapng`;
  const [fd, peer] = packetSockets();
  made.defer(() => peer.close());
  {
    const options = { tapFd: `${fd}`, pcap, pcapSnap: 100, loss: "rx:100%" };
    await using setUp = await NetDriver.create(options, { buffer: [700] });
    setUp.post(10);
    writeNow(peer.number, packet(frame(1000, 1)));
    do await setUp.send(packet(frame(99, 2))); while (
      setUp.report.received.drops.loss === undefined
    );
    await setUp.command("link", { up: false });
    await setUp.send(packet(frame(101, 3)));
    assertEquals(setUp.report.sent.drops, { "link down": 1 });
  }
  const { packets, snapBytes } = readPcapng(await Deno.readFile(pcap));
  assertEquals(snapBytes, 100);
  const [lost] = packets.filter(({ direction }) => direction === "in");
  assertEquals([lost.comment, lost.originalBytes], ["dropped: loss", 1000]);
  assertEquals(lost.bytes, frame(1000, 1).subarray(0, 100));
  const last = packets.at(-1)!;
  assertEquals([last.comment, last.originalBytes], ["dropped: link down", 101]);
  assertEquals(packets.find(({ direction }) => direction === "out")!.bytes, frame(99, 2));
});

Deno.test("net --pcap and --delay know that a legacy driver's header is shorter", async () => {
  await using made = new AsyncDisposableStack();
  const pcap = `${await scratch(made)}/net.pcapng`;
  const [fd, peer] = packetSockets();
  made.defer(() => peer.close());
  const short = (bytes: Uint8Array) => Uint8Array.from([...bytes.slice(0, 10), ...bytes.slice(12)]);
  {
    const setup = { isLegacy: true, mergeable: false, buffer: [10, 1514] };
    await using setUp = await NetDriver.create({ tapFd: `${fd}`, pcap, delay: "1ms" }, setup);
    await setUp.send(short(packet(frame(300, 1))), { parts: [4, 200, 106] });
    await ready(peer.number, "readable");
    const into = new Uint8Array(pinnedBuffer(4096));
    assertEquals(into.subarray(0, readNow(peer.number, into)), packet(frame(300, 1)));
    writeNow(peer.number, packet(frame(400, 2)));
    const { data, written } = await setUp.driver.request(0, [], [10, 1514]);
    const received = Uint8Array.from(data.flatMap((part) => [...part])).subarray(0, written);
    assertEquals(received, short(packet(frame(400, 2))));
  }
  const { packets } = readPcapng(await Deno.readFile(pcap));
  assertEquals(packets.map(({ bytes }) => bytes), [frame(300, 1), frame(400, 2)]);
});

Deno.test("net --pcap-max ends the file at a whole packet, and says so; packets go on", async () => {
  await using made = new AsyncDisposableStack();
  const pcap = `${await scratch(made)}/net.pcapng`;
  const said = Promise.withResolvers<string>();
  await using setUp = await NetDriver.create({ null: true, pcap, pcapMax: 8192 }, {}, said.resolve);
  for (let i = 0; i < 20; i++) await setUp.send(packet(frame(1000, i)));
  assertStringIncludes(await said.promise, "net.pcapng is full: --pcap-max is 8192 bytes");
  const file = await Deno.readFile(pcap);
  const { packets } = readPcapng(file);
  assert(file.length <= 8192 && file.length > 8192 - 1100, `${file.length}`);
  assertEquals(packets.map(({ bytes }) => bytes), packets.map((_, i) => frame(1000, i)));
  await setUp.send(packet(frame(60)));
  assertEquals([setUp.report.sent.packets, setUp.report.pcap.file.state], [21, "full"]);
});

Deno.test("net --pcap says what is wrong with its file", async () => {
  await using made = new AsyncDisposableStack();
  const directory = await scratch(made);
  await new Deno.Command("mkfifo", { args: [`${directory}/pipe`] }).output();
  using _taken = new AppendedFile(`${directory}/taken`);
  for (
    const [pcap, why] of [
      [directory, "EISDIR"],
      [`${directory}/none/x`, "ENOENT"],
      [`${directory}/pipe`, "ENXIO"],
      ["/dev/null", "Expected a file at /dev/null, got a device"],
      [`${directory}/taken`, "/taken, which is being written"],
    ]
  ) {
    const options = { null: true, pcap };
    const error = await assertRejects(
      () => serve(net, { socketPath: `${directory}/s`, options }),
      OptionError,
    );
    assertStringIncludes(error.message, `--pcap=${pcap}: `);
    assertStringIncludes(error.message, why);
  }
});

Deno.test("net --pcap says that its disk is full, and packets go on", async () => {
  if (Deno.uid() !== 0) return console.log("skipped: a small tmpfs needs root");
  const said = Promise.withResolvers<string>();
  using small = smallTmpfs("64k");
  const options = { null: true, pcap: `${small.path}/net.pcapng` };
  await using setUp = await NetDriver.create(options, {}, said.resolve);
  for (let i = 0; i < 100; i++) await setUp.send(packet(frame(1514, i)));
  assertStringIncludes(await said.promise, "ENOSPC");
  await setUp.send(packet(frame(60)));
  assertEquals([setUp.report.sent.packets, setUp.report.pcap.file.state], [101, "failed"]);
  // A port that names the file after it has failed captures nothing.
  await using late = await NetDriver.create(options);
  while (late.report.pcap.readers > 0) await late.send(packet(frame(60)));
});

/** A client of `GET /pcap`. */
class Live implements AsyncDisposable {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #capture = new PcapngReader();

  private constructor(readonly client: Deno.HttpClient, body: ReadableStream<Uint8Array>) {
    this.#reader = body.getReader();
  }

  static async open(path: string): Promise<Live> {
    const client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
    const response = await fetch("http://vhostd/pcap", { client });
    assertEquals(response.status, 200);
    return new Live(client, response.body!);
  }

  /** Reads until the capture fulfils a condition. */
  async until(isEnough: (capture: PcapngReader) => boolean): Promise<PcapngReader> {
    while (!isEnough(this.#capture)) {
      const { value, done } = await this.#reader.read();
      assert(!done, "Expected more packets");
      this.#capture.add(value);
    }
    return this.#capture;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader.cancel();
    this.client.close();
  }
}

Deno.test("GET /pcap sends packets as they come to several clients, and capturing ends with the last", async () => {
  await using made = new AsyncDisposableStack();
  const path = `${await scratch(made)}/control`;
  await using setUp = await NetDriver.create({ null: true }, { pairs: 2 });
  await using _control = new ControlSocket(setUp.server.host, path);
  await setUp.send(packet(frame(60, 1)));
  assertEquals(setUp.report.pcap, undefined);
  {
    await using first = await Live.open(path);
    await setUp.send(packet(frame(61, 2)));
    await first.until(({ packets }) => packets.length === 1);
    await using second = await Live.open(path);
    await setUp.send(packet(frame(62, 3)), { pair: 1 });
    await setUp.send(packet(frame(63, 4)), { pair: 0 });
    const lengths = async (live: Live, count: number) =>
      (await live.until(({ packets }) => packets.length === count)).packets
        .map(({ bytes }) => bytes.length).sort();
    assertEquals(await lengths(first, 3), [61, 62, 63]);
    assertEquals(await lengths(second, 2), [62, 63]);
    assertEquals(setUp.report.pcap.readers, 2);
  }
  while (setUp.report.pcap.readers > 0) await setUp.send(packet(frame(60)));
  const { captured } = setUp.report.pcap;
  await setUp.send(packet(frame(60)));
  assertGreater(captured, 2);
});

Deno.test("GET /pcap: a client that reads too slowly learns how many packets it missed; the guest misses none", async () => {
  await using made = new AsyncDisposableStack();
  const path = `${await scratch(made)}/control`;
  await using setUp = await NetDriver.create({ null: true }, { queues: [256, 256] });
  await using _control = new ControlSocket(setUp.server.host, path);
  await using slow = await Live.open(path);
  const large = packet(frame(18 + 65_535));
  const count = 250;
  for (let i = 1; i <= count; i++) await setUp.send(large);
  assertEquals(setUp.report.sent.packets, count);
  await setUp.send(packet(frame(60)));
  const capture = await slow.until(({ statistics }) => statistics !== undefined);
  assertGreater(capture.statistics!.dropped, 0);
  assertStringIncludes(capture.statistics!.comment, "not in this capture");
});

Deno.test("GET /pcap: clients that a card could not serve take no place from later ones", async () => {
  await using recorder = new Recorder({ pcapSnap: 100, pcapMax: 4096, pcap: undefined }, {
    ...{ name: "x", pairs: 1, log() {} },
    post: () => Promise.reject(new Error("No answer")),
  });
  for (let i = 0; i < 10; i++) await assertRejects(() => recorder.open(), Error, "No answer");
});

Deno.test("CaptureStream holds no more for a reader that reads nothing than its limit, however often it loses packets", async () => {
  const header = pcapng.fileHeader(1, ["x"], 100);
  const stream = new CaptureStream(header, 1000, () => {});
  for (let i = 0; i < 10_000; i++) {
    stream.lose(1);
    stream.tell();
  }
  stream.end();
  const reader = new PcapngReader();
  let bytes = 0;
  for await (const block of stream.stream) {
    bytes += block.length;
    reader.add(block);
  }
  assert(bytes < 1500, `${bytes}`);
  assertEquals(reader.statistics!.dropped, 10_000);
});

Deno.test("the ring of captured packets gives what it got, and counts what it lost", () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  let state = seed;
  const random = (below: number) => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) % below;
  const memory = ringMemory();
  const [writer, reader] = [new CaptureRing(memory), new CaptureRing(memory)];
  let next = 0, expected = 0, lost = 0;
  for (let i = 0; i < 5000; i++) {
    if (random(100) < 97) {
      const bytes = 16 + 4 * random(16_000);
      const at = writer.reserve(bytes);
      if (at < 0) {
        lost++;
      } else {
        writer.words.fill(next++, at / 4, (at + bytes) / 4);
        writer.words[at / 4 + 1] = bytes;
        writer.commit(bytes);
      }
    } else {
      for (const piece of reader.take()) {
        const words = new Uint32Array(piece.buffer);
        for (let at = 0; at < words.length; expected++) {
          assertEquals([words[at], words[at + 2]], [expected, expected], `seed ${seed}`);
          at += words[at + 1] / 4;
        }
      }
      assertEquals(expected, next, `seed ${seed}`);
    }
  }
  assertEquals([writer.captured, reader.lost], [next, lost]);
  assertGreater(lost, 0);
});

Deno.test({
  name: `tshark reads what net --pcap writes${tsharkMissing}`,
  ignore: tsharkMissing !== "",
  fn: async () => {
    await using made = new AsyncDisposableStack();
    const pcap = `${await scratch(made)}/net.pcapng`;
    {
      const options = { null: true, pcap, loss: "tx:50%", seed: 3 };
      await using setUp = await NetDriver.create(options, { pairs: 2 });
      for (let i = 0; i < 100; i++) await setUp.send(packet(frame(60 + i, i)), { pair: i & 1 });
    }
    const { packets } = readPcapng(await Deno.readFile(pcap));
    const fields = [
      "frame.len",
      "frame.packet_flags_direction",
      "frame.comment",
      "frame.interface_name",
    ];
    const args = ["-r", pcap, "-T", "fields", ...fields.flatMap((field) => ["-e", field])];
    const text = await tshark(args);
    const lines = text.trimEnd().split("\n").map((line) => line.split("\t"));
    assertEquals(
      lines.map((
        [length, direction, comment, name],
      ) => [Number(length), +direction, comment, name]),
      packets.map(({ bytes, comment = "" }) => [bytes.length, 2, comment, "null"]),
    );
  },
});
