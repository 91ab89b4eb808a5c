/**
 * A served disk whose queue thread reads the ring while the driver overwrites it from another
 * thread. The disk's other queue and another disk of the process must not be harmed.
 */
import { Scratch } from "../../lib/scratch.ts";
import blk from "../../../backends/blk/mod.ts";
import { type DeviceServer, serve } from "../../../mod.ts";
import { BlkDriver, SharedMemory, VirtioDriver } from "../../../src/frontend/mod.ts";
import { drainEventfd } from "../../../src/linux/mod.ts";
import { ringRules } from "../../../src/virtqueue/mod.ts";
import type { Random } from "../../lib/random.ts";
import { type FuzzRun, type Part, playParts, type Tally, TIMEOUT_MS } from "../frame.ts";
import { Attack } from "./attack.ts";

/** How often a driver overwrites a ring before the device is reset. */
const MAX_BURST = 400;

/** How often a driver is reset before the next one comes. */
const RESETS = 6;

const RING_BYTES = 0x10_0000, SCRATCH_BYTES = 0x1_0000;

const DISK_BYTES = 0x10_0000;

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
  const play = (server: DeviceServer, serial: string): Part => async (random, cases, tally) => {
    const socketPath = `${directory}/${serial}.sock`;
    const done = await playDriver(random, server, socketPath, serial, cases, tally);
    await checkNeighbour(new BlkDriver(neighbour), random);
    return done;
  };
  await playParts("Driver", [play(inMemory, "memory"), play(inFile, "file")], run);
}

/** One hostile driver: connects, overwrites, is reset, and so on. Returns how many cases that were. */
async function playDriver(
  random: Random,
  server: DeviceServer,
  socketPath: string,
  serial: string,
  limit: number,
  tally: Tally,
): Promise<number> {
  // Neighbours for the guest, apart in the span: buffers may cross from one to the other.
  using memory = new SharedMemory([
    { bytes: RING_BYTES },
    { bytes: SCRATCH_BYTES + random.below(4096) },
  ]);
  const packed = random.chance(1, 2);
  const size = packed ? random.between(2, 256) : 1 << random.between(1, 8);
  await using driver = await VirtioDriver.start(socketPath, {
    queues: [size, 16],
    memory,
    packed,
    eventIndex: random.chance(1, 2),
    indirect: random.chance(3, 4),
    inOrder: random.chance(1, 4),
    timeoutMs: TIMEOUT_MS,
  });
  const attack = new Attack(random, driver);
  const faults = () => server.record().queues[0].errors;
  let done = 0;
  for (let i = 0; i < RESETS && done < limit; i++) {
    const faultsBefore = faults();
    const other = expectId(driver, 1, serial);
    const burst = Math.min(limit - done, random.between(1, random.pick([4, 16, 64, MAX_BURST])));
    attack.run(burst);
    done += burst;
    await other;
    await driver.stop();
    // The thread told of the fault before it answered that the queue stopped.
    const [attacked, healthy] = server.record().queues;
    const isSignalled = drainEventfd(driver.queues[0].handle.errFd);
    const isCounted = faults() > faultsBefore;
    if (attacked.broken !== isSignalled || attacked.broken !== isCounted) {
      throw new Error(
        `Expected the record, the descriptor and the counter to agree on a fault, got ${attacked.broken}, ${isSignalled}, ${isCounted}`,
      );
    }
    if (healthy.broken || healthy.faults.length > 0) {
      throw new Error(`The other queue broke: ${JSON.stringify(healthy.faults)}`);
    }
    if (attacked.broken) {
      const { rule, section, message } = attacked.faults.at(-1)!;
      if (rule !== "device" && (!(rule in ringRules) || section === null)) {
        throw new Error(`Expected a rule of the ring, got ${rule}: ${message}`);
      }
      if (rule === "device" && !message.includes("status byte")) {
        throw new Error(`Expected a request without a status to break the queue, got ${message}`);
      }
      tally.add(`served: ${rule}`);
    } else {
      tally.add("served: bursts without a fault");
    }
    if (attacked.inFlight !== 0) {
      throw new Error(`Expected nothing in flight after a stop, got ${attacked.inFlight}`);
    }
    await driver.reset();
    await driver.restart();
    await expectId(driver, 0, serial);
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
