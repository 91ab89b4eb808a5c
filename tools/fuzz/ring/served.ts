/**
 * Served devices whose queue threads read a ring while the driver overwrites it from another
 * thread. The device's other queues and a disk of the process must not be harmed.
 */
import { Scratch } from "../../lib/scratch.ts";
import blk from "../../../backends/blk/mod.ts";
import net from "../../../backends/net/mod.ts";
import { type DeviceServer, serve } from "../../../mod.ts";
import { BlkDriver, SharedMemory, VirtioDriver } from "../../../src/frontend/mod.ts";
import { drainEventfd } from "../../../src/linux/mod.ts";
import { ringRules } from "../../../src/virtqueue/mod.ts";
import type { Random } from "../../lib/random.ts";
import { type FuzzRun, type Part, playParts, type Tally, TIMEOUT_MS } from "../frame.ts";
import { Attack, type IsWritable } from "./attack.ts";

/** How often a driver overwrites a ring before the device is reset. */
const MAX_BURST = 400;

/** How often a driver is reset before the next one comes. */
const RESETS = 6;

const RING_BYTES = 0x10_0000, SCRATCH_BYTES = 0x1_0000;

const DISK_BYTES = 0x10_0000;

/** A frame of the network card's source port, and what each of its packets takes. */
const FRAME_BYTES = 64, PACKET_BYTES = 12 + FRAME_BYTES;

/** A device of which one queue is attacked. */
interface Victim {
  name: string;
  server: DeviceServer;
  socketPath: string;
  /** How many queues there are; the first one that is attacked has any size. */
  queues: number;
  /** The queue that is attacked. */
  attacked: number;
  /** A queue that must work all the time. */
  other: number;
  isWritable: IsWritable;
  /** What the device itself may say of a chain that obeys the rules of rings. */
  fault: string;
  /** Makes a queue do its work once. */
  check(driver: VirtioDriver, queue: number): Promise<void>;
}

export async function playServedRings(run: FuzzRun): Promise<void> {
  if (run.cases === 0) return;
  // In memory, so that what the guest flushes costs little.
  using scratch = new Scratch("fuzz-");
  const directory = scratch.directory("/dev/shm");
  const image = `${directory}/disk.img`;
  Deno.writeFileSync(image, new Uint8Array(DISK_BYTES));
  const open = (serial: string, store: Record<string, unknown>) =>
    serve(blk, {
      socketPath: `${directory}/${serial}.sock`,
      threads: 2,
      options: { ...store, numQueues: 2, serial },
    });
  await using inMemory = await open("memory", { size: DISK_BYTES });
  // Requests are in flight for a while.
  await using inFile = await open("file", { blkFile: image, io: "uring" });
  await using _other = await open("neighbour", { size: DISK_BYTES });
  await using neighbour = await VirtioDriver.start(`${directory}/neighbour.sock`, {
    timeoutMs: TIMEOUT_MS,
  });
  const disk = (server: DeviceServer, name: string): Victim => ({
    ...{ name, server, socketPath: `${directory}/${name}.sock` },
    ...{ queues: 2, attacked: 0, other: 1, fault: "status byte" },
    isWritable: (i, count) => i > 0 || count === 1,
    check: (driver, queue) => expectId(driver, queue, name),
  });
  const socketPath = `${directory}/net.sock`;
  const options = { source: FRAME_BYTES, queuePairs: 2 };
  await using card = await serve(net, { socketPath, threads: 2, options });
  const cardQueue = (attacked: number): Victim => ({
    ...{ name: "net", server: card, socketPath, queues: 4, attacked, other: 3 },
    fault: "receive buffer",
    isWritable: () => attacked % 2 === 0,
    check: expectPacket,
  });
  const play = (victim: Victim): Part => async (random, cases, tally) => {
    const done = await playDriver(random, victim, cases, tally);
    await checkNeighbour(new BlkDriver(neighbour), random);
    return done;
  };
  const victims = [disk(inMemory, "memory"), cardQueue(0), disk(inFile, "file"), cardQueue(1)];
  await playParts("Driver", victims.map(play), run);
}

/** One hostile driver: connects, overwrites, is reset, and so on. Returns how many cases that were. */
async function playDriver(
  random: Random,
  victim: Victim,
  limit: number,
  tally: Tally,
): Promise<number> {
  const { server, attacked, other, check } = victim;
  // Neighbours for the guest, apart in the span: buffers may cross from one to the other.
  using memory = new SharedMemory([
    { bytes: RING_BYTES },
    { bytes: SCRATCH_BYTES + random.below(4096) },
  ]);
  const packed = random.chance(1, 2);
  const size = packed ? random.between(2, 256) : 1 << random.between(1, 8);
  const queues = new Array<number>(victim.queues).fill(16).with(attacked, size);
  await using driver = await VirtioDriver.start(victim.socketPath, {
    queues,
    memory,
    packed,
    eventIndex: random.chance(1, 2),
    indirect: random.chance(3, 4),
    inOrder: random.chance(1, 4),
    timeoutMs: TIMEOUT_MS,
  });
  const attack = new Attack(random, driver, attacked, victim.isWritable);
  const faults = () => server.record().queues[attacked].errors;
  let done = 0;
  for (let i = 0; i < RESETS && done < limit; i++) {
    const faultsBefore = faults();
    const otherWorks = check(driver, other);
    const burst = Math.min(limit - done, random.between(1, random.pick([4, 16, 64, MAX_BURST])));
    attack.run(burst);
    done += burst;
    await otherWorks;
    await driver.stop();
    // The thread told of the fault before it answered that the queue stopped.
    const { queues } = server.record();
    const { broken, faults: found, inFlight } = queues[attacked];
    const isSignalled = drainEventfd(driver.queues[attacked].handle.errFd);
    const isCounted = faults() > faultsBefore;
    if (broken !== isSignalled || broken !== isCounted) {
      throw new Error(
        `Expected the record, the descriptor and the counter to agree on a fault, got ${broken}, ${isSignalled}, ${isCounted}`,
      );
    }
    const harmed = queues.find(({ broken }, i) => broken && i !== attacked);
    if (harmed) throw new Error(`Another queue broke: ${JSON.stringify(harmed.faults)}`);
    if (broken) {
      const { rule, section, message } = found.at(-1)!;
      if (rule !== "device" && (!(rule in ringRules) || section === null)) {
        throw new Error(`Expected a rule of the ring, got ${rule}: ${message}`);
      }
      if (rule === "device" && !message.includes(victim.fault)) {
        throw new Error(`Expected a ${victim.fault} to break the queue, got ${message}`);
      }
      tally.add(`served: ${rule}`);
    } else {
      tally.add("served: bursts without a fault");
    }
    if (inFlight !== 0) {
      throw new Error(`Expected nothing in flight after a stop, got ${inFlight}`);
    }
    await driver.reset();
    await driver.restart();
    await check(driver, attacked);
    tally.add(`served: ${victim.name} queues attacked`);
    tally.add(`served: ${packed ? "packed" : "split"} queues mended by a reset`);
  }
  return done;
}

const GET_ID = 8;

async function expectId(driver: VirtioDriver, queue: number, serial: string): Promise<void> {
  const header = new Uint8Array(16);
  header[0] = GET_ID;
  // Two parts: the smallest rings have room for no more.
  const { data: [answer] } = await driver.request(queue, [header], [21], { indirect: false });
  const id = new TextDecoder().decode(answer.subarray(0, serial.length));
  if (id !== serial || answer[20] !== 0) {
    throw new Error(`Expected ID ${serial} of queue ${queue}, got ${id}, status ${answer[20]}`);
  }
}

/** A transmit queue takes a packet; a receive queue gives one of the source port. */
async function expectPacket(driver: VirtioDriver, queue: number): Promise<void> {
  const isSend = queue % 2 === 1;
  const { written } = isSend
    ? await driver.request(queue, [new Uint8Array(PACKET_BYTES)], [])
    : await driver.request(queue, [], [PACKET_BYTES]);
  const expected = isSend ? 0 : PACKET_BYTES;
  if (written !== expected) throw new Error(`Expected ${expected} bytes written, got ${written}`);
}

/** The other disk of the process still does what it is told. */
async function checkNeighbour(disk: BlkDriver, random: Random): Promise<void> {
  const sector = random.below(DISK_BYTES / 512 - 8);
  const bytes = new Uint8Array(4096).map(() => random.u32());
  const written = await disk.write(sector, bytes);
  const { status, data } = await disk.read(sector, bytes.length);
  if (written.status !== 0 || status !== 0 || data.some((byte, i) => byte !== bytes[i])) {
    throw new Error(`Another disk of the process lost what was written to sector ${sector}`);
  }
}
