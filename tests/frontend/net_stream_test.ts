import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import net from "../../backends/net/mod.ts";
import { OptionError, serve } from "../../mod.ts";
import { rarpPacket } from "../../backends/net/rarp.ts";
import { driverProtocolFeatures } from "../../src/frontend/mod.ts";
import { protocolFeatureMask } from "../../src/vhost_user/mod.ts";
import { Random } from "../../tools/lib/random.ts";
import { CliProcess } from "./lib/cli_process.ts";
import { freePort } from "./lib/free_port.ts";
import { frame, NetDriver, packet } from "./lib/net_driver.ts";
import { type IpFrame, ipFrame } from "../unit/lib/ip_frames.ts";
import { record, StreamPeer } from "../../tools/lib/stream_peer.ts";

const MAX_FRAME_BYTES = 18 + 65_535;

/** A generator with a printed seed. */
function random(): Random {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  console.log(`seed ${seed}`);
  return new Random(seed);
}

interface Place extends Disposable {
  directory: string;
  path: string;
}

function place(): Place {
  const directory = Deno.makeTempDirSync({ prefix: "vhostd-stream-" });
  return {
    directory,
    path: `${directory}/peer.sock`,
    [Symbol.dispose]: () => Deno.removeSync(directory, { recursive: true }),
  };
}

function listen(path: string): Deno.UnixListener {
  return Deno.listen({ transport: "unix", path });
}

/** Collects what a device logs, and waits for a line. */
class Log {
  readonly lines: string[] = [];
  #wake = () => {};

  readonly add = (line: string) => {
    this.lines.push(line);
    this.#wake();
  };

  async until(text: string): Promise<string> {
    for (;;) {
      const line = this.lines.find((line) => line.includes(text));
      if (line !== undefined) return line;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

/** Sends frames until one has reached the peer: it may connect later than the driver. */
async function connected(setUp: NetDriver): Promise<void> {
  while (setUp.report.sent.packets === 0) await setUp.send(packet(frame(60)));
}

for (const transport of ["unix", "tcp"] as const) {
  Deno.test(`net exchanges frames of all sizes with a stream in any pieces (${transport})`, async () => {
    const choice = random();
    using directory = place();
    using listener = transport === "unix"
      ? listen(directory.path)
      : Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const stream = transport === "unix"
      ? directory.path
      : `127.0.0.1:${(listener.addr as Deno.NetAddr).port}`;
    await using setUp = await NetDriver.create({ stream }, { buffer: [2000] });
    using peer = new StreamPeer(await listener.accept());
    const sizes = [
      ...[14, 60, 2048, 2049, 9014, MAX_FRAME_BYTES, MAX_FRAME_BYTES, 14],
      ...Array.from({ length: 200 }, () => choice.between(14, choice.pick([100, 2100, 20_000]))),
    ];
    await connected(setUp);
    assertEquals(await peer.receive(), frame(60));

    const sent = Promise.all(sizes.map((bytes, i) => {
      const whole = packet(frame(bytes, i));
      const cut = choice.between(1, whole.length - 1);
      return setUp.send(whole, { parts: [cut, whole.length - cut] });
    }));
    for (const [i, bytes] of sizes.entries()) assertEquals(await peer.receive(), frame(bytes, i));
    await sent;

    const records = sizes.map((bytes, i) => record(frame(bytes, i)));
    const bytes = new Uint8Array(await new Blob(records).arrayBuffer());
    const written = (async () => {
      for (let at = 0; at < bytes.length;) {
        const piece = bytes.subarray(at, at + choice.between(1, choice.pick([3, 5000, 200_000])));
        await peer.write(piece);
        at += piece.length;
      }
    })();
    for (const [i, bytes] of sizes.entries()) {
      setUp.post(Math.ceil((12 + bytes) / 2000));
      const { frame: received, numBuffers: _, ...header } = await setUp.receive();
      assertEquals(received, frame(bytes, i), `frame ${i} of ${bytes} bytes`);
      assertEquals(Object.values(header).filter((field) => field !== 0), []);
    }
    await written;
    const { sent: out, received } = setUp.report;
    assertEquals([out.packets, received.packets], [sizes.length + 1, sizes.length]);
    assertEquals(received.drops, {});
  });
}

/** A large TCP packet, of which a driver leaves the division and the checksum to the device. */
function large(seed: number, payloadBytes: number, gsoSize: number) {
  const content: IpFrame = {
    ...{ vlans: 0, ip: 4, options: new Uint8Array(), extensions: [], id: 7, fragment: 0 },
    ...{ protocol: "tcp", sequence: 1000 * seed, flags: 0x10, tcpOptions: new Uint8Array() },
    payload: Uint8Array.from({ length: payloadBytes }, (_, i) => i * 7 + seed),
  };
  const header = { flags: 1, gsoType: 1, gsoSize, csumStart: 34, csumOffset: 16, hdrLen: 54 };
  const frames = Array.from({ length: Math.ceil(payloadBytes / gsoSize) }, (_, i) => {
    const payload = content.payload.subarray(i * gsoSize, (i + 1) * gsoSize);
    const sequence = content.sequence + i * gsoSize;
    return ipFrame({ ...content, id: content.id + i, sequence, payload }, "complete");
  });
  return { packet: packet(ipFrame(content, "partial"), header), frames };
}

Deno.test("net divides large packets for a stream, also for a peer that reads slowly", async () => {
  using directory = place();
  using listener = listen(directory.path);
  const setup = { queues: [256, 1024] };
  await using setUp = await NetDriver.create({ stream: directory.path }, setup);
  using peer = new StreamPeer(await listener.accept());
  await connected(setUp);
  assertEquals(await peer.receive(), frame(60));
  assert(["CSUM", "HOST_TSO4", "HOST_USO"].every((name) => setUp.report.offloads.includes(name)));
  // The last ones become as many frames as any packet.
  const packets = Array.from(
    { length: 40 },
    (_, i) => i < 36 ? large(i, 60_000, 1448) : large(i, 65_400, 32),
  );
  const sent = Promise.all(packets.map(({ packet }) => setUp.send(packet)));
  for (const { frames } of packets) {
    for (const expected of frames) assertEquals(await peer.receive(), expected);
  }
  await sent;
  const checksum = { flags: 1, csumStart: 34, csumOffset: 16 };
  const [small] = large(1, 10, 1448).frames;
  await setUp.send(packet(small.with(50, 0).with(51, 0x2e), checksum));
  const completed = (await peer.receive())!;
  assertEquals(completed.with(50, 0).with(51, 0), small.with(50, 0).with(51, 0));
  // Its IP header says that it has 20 bytes of options.
  const wrong = large(1, 3000, 1448).packet;
  wrong[12 + 14] = 0x4a;
  await setUp.send(wrong);
  assertEquals(setUp.report.sent.drops, { header: 1 });
});

Deno.test("net has no offloads for a stream whose frames are as large as any packet", async () => {
  using directory = place();
  using _listener = listen(directory.path);
  await using setUp = await NetDriver.create({ stream: directory.path, mtu: 65_520 });
  assertEquals(setUp.report.offloads, []);
});

Deno.test("net announces a guest that migrated to the peer of its stream", async () => {
  using directory = place();
  using listener = listen(directory.path);
  const protocolFeatures = driverProtocolFeatures | protocolFeatureMask("RARP");
  await using setUp = await NetDriver.create({ stream: directory.path }, { protocolFeatures });
  using peer = new StreamPeer(await listener.accept());
  await connected(setUp);
  assertEquals(await peer.receive(), frame(60));
  const mac = 0x0000_5634_1200_5452n;
  await setUp.driver.connection.sendRarp(mac);
  assertEquals(await peer.receive(), rarpPacket(mac).subarray(12));
});

Deno.test("net gives a driver all frames that came at once, without further ones", async () => {
  using directory = place();
  using listener = listen(directory.path);
  const setup = { queues: [1024, 256] };
  await using setUp = await NetDriver.create({ stream: directory.path }, setup);
  using peer = new StreamPeer(await listener.accept());
  const frames = Array.from({ length: 1000 }, (_, i) => frame(60, i));
  await peer.write(new Uint8Array(await new Blob(frames.map((f) => record(f))).arrayBuffer()));
  setUp.post(1000);
  for (const expected of frames) assertEquals((await setUp.receive()).frame, expected);
});

Deno.test("net completes a frame of a stream when the driver gives the buffers that it lacked", async () => {
  using directory = place();
  using listener = listen(directory.path);
  await using setUp = await NetDriver.create({ stream: directory.path }, { buffer: [1000] });
  using peer = new StreamPeer(await listener.accept());
  for (let i = 0; i < 3; i++) {
    await peer.send(frame(3500, i));
    for (let buffers = 0; buffers < 4; buffers++) {
      setUp.post(1);
      await setUp.send(packet(frame(60)));
    }
    assertEquals((await setUp.receive()).frame, frame(3500, i));
  }
});

Deno.test("net lets packets wait in the ring while a stream is full, and loses none", async () => {
  const choice = random();
  using directory = place();
  using listener = listen(directory.path);
  const setup = { queues: [256, 1024] };
  await using setUp = await NetDriver.create({ stream: directory.path }, setup);
  using peer = new StreamPeer(await listener.accept());
  await connected(setUp);
  const before = setUp.report.sent.packets;
  assertEquals(await peer.receive(), frame(60));
  const sizes = Array.from(
    { length: 1000 },
    () => choice.chance(9, 10) ? choice.between(60, 3000) : MAX_FRAME_BYTES,
  );
  const sent = Promise.all(sizes.map((bytes, i) => setUp.send(packet(frame(bytes, i)))));
  for (const [i, bytes] of sizes.entries()) {
    assertEquals(await peer.receive(), frame(bytes, i), `frame ${i}`);
  }
  await sent;
  assertEquals(setUp.report.sent.packets - before, sizes.length);
});

Deno.test("net stops while its stream is full, and restarts", async () => {
  using directory = place();
  using listener = listen(directory.path);
  const setup = { queues: [256, 1024] };
  await using setUp = await NetDriver.create({ stream: directory.path }, setup);
  using peer = new StreamPeer(await listener.accept());
  await connected(setUp);
  assertEquals(await peer.receive(), frame(60));
  const sent = Array.from({ length: 900 }, (_, i) => setUp.send(packet(frame(3000, i))));
  const ended = Promise.allSettled(sent);
  await sent[0];
  const [, base] = await setUp.driver.stop();
  assert(base < 901, `${base}`);
  await setUp.driver.restart();
  for (let i = 0; i < 900; i++) assertEquals(await peer.receive(), frame(3000, i));
  assert((await ended).every(({ status }) => status === "fulfilled"));
});

Deno.test("net drops and counts packets while a stream has no peer, and connects again", async () => {
  using directory = place();
  const log = new Log();
  await using setUp = await NetDriver.create({ stream: directory.path }, {}, log.add);
  await log.until("retries until it works: connect: No such file or directory (ENOENT)");
  await setUp.send(packet(frame(60)));
  assertEquals(setUp.report.sent.drops, { "no peer": 1 });
  setUp.post(20);
  for (let round = 0; round < 3; round++) {
    using listener = listen(directory.path);
    using peer = new StreamPeer(await listener.accept());
    await peer.send(frame(100, round));
    assertEquals((await setUp.receive()).frame, frame(100, round));
    const { port, connected, connections } = setUp.report;
    assertEquals([port, connected], [`stream to ${directory.path}`, true]);
    assertEquals(connections, round + 1);
    Deno.removeSync(directory.path);
    peer[Symbol.dispose]();
    listener.close();
    const before = setUp.report.sent.drops["no peer"];
    while (setUp.report.sent.drops["no peer"] === before) await setUp.send(packet(frame(60)));
  }
  await log.until("The peer of the network is gone");
});

Deno.test("net closes the connection of a peer that breaks the protocol, and takes the next", async () => {
  using directory = place();
  using listener = listen(directory.path);
  const log = new Log();
  await using setUp = await NetDriver.create({ stream: directory.path }, {}, log.add);
  for (const length of [0, 13, MAX_FRAME_BYTES + 1, 0xffff_ffff]) {
    using peer = new StreamPeer(await listener.accept());
    setUp.post(2);
    await peer.send(frame(80, length));
    await peer.write(record(frame(20), length));
    assertEquals((await setUp.receive()).frame, frame(80, length));
    assertEquals(await peer.receive(), undefined);
  }
  const line = await log.until("broke its protocol");
  assertStringIncludes(line, "Expected the length of a frame, 14 to 65553, got 0x00000000");
  assertEquals(log.lines.filter((line) => line.includes("broke its protocol")).length, 1);
  using peer = new StreamPeer(await listener.accept());
  setUp.post(1);
  await peer.send(frame(80));
  assertEquals((await setUp.receive()).frame, frame(80));
});

Deno.test("net forgets the part of a frame that a peer began", async () => {
  using directory = place();
  using listener = listen(directory.path);
  await using setUp = await NetDriver.create({ stream: directory.path });
  for (const part of [1, 4, 50]) {
    {
      using peer = new StreamPeer(await listener.accept());
      await peer.send(frame(80, part));
      await peer.write(record(frame(80)).subarray(0, part));
    }
    // The port finds the end of the stream when the driver has buffers left.
    setUp.post(4);
    using peer = new StreamPeer(await listener.accept());
    await peer.send(frame(90, part));
    assertEquals((await setUp.receive()).frame, frame(80, part));
    assertEquals((await setUp.receive()).frame, frame(90, part));
  }
});

Deno.test("net listens for one peer after the other, on a path and on TCP", async () => {
  using directory = place();
  listen(directory.path).close(); // a stale socket file
  const port = freePort();
  const ways = [
    {
      streamListen: directory.path,
      connect: () => Deno.connect({ transport: "unix", path: directory.path }),
    },
    { streamListen: `127.0.0.1:${port}`, connect: () => Deno.connect({ port }) },
  ];
  for (const { streamListen, connect } of ways) {
    await using setUp = await NetDriver.create({ streamListen });
    setUp.post(10);
    for (let i = 0; i < 3; i++) {
      const first = new StreamPeer(await connect());
      await first.send(frame(60, i));
      assertEquals((await setUp.receive()).frame, frame(60, i));
      using second = new StreamPeer(await connect());
      await second.send(frame(70, i));
      await setUp.send(packet(frame(60, i)));
      assertEquals(await first.receive(), frame(60, i));
      first[Symbol.dispose]();
      assertEquals((await setUp.receive()).frame, frame(70, i));
    }
    assertEquals(setUp.report.sent.drops, {});
  }
  await assertRejects(() => Deno.stat(directory.path), Deno.errors.NotFound);
});

Deno.test("net --stream looks its peer's name up for each connection", async () => {
  using directory = place();
  const hosts = `${directory.directory}/hosts`;
  const listenAt = (hostname: string, port: number) => Deno.listen({ hostname, port });
  using first = listenAt("127.0.0.1", 0);
  const { port } = first.addr as Deno.NetAddr;
  using second = listenAt("127.0.0.2", port);
  Deno.writeTextFileSync(hosts, "127.0.0.1 peer.test\n");
  const through = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"'];
  const args = ["net", `--socket-path=${directory.directory}/net.sock`];
  await using vhostd = new CliProcess([...args, `--stream=peer.test:${port}`], {
    through: [...through, hosts],
  });
  await vhostd.until("listens on");
  const connection = await first.accept();
  // A card's port notices its peer's end once a driver has given buffers.
  await using card = await NetDriver.join(undefined, `${directory.directory}/net.sock`);
  card.post(1);
  Deno.writeTextFileSync(hosts, "127.0.0.2 peer.test\n");
  connection.close();
  first.close();
  (await second.accept()).close();
  await vhostd.stop();
});

Deno.test("net refuses streams that cannot be", async () => {
  using directory = place();
  using _listener = listen(directory.path);
  for (
    const [options, message] of [
      [{ stream: "localhost:0" }, "--stream=localhost:0: Expected a path or HOST:PORT"],
      [{ stream: ":5555" }, "Expected a path or HOST:PORT"],
      [{ stream: "no.such.host.invalid:1" }, 'Cannot resolve "no.such.host.invalid"'],
      [{ stream: "/a".repeat(60) }, "Expected a socket path of 1 to 107 bytes, got 120"],
      [{ streamListen: directory.path }, "another server is listening there"],
      [{ streamListen: "/nowhere/x" }, "its directory does not exist"],
      [{ streamListen: "192.0.2.77:99" }, "EADDRNOTAVAIL"],
      [{ stream: "/x", queuePairs: 2 }, "has one pair of queues"],
      [{ stream: "/x", streamListen: "/y" }, "Expected one of --tap"],
    ] as const
  ) {
    await assertRejects(
      () => serve(net, { socketPath: `${directory.directory}/net.sock`, options }),
      OptionError,
      message,
    );
  }
});
