import { createSocket } from "node:dgram";
import { once } from "node:events";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import net from "../../backends/net/mod.ts";
import { OptionError, serve } from "../../mod.ts";
import { libc } from "../../src/linux/libc.ts";
import { pinnedBuffer, readNow, ready, writeNow } from "../../src/linux/mod.ts";
import { driverProtocolFeatures } from "../../src/frontend/mod.ts";
import { protocolFeatureMask } from "../../src/vhost_user/mod.ts";
import { packetSockets, SOCK_DGRAM, SOCK_SEQPACKET } from "../../tools/lib/packet_sockets.ts";
import { freePort } from "./lib/free_port.ts";
import { frame, NetDriver, packet } from "./lib/net_driver.ts";

const AF_INET = 2;

const RINGS = [
  { name: "split", packed: false, inOrder: false },
  { name: "packed", packed: true, inOrder: false },
  { name: "split, in order", packed: false, inOrder: true },
  { name: "packed, in order", packed: true, inOrder: true },
];

/** A frame of a source port. */
function sourceFrame(bytes: number): Uint8Array {
  const frame = new Uint8Array(bytes).fill(0xff, 0, 6);
  frame.set([2, 0, 0, 0, 0, 1, 0x88, 0xb5], 6);
  return frame;
}

for (const { name, ...rings } of RINGS) {
  Deno.test(`net receives packets into mergeable buffers (${name})`, async () => {
    const setup = { ...rings, buffer: [12, 500, 0, 488] };
    await using setUp = await NetDriver.create({ source: 3500 }, setup);
    setUp.post(40);
    for (let i = 0; i < 10; i++) {
      const { frame, numBuffers, ...header } = await setUp.receive();
      assertEquals(frame, sourceFrame(3500));
      assertEquals(numBuffers, 4);
      assertEquals(Object.values(header).filter((field) => field !== 0), []);
    }
  });

  Deno.test(`net receives each packet into one buffer without MRG_RXBUF (${name})`, async () => {
    await using setUp = await NetDriver.create({ source: 1514 }, { ...rings, mergeable: false });
    for (let round = 0; round < 5; round++) {
      setUp.post(20);
      for (let i = 0; i < 20; i++) {
        const { frame, numBuffers } = await setUp.receive();
        assertEquals(frame, sourceFrame(1514));
        assertEquals(numBuffers, 1);
      }
    }
  });

  Deno.test(`net sends packets, and the record counts them (${name})`, async () => {
    await using setUp = await NetDriver.create({ null: true }, rings);
    await Promise.all([
      ...Array.from({ length: 300 }, (_, i) => setUp.send(packet(frame(60 + i, i)))),
      setUp.send(packet(frame(60, 0, Array(6).fill(255))), { parts: [3, 8, 4, 57] }),
      setUp.send(packet(frame(60, 0, [1, 0, 0x5e, 0, 0, 1])), { parts: [12, 60] }),
    ]);
    assertEquals(setUp.report.sent, {
      packets: 302,
      bytes: 60 * 302 + 299 * 150,
      unicast: 300,
      multicast: 1,
      broadcast: 1,
      gso: 0,
      drops: {},
    });
    const transmitq = () => setUp.server.record().queues[1];
    // The first is measured, and known after the driver's notification
    while (transmitq().latencies.length === 0) await setUp.driver.connection.getFeatures();
    assertEquals(transmitq().latencies.map(({ kind }) => kind), ["TX"]);
  });
}

Deno.test("net drops malformed packets, and the record says why", async () => {
  await using setUp = await NetDriver.create({ null: true }, { without: ["HOST_UFO", "HOST_ECN"] });
  const large = frame(4000);
  const gso = { flags: 1, gsoType: 1, gsoSize: 1448, csumStart: 34, csumOffset: 16, hdrLen: 66 };
  await setUp.send(packet(frame(13 + 1)));
  await setUp.send(packet(large, gso));
  await setUp.send(packet(large, { ...gso, flags: 0xff }));
  await setUp.send(packet(large.subarray(0, 52), { flags: 1, csumStart: 34, csumOffset: 16 }));
  const drops = {
    tiny: [new Uint8Array(1), packet(large).subarray(0, 12), packet(large).subarray(0, 25)],
    oversize: [packet(frame(18 + 65_536))],
    header: [
      packet(large, { ...gso, flags: 0 }),
      packet(large, { ...gso, gsoSize: 0 }),
      packet(large, { ...gso, gsoType: 3 }),
      packet(large, { ...gso, gsoType: 0x81 }),
      packet(large, { ...gso, gsoType: 0x80 }),
      packet(large, { ...gso, gsoType: 2 }),
      packet(large, { ...gso, gsoType: 33 }),
      packet(large, { ...gso, csumStart: 65_535, csumOffset: 65_535 }),
      packet(large.subarray(0, 51), { flags: 1, csumStart: 34, csumOffset: 16 }),
    ],
  };
  for (const bytes of Object.values(drops).flat()) await setUp.send(bytes);
  const { sent } = setUp.report;
  assertEquals([sent.packets, sent.gso], [4, 2]);
  assertEquals(sent.drops, { tiny: 3, oversize: 1, header: 9 });
});

Deno.test("net drops a packet that is larger than its buffer without MRG_RXBUF", async () => {
  const setup = { mergeable: false, buffer: [1000] };
  await using setUp = await NetDriver.create({ source: 1514 }, setup);
  setUp.post(1);
  while (setUp.report.received.drops.buffers === undefined) {
    await setUp.send(packet(frame(60)));
  }
  assertEquals(setUp.report.received.packets, 0);
});

Deno.test("net completes a packet when the driver gives the buffers that it lacked", async () => {
  await using setUp = await NetDriver.create({ source: 3500 }, { buffer: [1000] });
  for (let i = 0; i < 3; i++) {
    setUp.post(1);
    await setUp.send(packet(frame(60)));
    setUp.post(2);
    await setUp.send(packet(frame(60)));
    setUp.post(1);
    const { frame: received, numBuffers } = await setUp.receive();
    assertEquals(numBuffers, 4);
    assertEquals(received, sourceFrame(3500));
  }
});

Deno.test("net counts a packet that waits for buffers as dropped when its queue stops", async () => {
  await using setUp = await NetDriver.create({ source: 3500 }, { buffer: [1000] });
  setUp.post(1);
  while (setUp.report.received.drops.buffers === undefined) {
    await setUp.send(packet(frame(60)));
    await setUp.driver.stop();
    await setUp.driver.restart();
  }
  assertEquals(setUp.report.received.packets, 0);
});

Deno.test("net drops a packet that does not fit into all buffers that a device takes", async () => {
  const [fd, peer] = packetSockets();
  using _peer = peer;
  const setup = { queues: [1024, 256], buffer: [6, 6] };
  await using setUp = await NetDriver.create({ tapFd: `${fd}` }, setup);
  writeNow(peer.number, packet(frame(9000, 1)));
  writeNow(peer.number, packet(frame(60, 2)));
  setUp.post(1000);
  const { frame: received, numBuffers } = await setUp.receive();
  assertEquals(received, frame(60, 2));
  assertEquals(numBuffers, 6);
  assertEquals(setUp.report.received.drops, { buffers: 1 });
});

Deno.test("net breaks the queue of a receive buffer that has no room for a header", async () => {
  const said = Promise.withResolvers<string>();
  await using setUp = await NetDriver.create({ source: 60 }, { buffer: [11] }, said.resolve);
  setUp.post(1);
  await assertRejects(() => setUp.receive(), Error, "broken");
  assertStringIncludes(await said.promise, "receive buffer of at least 12 bytes, got 11");
  await setUp.send(packet(frame(60)));
});

Deno.test("net serves several pairs, each with its own port, and stops with posted buffers", async () => {
  await using setUp = await NetDriver.create({ source: 100 }, { pairs: 3 });
  for (let round = 0; round < 2; round++) {
    for (let pair = 0; pair < 3; pair++) {
      setUp.post(1, pair);
      assertEquals((await setUp.receive(pair)).frame, sourceFrame(100));
      await setUp.send(packet(frame(60)), { pair });
    }
    await setUp.driver.stop();
    await setUp.driver.restart();
  }
  assertEquals([setUp.report.sent.packets, setUp.report.received.packets], [6, 6]);
});

Deno.test("net spreads 16 pairs over threads, and the record says which offloads and pairs are in use", async () => {
  const without = ["GUEST_UFO", "HOST_UFO", "GUEST_ECN", "HOST_ECN"] as const;
  const setup = { pairs: 16, without: [...without, "GUEST_USO4" as const] };
  await using setUp = await NetDriver.create({ source: 100 }, setup);
  await Promise.all(Array.from({ length: 16 }, async (_, pair) => {
    setUp.post(20, pair);
    for (let i = 0; i < 20; i++) assertEquals((await setUp.receive(pair)).frame, sourceFrame(100));
    await setUp.send(packet(frame(60)), { pair });
  }));
  const { sent, received, pairs, offloads } = setUp.report;
  assertEquals([sent.packets, received.packets, received.broadcast], [16, 320, 320]);
  assertEquals(pairs, { enabled: 16, offered: 16 });
  assertEquals(
    offloads.join(),
    "CSUM,GUEST_CSUM,GUEST_TSO4,GUEST_TSO6,GUEST_USO6,HOST_TSO4,HOST_TSO6,HOST_USO",
  );
  for (const queue of [30, 31]) await setUp.driver.connection.setVringEnable(queue, false);
  await setUp.driver.connection.getFeatures();
  assertEquals(setUp.report.pairs, { enabled: 15, offered: 16 });
});

Deno.test("net stops while the driver's buffers wait for packets", async () => {
  await using setUp = await NetDriver.create({ null: true }, { pairs: 2 });
  for (const pair of [0, 1]) setUp.post(50, pair);
  await setUp.send(packet(frame(60)));
  assertEquals(await setUp.driver.stop(), [0, 1, 0, 0]);
});

for (const { name, ...rings } of RINGS) {
  Deno.test(`net joins a driver to a packet socket, in order both ways (${name})`, async () => {
    const [fd, peer] = packetSockets();
    using _peer = peer;
    await using setUp = await NetDriver.create({ tapFd: `${fd}` }, { ...rings, buffer: [512] });
    const sizes = [14, 60, 500, 501, 1514, 9014, 18 + 65_535];
    const into = new Uint8Array(pinnedBuffer(2 ** 17));
    for (const [i, bytes] of sizes.entries()) {
      const header = { flags: 1, csumStart: 4, csumOffset: 6, hdrLen: 9, gsoSize: 7 };
      const sent = packet(frame(bytes, i), bytes > 14 ? header : {});
      const third = Math.floor(sent.length / 3);
      await setUp.send(sent, { parts: [third, 0, third, sent.length - 2 * third] });
      assertEquals(into.subarray(0, readNow(peer.number, into)), sent);
    }
    for (const [i, bytes] of sizes.entries()) writeNow(peer.number, packet(frame(bytes, i)));
    for (const [i, bytes] of sizes.entries()) {
      const buffers = Math.ceil((12 + bytes) / 512);
      setUp.post(buffers);
      const { frame: received, numBuffers } = await setUp.receive();
      assertEquals(received, frame(bytes, i));
      assertEquals(numBuffers, buffers);
    }
  });
}

Deno.test("net receives a packet behind many that have no frame", async () => {
  const [fd, peer] = packetSockets();
  using _peer = peer;
  await using setUp = await NetDriver.create({ tapFd: `${fd}` }, { buffer: [512] });
  for (let i = 0; i < 200; i++) assertEquals(writeNow(peer.number, new Uint8Array(12)), 12);
  writeNow(peer.number, packet(frame(60, 1)));
  setUp.post(1);
  assertEquals((await setUp.receive()).frame, frame(60, 1));
});

for (const [name, kind] of Object.entries({ SOCK_DGRAM, SOCK_SEQPACKET })) {
  Deno.test(`net takes an empty packet of an inherited ${name} for no end`, async () => {
    const [fd, peer] = packetSockets(kind);
    const gone = Promise.withResolvers<void>();
    const log = (line: string) => {
      if (line.includes("The peer of the inherited socket is gone")) gone.resolve();
    };
    await using setUp = await NetDriver.create({ tapFd: `${fd}` }, { buffer: [512] }, log);
    for (let i = 0; i < 5; i++) {
      assertEquals(writeNow(peer.number, new Uint8Array(0)), 0);
      writeNow(peer.number, packet(frame(60, i)));
    }
    // Those behind its last packet are no packet either.
    assertEquals(writeNow(peer.number, new Uint8Array(0)), 0);
    peer.close();
    setUp.post(6);
    for (let i = 0; i < 5; i++) assertEquals((await setUp.receive()).frame, frame(60, i));
    await setUp.send(packet(frame(60)));
    assertEquals(setUp.report.sent.drops, { refused: 1 });
    // Datagrams have no end.
    if (kind === SOCK_SEQPACKET) await gone.promise;
  });
}

Deno.test("net goes on when the peer of an inherited UDP socket was away", async () => {
  const port = freePort();
  const bindPeer = async () => {
    const peer = createSocket("udp4");
    peer.bind(port, "127.0.0.1");
    await once(peer, "listening");
    return peer;
  };
  const peer = await bindPeer();
  const fd = libc.socket(AF_INET, SOCK_DGRAM, 0);
  await assertRejects(
    () => serve(net, { socketPath: "/nowhere", options: { tapFd: `${fd}` } }),
    OptionError,
    "Expected a TAP, or a connected socket",
  );
  const address = Uint8Array.of(
    AF_INET,
    0,
    port >> 8,
    port & 255,
    127,
    0,
    0,
    1,
    ...Array(8).fill(0),
  );
  assertEquals(libc.connect(fd, address, address.length), 0);
  await using setUp = await NetDriver.create({ tapFd: `${fd}` }, { buffer: [512] });
  setUp.post(1);
  const packets = once(peer, "message");
  await setUp.send(packet(frame(60, 1)));
  const [, from] = await packets;
  peer.close();
  await once(peer, "close");
  // The first is sent, and the kernel hears that there is nobody.
  for (let i = 0; i < 10; i++) await setUp.send(packet(frame(60, 2)));
  const again = await bindPeer();
  again.send(packet(frame(60, 3)), from.port, from.address);
  assertEquals((await setUp.receive()).frame, frame(60, 3));
  again.close();
  await once(again, "close");
});

Deno.test("net keeps num_buffers from a legacy driver without MRG_RXBUF", async () => {
  const [fd, peer] = packetSockets();
  using _peer = peer;
  const setup = { isLegacy: true, mergeable: false };
  await using setUp = await NetDriver.create({ tapFd: `${fd}` }, setup);
  const into = new Uint8Array(pinnedBuffer(2 ** 17));
  const header = { flags: 1, csumStart: 4, csumOffset: 6 };
  const short = (bytes: Uint8Array) => Uint8Array.from([...bytes.slice(0, 10), ...bytes.slice(12)]);
  for (const parts of [[1010], [10, 1000], [3, 7, 500, 500], [9, 1, 0, 1000], [400, 610]]) {
    const sent = packet(frame(1000, 7), header);
    await setUp.send(short(sent), { parts });
    assertEquals(into.subarray(0, readNow(peer.number, into)), sent);
  }
  for (const parts of [[1010], [10, 1000], [3, 2, 1200], [11, 1200], [1009]]) {
    const reply = setUp.driver.request(0, [], parts);
    const received = packet(frame(parts[0] === 1009 ? 999 : 1000, 9), header);
    writeNow(peer.number, received);
    const { written, data } = await reply;
    const bytes = Uint8Array.from(data.flatMap((part) => [...part])).slice(0, written);
    assertEquals(bytes, short(received));
  }
  const refused = setUp.driver.request(0, [], [1009]);
  writeNow(peer.number, packet(frame(1000)));
  writeNow(peer.number, packet(frame(60, 3)));
  assertEquals((await refused).written, 70);
  await setUp.send(new Uint8Array(9));
  await setUp.send(short(packet(frame(60, 1, Array(6).fill(255)))));
  const { sent, received } = setUp.report;
  assertEquals([sent.drops, received.drops], [{ tiny: 1 }, { buffers: 1 }]);
  assertEquals([sent.bytes, sent.broadcast, received.bytes], [5060, 1, 5059]);
});

Deno.test("net lets packets wait in the ring while its port is full, and loses none", async () => {
  const [fd, peer] = packetSockets();
  using _peer = peer;
  await using setUp = await NetDriver.create({ tapFd: `${fd}` }, { queues: [256, 1024] });
  const count = 2000;
  const sent = Promise.all(
    Array.from({ length: count }, (_, i) => setUp.send(packet(frame(1000, i)))),
  );
  // The first that waits is taken when the peer reads, and no sooner.
  await setUp.server.record();
  const into = new Uint8Array(pinnedBuffer(4096));
  for (let i = 0; i < count; i++) {
    let bytes;
    while ((bytes = readNow(peer.number, into)) < 0) await ready(peer.number, "readable");
    assertEquals(into.subarray(0, bytes), packet(frame(1000, i)));
  }
  await sent;
  assertEquals(setUp.report.sent.packets, count);
  assertEquals(setUp.report.sent.drops, {});
});

Deno.test("net stops while its port is full", async () => {
  const [fd, peer] = packetSockets();
  using _peer = peer;
  await using setUp = await NetDriver.create({ tapFd: `${fd}` }, { queues: [256, 1024] });
  const sent = Array.from({ length: 1000 }, (_, i) => setUp.send(packet(frame(1000, i))));
  const ended = Promise.allSettled(sent);
  await sent[0];
  const [, base] = await setUp.driver.stop();
  assert(base < 1000, `${base}`);
  await setUp.driver.restart();
  const into = new Uint8Array(pinnedBuffer(4096));
  for (let i = 0; i < 1000; i++) {
    let bytes;
    while ((bytes = readNow(peer.number, into)) < 0) await ready(peer.number, "readable");
    assertEquals(into.subarray(0, bytes), packet(frame(1000, i)));
  }
  assert((await ended).every(({ status }) => status === "fulfilled"));
});

Deno.test("net sends a packet in as many parts as a chain can have", async () => {
  const [fd, peer] = packetSockets();
  using _peer = peer;
  const setup = { queues: [256, 1024], indirect: false };
  await using setUp = await NetDriver.create({ tapFd: `${fd}` }, setup);
  const bytes = packet(frame(1012));
  await setUp.send(bytes, { parts: Array(1024).fill(1) });
  const into = new Uint8Array(pinnedBuffer(4096));
  assertEquals(into.subarray(0, readNow(peer.number, into)), bytes);
});

Deno.test("net announces a guest that migrated, and records the front-end's MTU", async () => {
  const [fd, peer] = packetSockets();
  using _peer = peer;
  const protocolFeatures = driverProtocolFeatures | protocolFeatureMask("RARP", "NET_MTU");
  await using setUp = await NetDriver.create({ tapFd: `${fd}` }, { protocolFeatures });
  await setUp.driver.connection.netSetMtu(9000);
  await setUp.driver.connection.sendRarp(0x0000_5634_1200_5452n);
  const into = new Uint8Array(pinnedBuffer(4096));
  const bytes = into.subarray(0, readNow(peer.number, into)).toHex();
  const mac = "525400123456";
  const rarp = `80350001080006040003${mac}00000000${mac}`;
  assertEquals(bytes, `${"00".repeat(12)}${"ff".repeat(6)}${mac}${rarp}`.padEnd(144, "0"));
  assertEquals([setUp.report.mtu, setUp.report.frontendMtu], [1500, 9000]);
});

Deno.test("net says that the peer of its socket is gone, and goes on", async () => {
  const [fd, peer] = packetSockets();
  const lines: string[] = [];
  await using setUp = await NetDriver.create({ tapFd: `${fd}` }, {}, (line) => lines.push(line));
  setUp.post(10);
  await setUp.send(packet(frame(60)));
  peer.close();
  while (!lines.some((line) => line.includes("The peer of the inherited socket is gone"))) {
    await setUp.send(packet(frame(60)));
  }
  assert(setUp.report.sent.drops.refused > 0);
});

Deno.test("net takes one port, and a bridge for a TAP only", async () => {
  for (
    const [options, message] of [
      [{}, "got none"],
      [{ null: true, source: 60 }, "got --null and --source"],
      [{ null: true, bridge: "br0" }, "--bridge is for --tap, got --null"],
    ] as const
  ) {
    await assertRejects(
      () => serve(net, { socketPath: "/nowhere", options }),
      OptionError,
      message,
    );
  }
});
