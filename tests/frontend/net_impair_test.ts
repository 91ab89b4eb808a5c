/** Impairments and the link, with a packet socket in the place of a TAP. */
import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { DelayQueue, MAX_PACKETS } from "../../backends/net/impairment/delay_queue.ts";
import { CLEAN } from "../../backends/net/impairment/impairment.ts";
import { ImpairedWay } from "../../backends/net/impairment/impaired_way.ts";
import { addressOf, type Fd, pinnedBuffer, readNow, ready, writeNow } from "../../src/linux/mod.ts";
import { ALL_OFFLOADS } from "../../backends/net/packet.ts";
import theSwitch from "../../backends/net/switch/mod.ts";
import { serveInstances } from "../../mod.ts";
import { frame, HEADER_BYTES, NetDriver, packet } from "./lib/net_driver.ts";
import { packetSockets } from "../../tools/lib/packet_sockets.ts";
import { Ask } from "./lib/scripted_network.ts";

/** The most frames that the network's socket holds for sure. */
const AT_ONCE = 32;

const into = new Uint8Array(pinnedBuffer(2 ** 17));

/** A driver and a network: the other end of the port's socket. */
class Impaired implements AsyncDisposable {
  private constructor(readonly net: NetDriver, readonly peer: Fd) {}

  static async create(options: Record<string, unknown> = {}, setup = {}): Promise<Impaired> {
    const [fd, peer] = packetSockets();
    const net = await NetDriver.create({ tapFd: `${fd}`, seed: 1, ...options }, setup);
    return new Impaired(net, peer);
  }

  /** The number of the next frame that the network gets; undefined if none is there. */
  now(): number | undefined {
    const bytes = readNow(this.peer.number, into);
    return bytes < 0 ? undefined : into[HEADER_BYTES + 14] << 8 | into[HEADER_BYTES + 15];
  }

  /** The numbers of the next frames that the network gets. */
  async take(count: number): Promise<number[]> {
    const numbers: number[] = [];
    while (numbers.length < count) {
      const number = this.now();
      if (number === undefined) await ready(this.peer.number, "readable");
      else numbers.push(number);
    }
    return numbers;
  }

  /** Sends numbered frames; returns the numbers of those that come before the last one is taken. */
  async send(count: number): Promise<number[]> {
    const numbers: number[] = [];
    for (let i = 0; i < count; i += AT_ONCE) {
      const few = Array.from({ length: Math.min(AT_ONCE, count - i) }, (_, k) => i + k);
      await Promise.all(few.map((number) => this.net.send(packet(numbered(number)))));
      for (let number; (number = this.now()) !== undefined;) numbers.push(number);
    }
    return numbers;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.net[Symbol.asyncDispose]();
    this.peer.close();
  }
}

function numbered(number: number, bytes = 60): Uint8Array {
  const bytes_ = frame(bytes);
  bytes_.set([number >> 8, number & 255], 14);
  return bytes_;
}

function numberOf(frame: Uint8Array): number {
  return frame[14] << 8 | frame[15];
}

/** Whether a count is within five standard deviations of its mean. */
function isLikely(count: number, trials: number, probability: number): boolean {
  const deviation = Math.sqrt(trials * probability * (1 - probability));
  return Math.abs(count - trials * probability) < 5 * deviation;
}

Deno.test("net --loss loses as many packets as it says each way, the same ones with the same seed", async () => {
  const runs: number[][] = [];
  for (let run = 0; run < 2; run++) {
    await using impaired = await Impaired.create({ loss: "tx:20%,rx:40%", seed: 99 });
    const { net, peer } = impaired;
    runs.push(await impaired.send(2000));
    const lost = 2000 - runs[run].length;
    assert(isLikely(lost, 2000, 0.2), `${lost}`);
    assertEquals(net.report.sent.drops, { loss: lost });
    assertEquals(net.report.sent.packets, 2000 - lost);
    const total = 200;
    for (let i = 0; i < total; i++) assert(writeNow(peer.number, packet(numbered(i))) > 0);
    net.post(total);
    const done = () => net.report.received.packets + (net.report.received.drops.loss ?? 0);
    while (done() < total) await net.send(packet(frame(60)));
    const got = net.report.received.packets;
    for (let i = 0, last = -1; i < got; i++) {
      const number = numberOf((await net.receive()).frame);
      assertGreater(number, last);
      last = number;
    }
    assert(isLikely(total - got, total, 0.4), `${got}`);
  }
  assertEquals(runs[0], runs[1]);
});

Deno.test("net --duplicate repeats packets, and keeps the order", async () => {
  await using impaired = await Impaired.create({ duplicate: "25%" });
  const numbers = await impaired.send(1000);
  while (numbers.at(-1) !== 999) numbers.push(...await impaired.take(1));
  assertEquals(numbers, numbers.toSorted((a, b) => a - b));
  assertEquals(new Set(numbers).size, 1000);
  assert(isLikely(numbers.length - 1000, 1000, 0.25), `${numbers.length}`);
});

Deno.test("net --delay delays each way by at least that, and keeps the order with --jitter", async () => {
  await using impaired = await Impaired.create({ delay: "tx:80ms,rx:40ms", jitter: "tx:30ms" });
  const { net, peer } = impaired;
  const start = performance.now();
  for (let i = 0; i < 100; i++) await net.send(packet(numbered(i, 60 + 10 * i)));
  assertEquals(await impaired.take(100), Array.from({ length: 100 }, (_, i) => i));
  assertGreater(performance.now() - start, 49);
  const sent = performance.now();
  for (let i = 0; i < 50; i++) writeNow(peer.number, packet(frame(200 + i, i)));
  net.post(50);
  for (let i = 0; i < 50; i++) assertEquals((await net.receive()).frame, frame(200 + i, i));
  assertGreater(performance.now() - sent, 39);
});

Deno.test("net delays packets that fill many buffers, and completes them when there are enough", async () => {
  await using impaired = await Impaired.create({ delay: "5ms" }, { buffer: [100, 412] });
  const { net, peer } = impaired;
  writeNow(peer.number, packet(frame(9000, 3)));
  for (let i = 0; i < 18; i++) {
    net.post(1);
    await net.send(packet(frame(60)));
  }
  assertEquals((await net.receive()).frame, frame(9000, 3));
});

Deno.test("net --reorder lets packets overtake delayed ones", async () => {
  await using impaired = await Impaired.create({ delay: "tx:200ms", reorder: "tx:10%" });
  const early = await impaired.send(500);
  const late = await impaired.take(500 - early.length);
  const all = [...early, ...late];
  assertEquals(new Set(all).size, 500);
  const overtaking = all.filter((number, i) => all.slice(0, i).some((other) => other > number));
  assertGreater(overtaking.length, 0);
});

Deno.test("net --rate makes packets wait both ways, and loses none", async () => {
  await using impaired = await Impaired.create({ rate: "4mbit" }, { queues: [256, 256] });
  const { net, peer } = impaired;
  const start = performance.now();
  const count = 200;
  const sent = Array.from({ length: count }, (_, i) => net.send(packet(numbered(i, 1000))));
  assertEquals(await impaired.take(count), Array.from({ length: count }, (_, i) => i));
  await Promise.all(sent);
  // The first packets may use the credit of some milliseconds.
  const least = (count - 10) * 1000 * 8 / 4e6 * 1000;
  assertGreater(performance.now() - start, least);
  const begin = performance.now();
  for (let i = 0; i < 50; i++) assert(writeNow(peer.number, packet(numbered(i, 1000))) > 0);
  net.post(50);
  for (let i = 0; i < 50; i++) assertEquals(numberOf((await net.receive()).frame), i);
  assertGreater(performance.now() - begin, 40 * 1000 * 8 / 4e6 * 1000);
  assertEquals([net.report.sent.drops, net.report.received.drops], [{}, {}]);
});

Deno.test("POST /impair changes what is in force while packets pass, and the record shows it", async () => {
  await using impaired = await Impaired.create();
  const { net } = impaired;
  assertEquals(net.report.impairment, undefined);
  assertEquals(await impaired.send(100), Array.from({ length: 100 }, (_, i) => i));
  const lossy = { tx: { loss: 1 }, rx: { loss: 1 }, seed: 5 };
  assertEquals(await net.command("impair", { loss: "100%", seed: 5 }), lossy);
  assertEquals(await net.command("impair"), lossy);
  assertEquals(net.report.impairment, lossy);
  assertEquals(await impaired.send(100), []);
  await net.command("impair", { delay: "60s" });
  assertEquals(await impaired.send(10), []);
  // What is delayed passes when there is no delay.
  await net.command("impair", {});
  assertEquals(await impaired.take(10), Array.from({ length: 10 }, (_, i) => i));
  assertEquals(await impaired.send(100), Array.from({ length: 100 }, (_, i) => i));
  await assertRejects(() => net.command("impair", { delay: "x" }), TypeError);
  assertEquals(net.report.sent.drops, { loss: 100 });
});

Deno.test("POST /impair with a shorter delay holds for packets that are delayed already", async () => {
  await using impaired = await Impaired.create({ delay: "60s" });
  const { net, peer } = impaired;
  assertEquals(await impaired.send(10), []);
  assert(writeNow(peer.number, packet(numbered(7))) > 0);
  net.post(1);
  const begin = performance.now();
  await net.command("impair", { delay: "20ms", jitter: "5ms" });
  const early = await impaired.send(1);
  const all = [...early, ...await impaired.take(11 - early.length)];
  assertEquals(all, [...Array.from({ length: 10 }, (_, i) => i), 0]);
  assertGreater(performance.now() - begin, 14);
  assertEquals(numberOf((await net.receive()).frame), 7);
});

Deno.test("net drops packets for which there is no room among the delayed ones", async () => {
  await using impaired = await Impaired.create({ delay: "tx:60s" }, { queues: [256, 1024] });
  const { net } = impaired;
  const frame = packet(new Uint8Array(18 + 65_535));
  for (let i = 0; i < 300; i++) await net.send(frame);
  const { packets, drops } = net.report.sent;
  assertEquals(packets + drops.delay, 300);
  assertEquals(packets, Math.floor(2 ** 24 / frame.length));
});

Deno.test("net stops and starts again with delayed packets, which arrive once", async () => {
  await using impaired = await Impaired.create({ delay: "tx:60s" });
  const { net } = impaired;
  assertEquals(await impaired.send(20), []);
  await net.driver.stop();
  await net.driver.restart();
  await net.send(packet(numbered(20)));
  await net.command("impair", {});
  assertEquals(await impaired.take(21), Array.from({ length: 21 }, (_, i) => i));
  assertEquals(impaired.now(), undefined);
});

Deno.test("a port that is full makes the guest wait, also behind delayed packets", async () => {
  await using impaired = await Impaired.create({ delay: "tx:1ms" }, { queues: [256, 1024] });
  const { net } = impaired;
  const sent = Array.from({ length: 2000 }, (_, i) => net.send(packet(numbered(i, 1000))));
  await sent[0];
  assertEquals(await impaired.take(2000), Array.from({ length: 2000 }, (_, i) => i));
  await Promise.all(sent);
  assertEquals(net.report.sent.drops, {});
});

Deno.test("POST /link stops packets both ways and counts them, 10,000 times under traffic", async () => {
  await using impaired = await Impaired.create({ delay: "1ms", loss: "1%" });
  const { net, peer } = impaired;
  assertEquals([net.report.link, await net.command("link")], ["up", { up: true }]);
  const flapping = (async () => {
    for (let i = 0; i < 5000; i++) {
      await net.command("link", { up: false });
      await net.command("link", { up: true });
    }
  })();
  let isFlapping = true;
  flapping.finally(() => isFlapping = false);
  net.post(200);
  let sent = 0;
  for (; isFlapping; sent++) {
    await net.send(packet(numbered(sent)));
    if (sent < 200) writeNow(peer.number, packet(numbered(sent)));
    while (impaired.now() !== undefined);
  }
  await flapping;
  assertGreater(net.report.sent.drops["link down"], 0);
  await net.command("impair", {});
  assertEquals(net.report.link, "up");
  await net.command("link", { up: false });
  assertEquals(net.report.link, "down");
  const before = net.report.sent.drops["link down"];
  while (impaired.now() !== undefined);
  await net.send(packet(numbered(1)));
  assertEquals(impaired.now(), undefined);
  assertEquals(net.report.sent.drops["link down"], before + 1);
  await net.command("link", { up: true });
  await net.send(packet(numbered(2)));
  assertEquals(await impaired.take(1), [2]);
  const { packets, drops } = net.report.sent;
  assertGreater(packets + (drops.loss ?? 0) + drops["link down"], sent + 1);
});

Deno.test("the queue of delayed packets agrees with a list", () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  let state = seed;
  const random = (below: number) => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) % below;
  const queue = new DelayQueue(0);
  const model: Uint8Array[] = [];
  const memory = new Uint8Array(pinnedBuffer(2 ** 17));
  const address = addressOf(memory);
  for (let i = 0; i < 40_000; i++) {
    if (random(100) < (i % 8000 < 4000 ? 60 : 40)) {
      const bytes = 1 + random(random(10) === 0 ? 65_565 : 3000);
      memory.fill(random(256), 0, Math.min(bytes, 64));
      const hasRoom = queue.add(bytes, i);
      if (hasRoom) {
        const half = bytes >> 1;
        if (half > 0) queue.push(address, half);
        queue.push(address + half, bytes - half);
        model.push(memory.slice(0, bytes));
      } else {
        const held = model.reduce((sum, { length }) => sum + length, 0);
        assert(held > 2 ** 24 - 3 * 65_565 || model.length === MAX_PACKETS, `seed ${seed}`);
      }
    } else if (model.length > 0) {
      const expected = model.shift()!;
      const { packet } = queue;
      assertEquals(packet.byteLength, expected.length, `seed ${seed}`);
      const got = new Uint8Array(expected.length);
      packet.read(0, got);
      assert(got.every((byte, at) => byte === expected[at]), `seed ${seed}`);
      queue.remove();
    }
    assertEquals(queue.count, model.length, `seed ${seed}`);
  }
});

Deno.test("a packet that waits for a guest for minutes after it was due stays due", () => {
  const at = (seconds: number) => seconds * 1e6 % 2 ** 30;
  const way = new ImpairedWay(0);
  way.set({ ...CLEAN, delayMs: 10 }, 0, 0);
  const add = (now: number) => {
    assert(way.queue.add(1, way.dueAt(now)));
    way.queue.push(addressOf(into), 1);
  };
  add(at(0));
  assertEquals(way.nextInUs(at(0)), 10_000);
  for (const seconds of [1, 500, 600, 1000, 1500]) {
    assertEquals([way.dueInUs(at(seconds)), way.nextInUs(at(seconds))], [0, -1]);
  }
  add(at(600));
  assertEquals(way.nextInUs(at(600)), 10_000);
  way.queue.remove();
  assertEquals([way.isDue(at(600.009)), way.isDue(at(600.01))], [false, true]);
});

Deno.test("a network in TypeScript gets delayed packets in place, one after the other", async () => {
  const handler = new URL("./lib/scripted_network.ts", import.meta.url).pathname;
  await using setUp = await NetDriver.create({ handler, delay: "5ms", duplicate: "rx:100%" });
  for (const [i, what] of [Ask.ECHO, Ask.LATER, Ask.LATER, Ask.ECHO].entries()) {
    const asking = frame(60 + 300 * i, i);
    asking.set([what, 0], 14);
    await setUp.send(packet(asking));
    setUp.post(2);
    for (let copy = 0; copy < 2; copy++) assertEquals((await setUp.receive()).frame, asking);
  }
  assertEquals([setUp.report.sent.drops, setUp.report.received.drops], [{}, {}]);
});

Deno.test("a guest of a switch gets packets late, twice or never, and others do not notice", async () => {
  await using made = new AsyncDisposableStack();
  const directory = await Deno.makeTempDir();
  made.defer(() => Deno.remove(directory, { recursive: true }));
  const path = (i: number) => `${directory}/${i}.sock`;
  const endpoint = (i: number) => ({ socketPath: path(i), options: { port: path(i) } });
  const group = made.use(await serveInstances(theSwitch, { 0: endpoint(0), 1: endpoint(1) }));
  const [a, b] = [
    made.use(await NetDriver.join(group.servers.get("0")!, path(0), {})),
    made.use(await NetDriver.join(group.servers.get("1")!, path(1), {})),
  ];
  const send = (i: number) => a.send(packet(numbered(i, 60 + i)));
  b.post(100);
  await b.command("impair", { delay: "rx:20ms" });
  for (let i = 0; i < 10; i++) await send(i);
  for (let i = 0; i < 10; i++) assertEquals((await b.receive()).frame, numbered(i, 60 + i));
  await b.command("impair", { duplicate: "rx:100%" });
  for (let i = 0; i < 10; i++) await send(i);
  for (let i = 0; i < 20; i++) assertEquals(numberOf((await b.receive()).frame), i >> 1);
  await b.command("impair", { loss: "rx:100%" });
  for (let i = 0; i < 10; i++) await send(i);
  assertEquals(b.report.received.drops, { loss: 10 });
  await b.command("impair", { rate: "rx:100kbit" });
  for (let i = 0; i < 10; i++) await send(i);
  for (let i = 0; i < 10; i++) assertEquals(numberOf((await b.receive()).frame), i);
  await b.command("link", { up: false });
  await send(1);
  assertEquals(b.report.received.drops, { loss: 10, "link down": 1 });
  await b.command("link", { up: true });
  await a.command("impair", { delay: "tx:20ms" });
  for (let i = 0; i < 10; i++) await send(i);
  for (let i = 0; i < 10; i++) assertEquals((await b.receive()).frame, numbered(i, 60 + i));
  assertEquals([a.report.sent.packets, a.report.sent.drops], [51, {}]);

  // The next driver takes no partial checksums, and gets no delayed packet that has one.
  await a.command("impair", {});
  await b.command("impair", { delay: "rx:60s" });
  await a.send(packet(numbered(1), { flags: 1, csumStart: 14, csumOffset: 2 }));
  await b.driver.disconnect();
  const without = ALL_OFFLOADS.filter((name) => name.startsWith("GUEST_"));
  const other = made.use(await NetDriver.join(group.servers.get("1")!, path(1), { without }));
  other.post(2);
  await other.command("impair", {});
  await send(2);
  const { flags, frame } = await other.receive();
  assertEquals([flags, frame], [0, numbered(2, 62)]);
  assertEquals(other.report.received.drops, { loss: 10, "link down": 1, down: 1 });
});
