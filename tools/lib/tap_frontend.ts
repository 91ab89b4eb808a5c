/**
 * A program: joins a TAP to a network device's back-end, as a guest's driver joins the guest's
 * network stack to it. It is started with the path of the back-end's socket, the name of the TAP and
 * a {@linkcode TapFrontendOptions} as JSON, and prints a line when it runs.
 */
import net from "../../backends/net/mod.ts";
import { driverFeatures, VirtioDriver } from "../../src/frontend/mod.ts";
import {
  drainEventfd,
  NetworkInterface,
  openTap,
  readNow,
  setTapOffload,
  TapOffload,
  watch,
  writeNow,
} from "../../src/linux/mod.ts";
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

// virtio 1.3, 5.1.6: flags
const NEEDS_CSUM = 1, DATA_VALID = 2;

/**
 * Says to a TAP that a packet's checksum is valid: TAPs know only checksums that are to be
 * completed. For TCP and UDP over IPv4 without offloads.
 */
function vouch(packet: Uint8Array<ArrayBuffer>): void {
  const view = new DataView(packet.buffer);
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
  for (let pair = 0; pair < enabled; pair++) receive(2 * pair, bufferBytes);
  send(1);
  console.log("runs");

  function receive(index: number, bytes: number): void {
    const queue = driver.queues[index];
    const buffers = new Map<number, number>();
    const post = (gpa: number) => {
      queue.begin(1);
      queue.descriptor(gpa, bytes, true);
      buffers.set(queue.end(), gpa);
    };
    for (let i = 0; i < (bytes > 4096 ? SLOTS : queue.size); i++) post(driver.memory.alloc(bytes));
    queue.submit();
    const packet = new Uint8Array(2 * MOST_BYTES);
    let length = 0, left = 0;
    const { callFd } = queue.handle;
    watch(callFd, "readable", () => {
      drainEventfd(callFd);
      do {
        for (let id = queue.poll(); id >= 0; id = queue.poll()) {
          const gpa = buffers.get(id)!;
          packet.set(driver.memory.at(gpa, queue.written), length);
          post(gpa);
          if (length === 0) left = packet[10] | packet[11] << 8;
          length += queue.written;
          if (--left > 0) continue;
          if ((packet[0] & DATA_VALID) !== 0) vouch(packet);
          writeNow(tap.number, packet.subarray(0, length));
          length = 0;
        }
        queue.submit();
      } while (queue.arm());
    });
    queue.arm();
  }

  function send(index: number): void {
    const queue = driver.queues[index];
    const free = Array.from({ length: SLOTS }, () => driver.memory.alloc(MOST_BYTES));
    const busy = new Map<number, number>();
    const readable = watch(tap.number, "readable", () => {
      for (let gpa = free.pop(); gpa !== undefined; gpa = free.pop()) {
        const bytes = readNow(tap.number, driver.memory.at(gpa, MOST_BYTES));
        if (bytes <= 0) {
          free.push(gpa);
          break;
        }
        queue.begin(1);
        queue.descriptor(gpa, bytes, false);
        busy.set(queue.end(), gpa);
      }
      if (free.length === 0) readable.pause();
      queue.submit();
    });
    const { callFd } = queue.handle;
    watch(callFd, "readable", () => {
      drainEventfd(callFd);
      do {
        for (let id = queue.poll(); id >= 0; id = queue.poll()) free.push(busy.get(id)!);
      } while (queue.arm());
      readable.resume();
    });
    queue.arm();
  }
}
