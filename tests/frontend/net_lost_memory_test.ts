/** Network cards whose guest's memory is gone while the kernel copies a packet. */
import { assert, assertEquals } from "@std/assert";
import { SharedMemory } from "../../src/frontend/mod.ts";
import { libc } from "../../src/linux/libc.ts";
import { resizeFile, writeNow } from "../../src/linux/mod.ts";
import { MemoryGuard } from "../../src/memory/mod.ts";
import { packetSockets } from "../../tools/lib/packet_sockets.ts";
import { StreamPeer } from "../../tools/lib/stream_peer.ts";
import { frame, HEADER_BYTES, NetDriver, packet } from "./lib/net_driver.ts";

// Started before the tests, the guard's listener does not count as their leak.
(await MemoryGuard.acquire())[Symbol.dispose]();

const MiB = 2 ** 20;
const F_ADD_SEALS = 1033, F_SEAL_SEAL = 1;

/** Memory with a region that can shrink. */
function shrinkingMemory() {
  const memory = new SharedMemory(4 * MiB);
  const { message: { guestAddress }, fd: { number } } = memory.addRegion({ bytes: MiB });
  // A memfd that cannot be sealed is like a file on tmpfs.
  assert(libc.fcntl(number, F_ADD_SEALS, F_SEAL_SEAL) >= 0);
  return {
    memory,
    gpa: Number(guestAddress),
    resize: (bytes: number) => resizeFile(number, bytes),
  };
}

/** Gives the device a chain. */
async function chain(
  { driver }: NetDriver,
  queueIndex: number,
  readable: { gpa: number; bytes: number }[],
  writable: { gpa: number; bytes: number }[],
): Promise<void> {
  const queue = driver.queues[queueIndex];
  queue.add(readable, writable);
  queue.publish();
  queue.kick();
  await driver.connection.getFeatures();
}

Deno.test("net drops a packet for a buffer that is gone, and its TAP stays", async () => {
  const [fd, peer] = packetSockets();
  using _peer = peer;
  const lines: string[] = [];
  const { memory, gpa, resize } = shrinkingMemory();
  using _memory = memory;
  await using card = await NetDriver.create({ tapFd: `${fd}` }, { memory }, (line) => {
    lines.push(line);
  });
  resize(0);
  await chain(card, 0, [], [{ gpa, bytes: 2000 }]);
  writeNow(peer.number, packet(frame(60, 1)));
  while (card.report.received.drops.refused === undefined) {
    await card.driver.connection.getFeatures();
    assertEquals(lines, []);
  }
  resize(MiB);
  writeNow(peer.number, packet(frame(60, 2)));
  while (card.driver.queues[0].poll() < 0) await card.driver.connection.getFeatures();
  const { packets, drops } = card.report.received;
  assertEquals([packets, drops, lines], [1, { refused: 1 }, []]);
  assertEquals(memory.at(gpa + HEADER_BYTES, 60), frame(60, 2));
});

Deno.test("net drops a large packet that is gone, and keeps the connection of its stream", async () => {
  using listener = Deno.listen({ transport: "tcp", hostname: "127.0.0.1", port: 0 });
  const { memory, gpa, resize } = shrinkingMemory();
  using _memory = memory;
  const stream = `127.0.0.1:${(listener.addr as Deno.NetAddr).port}`;
  await using card = await NetDriver.create({ stream }, { memory });
  using peer = new StreamPeer(await listener.accept() as Deno.TcpConn);
  while (card.report.sent.packets === 0) await card.send(packet(frame(60)));
  assertEquals(await peer.receive(), frame(60));
  const header = memory.alloc(HEADER_BYTES, 16, memory.regions[0]);
  memory.at(header, HEADER_BYTES).fill(0);
  resize(0);
  await chain(card, 1, [{ gpa: header, bytes: HEADER_BYTES }, { gpa, bytes: 9000 }], []);
  while (card.driver.queues[1].poll() < 0) await card.driver.connection.getFeatures();
  await card.send(packet(frame(300)));
  assertEquals(await peer.receive(), frame(300));
  assertEquals([card.report.connections, card.report.sent.drops.refused], [1, 1]);
  memory.free(header);
});
