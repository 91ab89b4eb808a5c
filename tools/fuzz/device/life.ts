/**
 * What the lives of all devices have in common: a device is served, a driver does things to it,
 * everything goes again.
 */
import { Scratch } from "../../lib/scratch.ts";
import { type AnyDevice, type DeviceServer, serve, type ServeOptions } from "../../../mod.ts";
import {
  FrontendError,
  VirtioDriver,
  type VirtioDriverOptions,
} from "../../../src/frontend/mod.ts";
import type { Random } from "../../lib/random.ts";
import { type Tally, TIMEOUT_MS } from "../frame.ts";

/** The most parts of a request's readable, and of its writable bytes. */
const MAX_PARTS = 12;

/** SET_CONFIG, flags: the front-end restores the space of a migrated device. */
const MIGRATION = 1;

export interface Life {
  random: Random;
  tally: Tally;
  server: DeviceServer;
  driver: VirtioDriver;
}

export interface Setup {
  /** What failures begin with. */
  name: string;
  random: Random;
  tally: Tally;
  device: AnyDevice;
  options: ServeOptions["options"];
  /** What the driver does beside that. */
  driver?: Pick<VirtioDriverOptions, "queues" | "features" | "protocolFeatures">;
}

/** Serves a device, and connects a driver with rings of any kind. */
export async function withLife<T>(
  { name, random, tally, device, options, ...setup }: Setup,
  use: (life: Life) => Promise<T>,
): Promise<T> {
  using scratch = new Scratch("fuzz-");
  try {
    const socketPath = `${scratch.directory()}/device.sock`;
    await using server = await serve(device, { socketPath, threads: 2, options });
    await using driver = await VirtioDriver.start(socketPath, {
      ...setup.driver,
      packed: random.chance(1, 2),
      eventIndex: random.chance(1, 2),
      inOrder: random.chance(1, 4),
      indirectParts: 2 * MAX_PARTS,
      timeoutMs: TIMEOUT_MS,
    });
    return await use({ random, tally, server, driver });
  } catch (cause) {
    throw new Error(`${name}: ${(cause as Error).message}`, { cause });
  }
}

/** Divides so many bytes at odd places, into parts of no bytes too. */
export function divide(random: Random, bytes: number): number[] {
  const count = random.chance(1, 3) ? 1 : random.between(1, MAX_PARTS);
  const cuts = Array.from(
    { length: count - 1 },
    // Near the ends, where headers and statuses are; or anywhere.
    () =>
      random.chance(1, 2)
        ? random.below(bytes + 1)
        : Math.max(0, Math.min(bytes, random.pick([random.below(18), bytes - random.below(3)]))),
  ).sort((a, b) => a - b);
  return [...cuts, bytes].map((cut, i) => cut - (i === 0 ? 0 : cuts[i - 1]));
}

/** The readable bytes of a request, divided. */
export function divided(random: Random, bytes: Uint8Array): Uint8Array[] {
  let at = 0;
  return divide(random, bytes.length).map((length) => bytes.subarray(at, at += length));
}

/** A request that makes no sense breaks its queue, by name, and a reset mends it. */
export async function expectBroken(
  { driver, server, tally }: Life,
  queue: number,
  readable: Uint8Array[],
  writable: number[],
): Promise<void> {
  try {
    await driver.request(queue, readable, writable);
    throw new Error("Expected a broken queue, got an answer");
  } catch (error) {
    if (!(error instanceof FrontendError) || error.reason !== "device") throw error;
  }
  await driver.reset();
  const fault = server.record().queues[queue].faults.at(-1);
  if (fault?.rule !== "device") {
    throw new Error(`Expected a fault in the record, got ${JSON.stringify(fault)}`);
  }
  await driver.restart();
  tally.add("requests that broke their queue");
}

/** Reads or writes config space anywhere. `writable` are the places that may change by a write. */
export async function accessConfig(life: Life, writable: ReadonlySet<number>): Promise<void> {
  const { random, tally, driver, server } = life;
  const { connection } = driver;
  const { size } = server.host.config.layout;
  const offset = random.below(random.chance(7, 8) ? size + 2 : 300);
  const bytes = random.chance(7, 8)
    ? random.below(size - Math.min(offset, size) + 2)
    : random.below(257);
  const isInside = offset + bytes <= size;
  const before = await connection.getConfig(0, size);
  const refusal = (error: unknown) => {
    if (error instanceof FrontendError && error.reason === "refused") return undefined;
    throw error;
  };
  if (random.chance(1, 2)) {
    const data = await connection.getConfig(offset, bytes).catch(refusal);
    tally.add(`config: reads ${data === undefined ? "refused" : "answered"}`);
    // A refusal is a reply without bytes.
    if (bytes > 0 && (data !== undefined) !== isInside) {
      throw new Error(
        `Expected config ${offset}+${bytes} of ${size} to be ${isInside ? "read" : "refused"}`,
      );
    }
    if (data !== undefined && data.some((byte, i) => byte !== before[offset + i])) {
      throw new Error(`Expected config ${offset}+${bytes} to be a part of the whole`);
    }
    return;
  }
  // What is there with one byte changed, as QEMU writes it; or anything.
  const data = random.chance(1, 2) && isInside
    ? before.slice(offset, offset + bytes)
    : new Uint8Array(bytes).map(() => random.u32());
  if (bytes > 0) data[random.below(bytes)] = random.pick([0, 1, 2, 0x10, 0x11, 0x12, random.u32()]);
  const flags = random.pick([0, 0, 0, 1, random.below(5)]);
  const isTaken = await connection.setConfig(offset, data, flags).then(() => true, refusal);
  tally.add(`config: writes ${isTaken ? "taken" : "refused"}`);
  const after = await connection.getConfig(0, size);
  if (isTaken && !isInside) throw new Error(`Config ${offset}+${bytes} of ${size} was written`);
  for (let at = 0; at < size; at++) {
    if (after[at] === before[at] || (isTaken && writable.has(at))) continue;
    // The front-end of a device that migrates here may write all of it.
    if (isTaken && flags === MIGRATION) continue;
    throw new Error(`Byte ${at} of config space changed by a write of ${offset}+${bytes}`);
  }
}
