/**
 * A program: joins a TAP to a network device's back-end, as a guest's driver joins the guest's
 * network stack to it. It is started with the path of the back-end's socket, the name of the TAP and
 * a {@linkcode TapFrontendOptions} as JSON, and prints a line when it runs.
 */
import net from "../../backends/net/mod.ts";
import { driverFeatures, VirtioDriver } from "../../src/frontend/mod.ts";
import {
  addressOf,
  CURRENT_POSITION,
  drainEventfd,
  IoVectors,
  NetworkInterface,
  openTap,
  readNow,
  setTapOffload,
  TapOffload,
  writeVectors,
} from "../../src/linux/mod.ts";
import { Reactor } from "../../src/linux/wait/reactor.ts";
import { featureMask, hasFeature } from "../../src/virtio/mod.ts";

export interface TapFrontendOptions {
  /** Names of features that are not acknowledged. */
  without?: (keyof NonNullable<typeof net.features>)[];
  packed?: boolean;
  pairs?: number;
  /** How many of the pairs are enabled. */
  enabled?: number;
  /** The size of a receive buffer; 65,565 without MRG_RXBUF. */
  bufferBytes?: number;
}

const HEADER_BYTES = 12, MOST_BYTES = 65_565;
const SLOTS = 64;
/** How many packets are read before the device sees them. */
const BATCH = 8;

// virtio 1.3, 5.1.6: flags
const NEEDS_CSUM = 1, DATA_VALID = 2;

/**
 * Says to a TAP that a packet's checksum is valid: TAPs know only checksums that are to be
 * completed. For TCP and UDP over IPv4 without offloads.
 */
function vouch(packet: Uint8Array<ArrayBuffer>): void {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const ip = HEADER_BYTES + 14;
  const [protocol, ipBytes] = [packet[ip + 9], (packet[ip] & 15) * 4];
  const offset = protocol === 6 ? 16 : protocol === 17 ? 6 : 0;
  if (view.getUint16(ip - 2) !== 0x0800 || offset === 0) return;
  // The pseudo-header's sum.
  let sum = protocol + view.getUint16(ip + 2) - ipBytes;
  for (let at = ip + 12; at < ip + 20; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(ip + ipBytes + offset, sum);
  packet[0] = NEEDS_CSUM;
  view.setUint16(6, 14 + ipBytes, true);
  view.setUint16(8, offset, true);
}

if (import.meta.main) await main(Deno.args[0], Deno.args[1], JSON.parse(Deno.args[2]));

async function main(
  socketPath: string,
  name: string,
  { without = [], packed = false, pairs = 1, enabled = pairs, ...options }: TapFrontendOptions,
): Promise<void> {
  let features = driverFeatures & ~featureMask(35) & ~featureMask(34);
  for (const feature of without) features &= ~featureMask(net.features![feature].bit);
  const queues = new Array<number>(2 * pairs).fill(256);
  const driver = await VirtioDriver.start(socketPath, { queues, features, packed });
  for (let pair = enabled; pair < pairs; pair++) {
    for (const queue of [2 * pair, 2 * pair + 1]) {
      await driver.connection.setVringEnable(queue, false);
    }
  }
  const has = (name: keyof NonNullable<typeof net.features>) =>
    hasFeature(driver.features, net.features![name].bit);
  const tap = openTap(name, HEADER_BYTES, false);
  setTapOffload(
    tap.number,
    has("CSUM")
      ? TapOffload.CSUM | (has("HOST_TSO4") ? TapOffload.TSO4 : 0) |
        (has("HOST_TSO6") ? TapOffload.TSO6 : 0)
      : 0,
  );
  using control = new NetworkInterface(name);
  control.setUp();
  const bufferBytes = has("MRG_RXBUF") ? options.bufferBytes ?? 2048 : MOST_BYTES;
  const reactor = new Reactor();
  for (let pair = 0; pair < enabled; pair++) receive(2 * pair, bufferBytes);
  send(1);
  console.log("runs");
  // No event loop any more: a wake-up is one system call.
  for (;;) reactor.turn();

  /** Writes packets to the TAP from where they are. */
  function receive(index: number, bytes: number): void {
    const queue = driver.queues[index];
    const count = bytes > 4096 ? SLOTS : queue.size;
    const gpas = Array.from({ length: count }, () => driver.memory.alloc(bytes));
    const buffers = gpas.map((gpa) => driver.memory.at(gpa, bytes));
    const addresses = buffers.map(addressOf);
    const bufferOf = new Uint16Array(queue.size);
    const post = (buffer: number) => {
      queue.begin(1);
      queue.descriptor(gpas[buffer], bytes, true);
      bufferOf[queue.end()] = buffer;
    };
    for (let buffer = 0; buffer < count; buffer++) post(buffer);
    queue.submit();
    const vectors = new IoVectors();
    /** The buffers of the packet, and how many are still to come. */
    const packet: number[] = [];
    let left = 0;
    onCall(queue, () => {
      for (let id = queue.poll(); id >= 0; id = queue.poll()) {
        const buffer = bufferOf[id], content = buffers[buffer];
        if (packet.length === 0) {
          left = content[10] | content[11] << 8;
          if ((content[0] & DATA_VALID) !== 0) vouch(content);
        }
        packet.push(buffer);
        vectors.push(addresses[buffer], queue.written);
        if (--left > 0) continue;
        writeVectors(tap.number, vectors, CURRENT_POSITION);
        vectors.count = 0;
        for (const buffer of packet) post(buffer);
        packet.length = 0;
      }
      queue.submit();
    });
  }

  /** Reads packets of the TAP into the memory of the ring. */
  function send(index: number): void {
    const queue = driver.queues[index];
    const gpas = Array.from({ length: SLOTS }, () => driver.memory.alloc(MOST_BYTES));
    const buffers = gpas.map((gpa) => driver.memory.at(gpa, MOST_BYTES));
    const free = gpas.map((_, buffer) => buffer);
    const bufferOf = new Uint16Array(queue.size);
    const readable = reactor.watch(tap.number, "readable", () => {
      for (let read = 1; free.length > 0; read++) {
        const buffer = free[free.length - 1];
        const bytes = readNow(tap.number, buffers[buffer]);
        if (bytes <= 0) break;
        free.pop();
        queue.begin(1);
        queue.descriptor(gpas[buffer], bytes, false);
        bufferOf[queue.end()] = buffer;
        if (read % BATCH === 0) queue.submit();
      }
      if (free.length === 0) readable.pause();
      queue.submit();
    });
    onCall(queue, () => {
      for (let id = queue.poll(); id >= 0; id = queue.poll()) free.push(bufferOf[id]);
      readable.resume();
    });
  }

  /** Calls `take` for completed requests whenever the device notifies. */
  function onCall(queue: typeof driver.queues[number], take: () => void): void {
    const { callFd } = queue.handle;
    reactor.watch(callFd, "readable", () => {
      drainEventfd(callFd);
      do take(); while (queue.arm());
    });
    queue.arm();
  }
}
