import { assert, assertEquals, assertThrows } from "@std/assert";
import { Parts } from "../../mod.ts";
import { Acceptance } from "../../backends/net/switch/acceptance.ts";
import { AGE_S } from "../../backends/net/switch/mac_table.ts";
import { MAX_QUEUED_PACKETS, PacketQueue } from "../../backends/net/switch/packet_queue.ts";
import { type Member, Switch } from "../../backends/net/switch/switch.ts";
import { SwitchPort } from "../../backends/net/switch/switch_port.ts";
import { Transit } from "../../backends/net/switch/transit.ts";
import { Uplink } from "../../backends/net/switch/uplink.ts";
import { PacketHeader } from "../../backends/net/header.ts";
import type { PortOwner } from "../../backends/net/port.ts";
import { ReceiveWindow } from "../../backends/net/receive_window.ts";
import { ALL_OFFLOADS, Drop, FULL, type Offload, SENT } from "../../backends/net/packet.ts";
import { addressOf, bufferAt, pinnedBuffer } from "../../src/linux/mod.ts";

const memory = new Uint8Array(pinnedBuffer(65_536));
const base = addressOf(memory);

const OFFLOADS = Object.fromEntries(ALL_OFFLOADS.map((name) => [name, true])) as Record<
  Offload,
  boolean
>;

/** A port that counts. */
class TestMember implements Member {
  readonly isFiltered: boolean;
  readonly mostAddresses = 4;
  readonly accepts = new Acceptance();
  isUp = true;
  taken = 0;
  drops: number[] = [];
  published = 0;

  constructor(
    readonly ofSwitch: Switch,
    readonly number: number,
    readonly isIsolated = false,
    mac?: [number, number, number],
  ) {
    this.isFiltered = mac !== undefined;
    ofSwitch.add(number, { name: `${number}` }, mac);
    ofSwitch.join(this);
  }

  take(): void {
    this.taken++;
  }

  dropped(reason: number): void {
    this.drops.push(reason);
  }

  publish(): void {
    this.published++;
  }

  /** Sends a packet from one address to another; both are the last words of addresses. */
  send(from: number, to: number): number {
    const words = new Uint16Array(memory.buffer, memory.byteOffset, 36);
    words.fill(0);
    words.set([2, 0, to, 2, 0, from], 6);
    if (to < 0) words.fill(0xffff, 6, 9);
    const packet = new Parts(memory), header = new PacketHeader(), transit = new Transit(base);
    packet.push(0, 72);
    assertEquals(header.read(packet), SENT);
    transit.begin(packet, header);
    const result = this.ofSwitch.forward(this, transit);
    this.ofSwitch.flush();
    return result;
  }
}

function taken(...members: TestMember[]): number[] {
  return members.map((member) => [member.taken, member.taken = 0][0]);
}

Deno.test("Switch forgets an address that sent nothing for five minutes", () => {
  let now = 10;
  const ofSwitch = new Switch(() => now);
  const [a, b, c] = [0, 1, 2].map((number) => new TestMember(ofSwitch, number));
  a.send(1, -1);
  assertEquals(taken(a, b, c), [0, 1, 1]);
  now += AGE_S - 1;
  b.send(2, 1);
  assertEquals(taken(a, b, c), [1, 0, 0]);
  now += 1;
  c.send(3, 1);
  assertEquals(taken(a, b, c), [1, 1, 0]);
  c.send(3, 2);
  assertEquals(taken(a, b, c), [0, 1, 0]);
  assertEquals(ofSwitch.list().map(({ mac, port, age }) => [mac, port, age]), [
    ["02:00:00:00:02:00", "1", 1],
    ["02:00:00:00:03:00", "2", 0],
  ]);
});

Deno.test("Switch follows an address to another port, and forgets those of a port that leaves", () => {
  const ofSwitch = new Switch(() => 1);
  const [a, b, c] = [0, 1, 2].map((number) => new TestMember(ofSwitch, number));
  a.send(1, -1);
  b.send(1, -1);
  taken(a, b, c);
  c.send(3, 1);
  assertEquals(taken(a, b, c), [0, 1, 0]);
  ofSwitch.leave(b);
  c.send(3, 1);
  assertEquals(taken(a, b, c), [1, 0, 0]);
});

Deno.test("Switch floods packets for a guest that cannot be learned, and others are not displaced", () => {
  const ofSwitch = new Switch(() => 1);
  const [a, b, c] = [0, 1, 2].map((number) => new TestMember(ofSwitch, number));
  b.send(100, -1);
  for (let i = 0; i < 50; i++) a.send(i, -1);
  taken(a, b, c);
  c.send(3, 100);
  assertEquals(taken(a, b, c), [0, 1, 0]);
  c.send(3, 40);
  assertEquals(taken(a, b, c), [1, 1, 0]);
});

Deno.test("Switch keeps isolated ports apart, and joins each to the others", () => {
  const ofSwitch = new Switch(() => 1);
  const [a, b] = [0, 1].map((number) => new TestMember(ofSwitch, number, true));
  const uplink = new TestMember(ofSwitch, 16);
  assertEquals(a.send(1, -1), SENT);
  assertEquals(taken(a, b, uplink), [0, 0, 1]);
  assertEquals(uplink.send(9, -1), SENT);
  assertEquals(taken(a, b, uplink), [1, 1, 0]);
  assertEquals(b.send(2, 1), Drop.ISOLATED);
  assertEquals(b.send(2, 77), SENT);
  assertEquals(taken(a, b, uplink), [0, 0, 1]);
});

Deno.test("Switch lets a port with an address use only that, and nobody else use it", () => {
  const ofSwitch = new Switch(() => 1);
  const a = new TestMember(ofSwitch, 0, false, [2, 0, 1]);
  const b = new TestMember(ofSwitch, 1), c = new TestMember(ofSwitch, 2);
  assertEquals(a.send(5, -1), Drop.SOURCE);
  assertEquals(b.send(1, -1), Drop.SOURCE);
  assertEquals(taken(a, b, c), [0, 0, 0]);
  assertEquals(c.send(3, 1), SENT);
  assertEquals(taken(a, b, c), [1, 0, 0]);
  // It is kept while the port is down.
  a.isUp = false;
  assertEquals(b.send(1, -1), Drop.SOURCE);
  assertEquals(c.send(3, 1), SENT);
  assertEquals([taken(a, b, c), a.drops], [[0, 0, 0], [Drop.DOWN]]);
});

Deno.test("Switch passes a packet for an address by configuration to its port or to none", () => {
  const ofSwitch = new Switch(() => 1);
  ofSwitch.add(0, { name: "never here" }, [2, 0, 1]);
  const a = new TestMember(ofSwitch, 1, false, [2, 0, 2]);
  const [b, c] = [2, 3].map((number) => new TestMember(ofSwitch, number));
  assertEquals(b.send(3, 1), Drop.DOWN);
  assertEquals(taken(a, b, c), [0, 0, 0]);
  // The port with an address gets no packet for one that is not known.
  assertEquals(b.send(3, 77), SENT);
  assertEquals(taken(a, b, c), [0, 0, 1]);
  assertEquals(b.send(3, -1), SENT);
  assertEquals(taken(a, b, c), [1, 0, 1]);
  assertThrows(
    () => ofSwitch.add(4, { name: "again" }, [2, 0, 2]),
    Error,
    "got that of again twice",
  );
});

Deno.test("Switch returns no packet to the port that it came from", () => {
  const ofSwitch = new Switch(() => 1);
  const [a, b] = [0, 1].map((number) => new TestMember(ofSwitch, number));
  a.send(1, -1);
  assertEquals(a.send(2, 1), Drop.LOCAL);
  assertEquals(taken(a, b), [0, 1]);
});

Deno.test("Switch publishes once for a batch, and only where packets were taken", () => {
  const ofSwitch = new Switch(() => 1);
  const [a, b, c] = [0, 1, 2].map((number) => new TestMember(ofSwitch, number));
  b.send(2, -1);
  const before = c.published;
  a.send(1, 2);
  assertEquals([a.published, b.published, c.published - before], [1, 1, 0]);
});

Deno.test("PacketQueue gives packets in order, and drops the oldest for new ones", () => {
  const queue = new PacketQueue();
  const packet = new Parts(memory);
  const waiting: number[] = [];
  const add = (seed: number, bytes: number) => {
    memory.fill(seed, 0, bytes);
    packet.clear(memory);
    packet.push(base, bytes >> 1);
    packet.push(base + (bytes >> 1), bytes - (bytes >> 1));
    const dropped = queue.add(packet);
    assert(dropped >= 0 && dropped <= waiting.length);
    waiting.splice(0, dropped);
    waiting.push(seed);
    return dropped;
  };
  const expectFirst = (sizes: (seed: number) => number) => {
    const seed = waiting.shift()!;
    assertEquals(queue.bytes, sizes(seed));
    const bytes = new Uint8Array(bufferAt(queue.address, queue.bytes));
    assert(bytes.every((byte) => byte === seed));
    queue.shift();
  };
  const size = (seed: number) => 26 + seed * 241;
  let dropped = 0;
  for (let i = 0; i < 2000; i++) {
    dropped += add(i % 251, size(i % 251));
    if (i % 3 === 0) expectFirst(size);
  }
  assert(dropped > 0);
  while (waiting.length > 0) expectFirst(size);
  assertEquals(queue.bytes, 0);
  for (let i = 0; i < MAX_QUEUED_PACKETS; i++) assertEquals(add(i % 251, 26), 0);
  assertEquals(add(1, 26), 1);
});

Deno.test("SwitchPort gives a guest what is queued, and the next packet, as soon as it has buffers", () => {
  const ofSwitch = new Switch();
  const sender = new TestMember(ofSwitch, 0);
  const received: number[] = [];
  let buffers = 0;
  const owner: PortOwner = {
    ...{ base, mtu: 1500, features: OFFLOADS },
    ...{ readable() {}, writable() {}, flushReceived() {}, lost() {}, notice() {} },
    dropped: (reason) => void received.push(-reason),
    watch: () => ({ pause() {}, resume() {}, [Symbol.dispose]() {} }),
    keep: (promise) => promise,
    receiveOne() {
      if (buffers === 0) return false;
      const into = new Uint8Array(pinnedBuffer(1514));
      if (port.receive(ReceiveWindow.over(into)) === 0) return false;
      buffers--;
      received.push(into[23]); // the last byte of the sender's address
      return true;
    },
  };
  const plan = { kind: "switch", number: 1, isIsolated: false, mac: undefined } as const;
  using port = new SwitchPort(ofSwitch, plan, owner);
  port.enable(true);
  for (const from of [5, 6]) sender.send(from << 8, 1);
  assertEquals(received, []);
  buffers = 3;
  sender.send(7 << 8, 1);
  assertEquals([received, port.receive(ReceiveWindow.over(memory))], [[5, 6, 7], 0]);
});

Deno.test("Switch divides a packet once, however many receivers lack the offload", () => {
  class CountedTransit extends Transit {
    divisions = 0;
    override divide(): number {
      this.divisions++;
      return super.divide();
    }
  }
  const ofSwitch = new Switch(() => 1);
  const [a, b, c] = [0, 1, 2].map((number) => new TestMember(ofSwitch, number));
  const sent = new Uint16Array(memory.buffer, memory.byteOffset, 36);
  sent.fill(0).fill(0xffff, 6, 9);
  sent.set([1, 0, 0, 34, 6], 0); // a partial checksum
  const packet = new Parts(memory), header = new PacketHeader(), transit = new CountedTransit(base);
  header.negotiated(OFFLOADS);
  packet.push(0, 72);
  assertEquals(header.read(packet), SENT);
  transit.begin(packet, header);
  assertEquals(ofSwitch.forward(a, transit), SENT);
  assertEquals([...taken(a, b, c), transit.divisions], [0, 1, 1, 1]);
});

Deno.test("Uplink sends each packet that waited once, also if its port has room while it sends", () => {
  const ofSwitch = new Switch();
  const guest = new TestMember(ofSwitch, 0);
  const context = {
    mtu: 1500,
    watch: () => ({ pause() {}, resume() {}, [Symbol.dispose]() {} }),
    keep: <T>(promise: Promise<T>) => promise,
    notice() {},
    wake: () => true,
  };
  let isFull = true, packets = 0;
  using uplink = new Uplink(ofSwitch, context, [], (owner) => ({
    send() {
      if (isFull) return FULL;
      packets++;
      owner.writable();
      return SENT;
    },
    receive: () => 0,
    listen() {},
    [Symbol.dispose]() {},
  }));
  for (let i = 0; i < 3; i++) guest.send(1, 2);
  isFull = false;
  uplink.writable();
  guest.send(1, 2);
  assertEquals([packets, uplink.report().sent], [4, 4]);
});
