/** Network cards: packets of any form both ways, pairs that come and go, beside a model. */
import { concat } from "@std/bytes";
import net from "../../../backends/net/mod.ts";
import {
  driverFeatures,
  driverProtocolFeatures,
  type RequestResult,
} from "../../../src/frontend/mod.ts";
import { type Fd, pinnedBuffer, readNow, ready, writeNow } from "../../../src/linux/mod.ts";
import { protocolFeatureMask } from "../../../src/vhost_user/mod.ts";
import { featureMask, hasFeature, transportMask } from "../../../src/virtio/mod.ts";
import { packetSockets } from "../../lib/packet_sockets.ts";
import type { Random } from "../../lib/random.ts";
import { type Tally, TIMEOUT_MS } from "../frame.ts";
import { withTimeout } from "../../lib/process.ts";
import { divide, divided, expectBroken, type Life, withLife } from "./life.ts";

const HEADER_BYTES = 12, MIN_FRAME_BYTES = 14, MAX_FRAME_BYTES = 65_553;

/** How many bytes the peer sends before it waits: fewer than a socket holds. */
const MAX_ROUND_BYTES = 20_000;

/** How many buffers a device has before it gets one that is large enough. */
const MAX_BUFFERS = 40;

const FEATURES = net.features!;
type Feature = keyof typeof FEATURES;

/** Those that a driver may leave out. */
const OPTIONAL: Feature[] = [
  ...["CSUM", "HOST_TSO4", "HOST_TSO6", "HOST_ECN", "HOST_UFO", "HOST_USO"] as const,
  "MRG_RXBUF",
];

/** Packets and bytes that passed, and drops by reason. */
type Counts = Record<string, number>;

/** A receive buffer that the device has. */
interface Buffer {
  bytes: number;
  done: Promise<RequestResult>;
}

/** Lives through one network card with at most `cases` things done; returns how many there were. */
export async function liveAsNetwork(random: Random, cases: number, tally: Tally): Promise<number> {
  const pairs = random.pick([1, 1, 2, 3]);
  let features = driverFeatures & ~transportMask("RING_PACKED", "IN_ORDER");
  for (const name of OPTIONAL) {
    if (random.chance(1, 5)) features &= ~featureMask(FEATURES[name].bit);
  }
  const sockets = Array.from({ length: pairs }, packetSockets);
  using peers = new DisposableStack();
  for (const [, peer] of sockets) peers.use(peer);
  const setup = {
    ...{ name: "net", random, tally, device: net },
    options: { tapFd: sockets.map(([fd]) => fd).join(), queuePairs: pairs },
    driver: {
      queues: 2 * pairs,
      features,
      protocolFeatures: driverProtocolFeatures | protocolFeatureMask("RARP", "NET_MTU"),
    },
  };
  return await withLife(
    setup,
    (life) => new NetworkLife(life, sockets.map(([, peer]) => peer)).run(Math.min(cases, 150)),
  );
}

class NetworkLife {
  readonly #buffers: Buffer[][];
  readonly #into = new Uint8Array(pinnedBuffer(2 ** 17));
  readonly #isMergeable: boolean;
  readonly #sent: Counts = {};
  readonly #received: Counts = {};

  constructor(readonly life: Life, readonly peers: readonly Fd[]) {
    this.#buffers = peers.map(() => []);
    this.#isMergeable = this.#has("MRG_RXBUF");
  }

  #has(name: Feature): boolean {
    return hasFeature(this.life.driver.features, FEATURES[name].bit);
  }

  async run(cases: number): Promise<number> {
    const { random, driver, tally } = this.life;
    for (let done = 0; done < cases; done++) {
      const pair = random.below(this.peers.length);
      switch (random.below(12)) {
        case 0:
          await this.#toggle(pair);
          break;
        case 1:
          await driver.stop();
          await driver.restart();
          tally.add("net: stopped and started");
          break;
        case 2:
          await this.#reset(() => driver.reset().then(() => driver.restart()));
          tally.add("net: reset");
          break;
        case 3:
          await driver.connection.netSetMtu(random.pick([0, 68, 1500, 65_535, random.u32()]));
          await this.#announce();
          break;
        case 4:
          await this.#giveShort(pair);
          break;
        case 5:
        case 6:
        case 7:
          await this.#receive(pair);
          break;
        default:
          await this.#send(pair);
      }
      this.#compare();
    }
    await this.#reset(() => driver.stop());
    tally.add(`net: lives ${this.#isMergeable ? "with" : "without"} MRG_RXBUF`);
    return cases;
  }

  /** The device and the model count the same. */
  #compare(): void {
    const report = this.#report;
    for (const [name, counts] of [["sent", this.#sent], ["received", this.#received]] as const) {
      const { packets, bytes, drops } = report[name];
      const [got, expected] = [text({ packets, bytes, ...drops }), text(counts)];
      if (got !== expected) throw new Error(`Expected ${expected} ${name}, got ${got}`);
    }
  }

  /** A pair is disabled for a while: what the driver sends stays in its ring. */
  async #toggle(pair: number): Promise<void> {
    const { connection } = this.life.driver;
    for (const isEnabled of [false, true]) {
      for (const queue of [2 * pair, 2 * pair + 1]) {
        await connection.setVringEnable(queue, isEnabled);
      }
    }
    this.life.tally.add("net: disabled and enabled");
  }

  /** Does something after which the device has no buffers. */
  async #reset(how: () => Promise<unknown>): Promise<void> {
    await how();
    this.#buffers.forEach((buffers) => buffers.length = 0);
  }

  async #announce(): Promise<void> {
    const { random, driver, tally } = this.life;
    const mac = BigInt(random.u32()) << 16n | BigInt(random.below(2 ** 16));
    await driver.connection.sendRarp(mac);
    const bytes = await this.#read(0);
    const source = bytes.subarray(HEADER_BYTES + 6, HEADER_BYTES + 12);
    const address = new Uint8Array(BigUint64Array.of(mac).buffer, 0, 6);
    if (source.join() !== address.join()) throw new Error(`Expected an announcement of ${address}`);
    tally.add("net: announcements");
  }

  /** A buffer without room for a header breaks the receive queue. */
  async #giveShort(pair: number): Promise<void> {
    const { random } = this.life;
    // The device takes a buffer when it has none, or too few.
    if (this.#buffers[pair].length > 0) return;
    const room = divide(random, random.below(HEADER_BYTES));
    await this.#reset(() => expectBroken(this.life, 2 * pair, [], room));
  }

  async #send(pair: number): Promise<void> {
    const { random, driver, tally } = this.life;
    const packets = Array.from({ length: random.between(1, 8) }, () => {
      const bytes = randomPacket(random);
      const drop = this.#dropOf(bytes);
      count(this.#sent, drop ?? "packets");
      if (drop === undefined) count(this.#sent, "bytes", bytes.length - HEADER_BYTES);
      tally.add(`net: sends ${drop ?? "taken"}`);
      const room = random.chance(1, 8) ? divide(random, random.below(300)) : [];
      return { bytes, drop, done: driver.request(2 * pair + 1, divided(random, bytes), room) };
    });
    for (const { bytes, drop, done } of packets) {
      // The device waits while the socket is full.
      if (drop === undefined) expectSame(await this.#read(pair), bytes);
      const { written } = await done;
      if (written !== 0) throw new Error(`Expected nothing written by a send, got ${written}`);
    }
  }

  /** Why a packet must be dropped: virtio 1.3, 5.1.6.2. */
  #dropOf(packet: Uint8Array): string | undefined {
    const frameBytes = packet.length - HEADER_BYTES;
    if (frameBytes < MIN_FRAME_BYTES) return "tiny";
    if (frameBytes > MAX_FRAME_BYTES) return "oversize";
    const view = new DataView(packet.buffer);
    const needsChecksum = (packet[0] & 1) === 1;
    const [gsoType, hasEcn] = [packet[1] & 0x7f, (packet[1] & 0x80) !== 0];
    if (!needsChecksum) return gsoType === 0 && !hasEcn ? undefined : "header";
    const end = view.getUint16(6, true) + view.getUint16(8, true) + 2;
    if (!this.#has("CSUM") || end > frameBytes) return "header";
    if (gsoType === 0) return hasEcn ? "header" : undefined;
    const types: Record<number, Feature> = {
      1: "HOST_TSO4",
      3: "HOST_UFO",
      4: "HOST_TSO6",
      5: "HOST_USO",
    };
    const needed = types[gsoType];
    if (needed === undefined || !this.#has(needed)) return "header";
    if (hasEcn && !this.#has("HOST_ECN")) return "header";
    return view.getUint16(4, true) === 0 ? "header" : undefined;
  }

  /** The peer sends packets, the driver gives buffers before or after. */
  async #receive(pair: number): Promise<void> {
    const { random, driver, tally } = this.life;
    const buffers = this.#buffers[pair];
    if (random.chance(1, 2)) this.#post(pair, random.between(1, 4));
    const packets: Uint8Array<ArrayBuffer>[] = [];
    for (let left = MAX_ROUND_BYTES, i = random.between(1, 6); left > 0 && i > 0; i--) {
      const frame = random.pick([1, 14, 60, 1514, random.between(1, 4000), MAX_FRAME_BYTES]);
      const packet = randomBytes(random, HEADER_BYTES + frame);
      const written = writeNow(this.peers[pair].number, packet);
      if (written !== packet.length) throw new Error(`Expected room in a socket, got ${written}`);
      packets.push(packet);
      left -= packet.length;
    }
    // Without any buffer the packets stay in the socket.
    if (buffers.length === 0 && random.chance(1, 4)) {
      await driver.stop();
      await driver.restart();
    }
    for (const packet of packets) {
      if (this.#isMergeable) this.#makeRoom(pair, packet.length);
      else if (buffers.length === 0) this.#post(pair, 1);
      if (this.#isMergeable || buffers[0].bytes >= packet.length) await this.#take(pair, packet);
      else await this.#expectDrop();
    }
    tally.add("net: packets received", packets.length);
  }

  /** Gives buffers of one size to the device. */
  #post(
    pair: number,
    count: number,
    bytes = HEADER_BYTES + this.life.random.pick([0, 1, 500, 1514, this.life.random.below(70_000)]),
  ): void {
    const { random, driver } = this.life;
    for (let i = 0; i < count; i++) {
      const readable = random.chance(1, 16) ? [new Uint8Array(random.below(9))] : [];
      const done = driver.request(2 * pair, readable, divide(random, bytes));
      done.catch(() => {}); // A reset gives it up.
      this.#buffers[pair].push({ bytes, done });
    }
  }

  /** Gives buffers until they have room for a packet. */
  #makeRoom(pair: number, bytes: number): void {
    const buffers = this.#buffers[pair];
    const room = () => buffers.reduce((sum, buffer) => sum + buffer.bytes, 0);
    while (room() < bytes) {
      if (buffers.length < MAX_BUFFERS) this.#post(pair, 1);
      else this.#post(pair, 1, bytes);
    }
  }

  /** Expects a packet in the first buffers. */
  async #take(pair: number, packet: Uint8Array): Promise<void> {
    const parts: Uint8Array[] = [];
    for (let left = packet.length; left > 0;) {
      const { bytes, done } = this.#buffers[pair].shift()!;
      const expected = Math.min(bytes, left);
      const { written, data } = await done;
      if (written !== expected) throw new Error(`Expected ${expected} bytes, got ${written}`);
      parts.push(concat(data).subarray(0, written));
      left -= written;
    }
    const expected = packet.slice();
    new DataView(expected.buffer).setUint16(10, parts.length, true); // num_buffers
    expectSame(concat(parts), expected);
    count(this.#received, "packets");
    count(this.#received, "bytes", packet.length - HEADER_BYTES);
  }

  /** Waits until the device has dropped one more packet for want of room. */
  async #expectDrop(): Promise<void> {
    count(this.#received, "buffers");
    const end = performance.now() + TIMEOUT_MS;
    while ((this.#report.received.drops.buffers ?? 0) < this.#received.buffers) {
      if (performance.now() > end) throw new Error("Expected a packet to be dropped");
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** The next packet at the peer of a pair. */
  async #read(pair: number): Promise<Uint8Array> {
    const { number } = this.peers[pair];
    let bytes;
    while ((bytes = readNow(number, this.#into)) < 0) {
      await withTimeout(ready(number, "readable"), TIMEOUT_MS, () => "Expected a packet, got none");
    }
    return this.#into.subarray(0, bytes);
  }

  // deno-lint-ignore no-explicit-any
  get #report(): any {
    return this.life.server.host.control.report!();
  }
}

function count(counts: Counts, name: string, by = 1): void {
  counts[name] = (counts[name] ?? 0) + by;
}

/** Counts as text; those that are 0 are left out. */
function text(counts: Counts): string {
  return Object.entries(counts).filter(([, count]) => count > 0).sort().join(" ");
}

function expectSame(got: Uint8Array, expected: Uint8Array): void {
  if (got.length === expected.length && got.every((byte, i) => byte === expected[i])) return;
  const at = expected.findIndex((byte, i) => got[i] !== byte);
  throw new Error(
    `Expected a packet of ${expected.length} bytes, got ${got.length}, other at byte ${at}`,
  );
}

function randomBytes(random: Random, bytes: number): Uint8Array<ArrayBuffer> {
  const [first, step] = [random.u32(), random.u32() | 1];
  return new Uint8Array(bytes).map((_, i) => first + i * step + (i >> 8));
}

/** A packet of a driver: its header is right, nearly right or anything. */
function randomPacket(random: Random): Uint8Array<ArrayBuffer> {
  const most = HEADER_BYTES + MAX_FRAME_BYTES;
  const bytes = randomBytes(
    random,
    random.chance(1, 4)
      ? random.pick([random.below(26), 26, most, most + 1, most + random.below(5000)])
      : random.between(26, random.pick([80, 1600, 9000])),
  );
  if (random.chance(1, 8)) return bytes;
  bytes.fill(0, 0, HEADER_BYTES);
  if (bytes.length < HEADER_BYTES || random.chance(1, 3)) return bytes;
  const view = new DataView(bytes.buffer);
  bytes[0] = random.pick([0, 1, 1, 1, 0xff]);
  bytes[1] = random.pick([0, 0, 1, 3, 4, 5, 2, 6, 32, 33, random.u32()]) |
    random.pick([0, 0, 0x80]);
  const end = Math.max(0, bytes.length - HEADER_BYTES - 2);
  view.setUint16(2, random.u32(), true);
  view.setUint16(4, random.pick([0, 1, 1448, 65_535]), true);
  view.setUint16(6, random.pick([34, 14, random.below(end + 1), end, 65_535]), true);
  view.setUint16(8, random.pick([0, 0, 6, 16, 1, 65_535]), true);
  return bytes;
}
