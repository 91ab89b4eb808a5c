/** A network card while its guest floods it, reboots or dies, and packets that lie across buffers. */
import { assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { type Fd, pinnedBuffer, readNow, ready, writeNow } from "../../src/linux/mod.ts";
import { packetSockets } from "../../tools/lib/packet_sockets.ts";
import { Random } from "../../tools/lib/random.ts";
import { frame, NetDriver, type NetSetup, packet } from "./lib/net_driver.ts";

const INTO = new Uint8Array(pinnedBuffer(2 ** 17));

/** A card on a socket, and the socket's peer. */
async function withPeer(
  setup: NetSetup,
  test: (card: NetDriver, peer: Fd) => Promise<void>,
  log?: (line: string) => void,
): Promise<void> {
  const [fd, peer] = packetSockets();
  using _peer = peer;
  await using card = await NetDriver.create({ tapFd: `${fd}` }, setup, log);
  await test(card, peer);
}

/** The next packet that the card sent. */
async function sentTo(peer: Fd): Promise<Uint8Array> {
  let bytes;
  while ((bytes = readNow(peer.number, INTO)) < 0) await ready(peer.number, "readable");
  return INTO.slice(0, bytes);
}

/** Expects packets to pass both ways. */
async function expectPassage(card: NetDriver, peer: Fd, seed: number): Promise<void> {
  const sent = card.send(packet(frame(100, seed)));
  assertEquals(await sentTo(peer), packet(frame(100, seed)));
  await sent;
  card.post(1);
  writeNow(peer.number, packet(frame(200, seed)));
  assertEquals((await card.receive()).frame, frame(200, seed));
}

for (const packed of [false, true]) {
  const rings = packed ? "packed" : "split";

  Deno.test(`net passes packets that are divided at any byte (${rings})`, () =>
    withPeer({ packed }, async (card, peer) => {
      const bytes = packet(frame(60, 7));
      const received = packet(frame(60, 7));
      received[10] = 1; // num_buffers
      for (let cut = 0; cut <= bytes.length; cut++) {
        await card.send(bytes, { parts: [cut, bytes.length - cut] });
        assertEquals(await sentTo(peer), bytes, `${cut}`);
        writeNow(peer.number, bytes);
        const { data } = await card.driver.request(0, [], [cut, bytes.length - cut]);
        assertEquals(concat(data), received, `${cut}`);
      }
    }));

  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  Deno.test(`net passes large packets that are divided anywhere (${rings}, seed ${seed})`, () =>
    withPeer({ packed }, async (card, peer) => {
      const random = new Random(seed);
      for (let round = 0; round < 40; round++) {
        const bytes = packet(frame(random.pick([9014, 65_553, random.between(14, 20_000)]), round));
        const parts = (total: number): number[] => {
          const cuts = Array.from({ length: random.below(16) }, () => random.below(total + 1))
            .sort((a, b) => a - b);
          return [...cuts, total].map((cut, i) => cut - (cuts[i - 1] ?? 0));
        };
        const sent = card.send(bytes, { parts: parts(bytes.length) });
        assertEquals(await sentTo(peer), bytes);
        await sent;
        writeNow(peer.number, bytes);
        const buffers = [];
        for (let room = 0; room < bytes.length;) {
          const size = random.between(12, 10_000);
          buffers.push(card.driver.request(0, [], parts(size)));
          room += size;
        }
        const got = (await Promise.all(buffers)).map(({ written, data }) =>
          concat(data).subarray(0, written)
        );
        bytes[10] = buffers.length; // num_buffers, below 256
        assertEquals(concat(got), bytes);
      }
    }));
}

Deno.test("net counts a flood of malformed packets, and says nothing about each", async () => {
  const lines: string[] = [];
  await withPeer({}, async (card, peer) => {
    const bad = packet(frame(60), { gsoType: 1 });
    for (let round = 0; round < 20; round++) {
      await Promise.all(Array.from({ length: 200 }, () => card.send(bad)));
    }
    assertEquals(card.report.sent.drops, { header: 4000 });
    await expectPassage(card, peer, 1);
  }, (line) => lines.push(line));
  assertEquals(lines.filter((line) => !line.includes("listens on")), []);
});

Deno.test("net passes packets after its guest has rebooted, with new buffers", () =>
  withPeer({}, async (card, peer) => {
    for (let round = 0; round < 10; round++) {
      await expectPassage(card, peer, round);
      await card.driver.request(1, [packet(frame(60))], []);
      await sentTo(peer);
      card.post(20);
      await card.driver.reset();
      // The old buffers are nobody's; the packet waits for a new one.
      writeNow(peer.number, packet(frame(300, round)));
      await card.driver.restart();
      card.forget();
      card.post(1);
      assertEquals((await card.receive()).frame, frame(300, round));
    }
  }));

Deno.test("net serves the next front-end after one that died with buffers and packets under way", () =>
  withPeer({ queues: [256, 1024] }, async (card, peer) => {
    for (let round = 0; round < 10; round++) {
      await expectPassage(card, peer, round);
      card.post(20);
      // More than the socket holds: some wait in the ring.
      const sent = Array.from({ length: 600 }, (_, i) => card.send(packet(frame(1000, i))));
      for (const send of sent) send.catch(() => {});
      await sent[0];
      await card.driver.disconnect();
      writeNow(peer.number, packet(frame(300, round)));
      await card.driver.reconnect();
      assertEquals((await card.receive()).frame, frame(300, round));
      for (let i = 0; i < 600; i++) assertEquals(await sentTo(peer), packet(frame(1000, i)));
      await Promise.all(sent);
      card.forget();
      await card.driver.reset();
      await card.driver.restart();
    }
  }));
