/**
 * Watches the drivers of a guest through QEMU's trace, and completes the records of their devices.
 *
 * @module
 */

import {
  MAX_BATCH_ACCESSES,
  type RegisterAccess,
  type TraceBatch,
} from "../../runtime/driver_trace.ts";
import type { ServedDevice } from "./control_client.ts";
import {
  findDevices,
  findRegions,
  type QemuDevice,
  type Region,
  regionKind,
} from "./qemu_devices.ts";
import type { Qmp } from "./qmp.ts";
import { Registers } from "./registers.ts";
import type { TracedAccess, TraceLog } from "./trace_log.ts";

/** Time between an access and its post: what comes meanwhile is posted with it. */
const COLLECT_MS = 50;

/** Time between two signs of life to each device. */
const ALIVE_MS = 2000;

/** Questions about where a region is, before its accesses are given up: a BAR may be moving. */
const MAX_QUESTIONS = 5;

/** Pause between two of them. */
const QUESTION_PAUSE_MS = 100;

/** Regions that are remembered. */
const MAX_REGIONS = 4096;

/** A device that is watched. */
class Target {
  readonly registers = new Registers();
  readonly #device: ServedDevice;
  readonly #watch: string;
  readonly #tell: (line: string) => void;
  #batch: RegisterAccess[] = [];
  #lost = 0;
  #isGone = false;

  constructor(device: ServedDevice, watch: string, tell: (line: string) => void) {
    this.#device = device;
    this.#watch = watch;
    this.#tell = tell;
  }

  /**
   * Attaches the watch.
   *
   * @param whole Whether its log has been on since before any driver.
   * @throws {Error} When another one is attached, or the server is gone.
   */
  async attach(whole: boolean): Promise<void> {
    await this.#device.post({ watch: this.#watch, whole });
  }

  /** Adds an access; equal ones that follow each other become one. */
  add(access: RegisterAccess): void {
    const last = this.#batch.at(-1);
    if (last !== undefined && isAlike(last, access)) last.count++;
    else if (this.#batch.length < MAX_BATCH_ACCESSES) this.#batch.push(access);
    else this.#lost++;
  }

  /** Posts what was added. What cannot be posted is lost, and counted. */
  async flush(lost: number, end?: TraceBatch["end"]): Promise<void> {
    const accesses = this.#batch;
    const batch = { watch: this.#watch, accesses, lost: this.#lost + lost, end };
    this.#batch = [];
    this.#lost = 0;
    try {
      await this.#device.post(batch);
      if (this.#isGone) this.#tell(`${this.#device.name} is back`);
      this.#isGone = false;
    } catch (error) {
      this.#lost = batch.lost + accesses.length;
      if (!this.#isGone && end === undefined) this.#tell((error as Error).message);
      this.#isGone = true;
    }
  }
}

function isAlike(a: RegisterAccess, b: RegisterAccess): boolean {
  return a.register === b.register && a.access === b.access && a.offset === b.offset &&
    a.bytes === b.bytes && a.index === b.index && a.value === b.value;
}

/** A region of QEMU's, and the device that it belongs to. */
interface Known extends Region {
  target: Target | undefined;
}

/** What is watched. */
export interface WatchOptions {
  qmp: Qmp;
  /** QEMU's log, which has the trace events or is about to have them. */
  log: TraceLog;
  /** Finds the devices that are served now, given the sockets that QEMU uses. */
  find: (sockets: readonly string[]) => Promise<readonly ServedDevice[]>;
  /** Whether the log has been on since before any driver. */
  isWhole: boolean;
  /** Takes messages for a person. */
  tell: (line: string) => void;
}

/** A watch that runs. */
export class Watch {
  /** The names of the devices that are watched. */
  readonly names: string[] = [];
  /** The process of QEMU, if a device knows it. */
  readonly pid: number | undefined;
  readonly #options: WatchOptions;
  readonly #id: string = crypto.randomUUID();
  /** By the QOM path of the owner of their registers. */
  readonly #targets = new Map<string, Target>();
  /** The owners of registers that are not watched. */
  readonly #strangers = new Set<string>();
  /** QOM paths of what was unplugged since the last look. */
  #unplugged: string[] = [];
  /** By the address of a region in QEMU. */
  readonly #regions = new Map<string, Known>();
  /** What QEMU said last of where registers are: the question takes it as long as 1000 accesses. */
  #places: readonly Region[] = [];
  readonly #alive: ReturnType<typeof setInterval>;
  #collecting: ReturnType<typeof setTimeout> | undefined;
  #processing: Promise<void> = Promise.resolve();
  #reportedLost = 0;
  #unplaced = 0;
  #isTold = false;
  #hasEnded = false;

  private constructor(
    options: WatchOptions,
    matched: readonly (readonly [QemuDevice, ServedDevice])[],
  ) {
    this.#options = options;
    this.pid = matched.find(([, { frontendPid }]) => frontendPid !== undefined)?.[1].frontendPid;
    for (const [{ owner }, device] of matched) {
      this.#targets.set(owner, new Target(device, this.#id, options.tell));
      this.names.push(device.name);
    }
    options.log.onAccess = () => this.#collect();
    this.#alive = setInterval(() => this.#collect(), ALIVE_MS);
    options.qmp.onEvent = (name, data) => {
      if (name !== "DEVICE_DELETED") return;
      this.#unplugged.push((data as { path: string }).path);
      this.#collect();
    };
    void options.qmp.ended.then(() => this.#hasEnded = true);
  }

  /**
   * Begins to watch those of the devices that this QEMU uses.
   *
   * @throws {Error} When it uses none of them, or another watch is attached to one.
   */
  static async start(options: WatchOptions): Promise<Watch> {
    const found = await findDevices(options.qmp);
    if (found.length === 0) {
      throw new Error("Expected a QEMU with vhost-user devices, got one without");
    }
    const devices = await options.find(found.flatMap(({ sockets }) => sockets));
    const matched = devices.flatMap((device) => {
      const own = found.find((candidate) => isServedBy(candidate, device));
      return own === undefined ? [] : [[own, device] as const];
    });
    if (matched.length === 0) {
      throw new Error(
        `Expected a control socket of a device that this QEMU uses (${
          found.flatMap(({ sockets }) => sockets).join(", ")
        }), found none; serve them with --control-path`,
      );
    }
    const watch = new Watch(options, matched);
    for (const { owner } of found) if (!watch.#targets.has(owner)) watch.#strangers.add(owner);
    try {
      const targets = [...watch.#targets.values()];
      await Promise.all(targets.map((target) => target.attach(options.isWhole)));
    } catch (error) {
      await watch.end("before front-end");
      throw error;
    }
    watch.#collect();
    return watch;
  }

  #collect(): void {
    this.#collecting ??= setTimeout(() => {
      this.#collecting = undefined;
      this.#processing = this.#processing.then(() => this.#process());
    }, COLLECT_MS);
  }

  async #process(end?: TraceBatch["end"]): Promise<void> {
    const { log, tell } = this.#options;
    if (log.isNameless && !this.#isTold) {
      this.#isTold = true;
      tell("QEMU's trace does not name the regions of devices; QEMU 7.2 and later do");
    }
    for (let accesses = log.take(); accesses.length > 0; accesses = log.take()) {
      await this.#locate(accesses);
      for (const access of accesses) this.#add(access);
    }
    const lost = log.lost + this.#unplaced - this.#reportedLost;
    this.#reportedLost += lost;
    for (const path of this.#unplugged.splice(0)) await this.#forget(path);
    await Promise.all(this.#targets.values().map((target) => target.flush(lost, end)));
  }

  /** Watches what was plugged in, if it is a device of ours: its first access is not processed yet. */
  async #meet(owner: string): Promise<void> {
    const { qmp, find, tell } = this.#options;
    this.#strangers.add(owner);
    try {
      const plugged = (await findDevices(qmp)).find((device) => device.owner === owner);
      if (plugged === undefined) return;
      const device = (await find(plugged.sockets)).find((device) => isServedBy(plugged, device));
      if (device === undefined) return;
      const target = new Target(device, this.#id, tell);
      await target.attach(true);
      this.#strangers.delete(owner);
      this.#targets.set(owner, target);
      tell(`watches ${device.name}, which was plugged in`);
    } catch (error) {
      if (!this.#hasEnded) tell((error as Error).message);
    }
  }

  /** Ends the watch of what was unplugged. */
  async #forget(owner: string): Promise<void> {
    this.#strangers.delete(owner);
    this.#places = [];
    for (const [region, place] of this.#regions) {
      if (place.owner === owner) this.#regions.delete(region);
    }
    const target = this.#targets.get(owner);
    this.#targets.delete(owner);
    await target?.flush(0, "with front-end");
  }

  /** Asks QEMU about regions that are not known, or are at other addresses by now. */
  async #locate(accesses: readonly TracedAccess[]): Promise<void> {
    const isUnknown = (access: TracedAccess) => this.#known(access) === undefined;
    if (this.#options.log.hasMoved) this.#places = [];
    this.#options.log.hasMoved = false;
    for (let i = 0; i <= (this.#hasEnded ? 0 : MAX_QUESTIONS); i++) {
      const unknown = accesses.filter(isUnknown);
      if (unknown.length === 0) return;
      if (i > 1) await new Promise((resolve) => setTimeout(resolve, QUESTION_PAUSE_MS));
      if (i > 0) this.#places = await findRegions(this.#options.qmp).catch(() => []);
      if (this.#regions.size > MAX_REGIONS) this.#regions.clear();
      for (const { region, name, address, bytes } of unknown) {
        const place = this.#places.find(({ kind, first, last }) =>
          kind === regionKind(name) && first <= address && address + bytes - 1 <= last
        );
        if (place === undefined) continue;
        const { owner } = place;
        if (!this.#targets.has(owner) && !this.#strangers.has(owner)) await this.#meet(owner);
        this.#regions.set(region, { ...place, target: this.#targets.get(owner) });
      }
    }
  }

  #known({ region, address }: TracedAccess): Known | undefined {
    const known = this.#regions.get(region);
    return known !== undefined && known.first <= address && address <= known.last
      ? known
      : undefined;
  }

  #add(access: TracedAccess): void {
    const known = this.#known(access);
    if (known === undefined) {
      this.#unplaced++;
      return;
    }
    const { target, kind, first } = known;
    if (target === undefined || kind === "other") return;
    const { at, isWrite, value, bytes, address } = access;
    const offset = address - first;
    const place = target.registers.place({ kind, offset, bytes, isWrite, value: Number(value) });
    if (place === undefined) return;
    target.add({
      ...{ at, access: isWrite ? "write" : "read", ...place, bytes, count: 1 },
      // QEMU may trace more than the guest gets: a virtio-mmio device's features have 64 bits
      value: `0x${value.slice(2).slice(-2 * bytes).replace(/^0+(?=.)/, "")}`,
    });
  }

  /** Posts what is left, and ends. */
  async end(how: NonNullable<TraceBatch["end"]>): Promise<void> {
    clearInterval(this.#alive);
    clearTimeout(this.#collecting);
    this.#options.log.onAccess = this.#options.qmp.onEvent = () => {};
    this.#processing = this.#processing.then(() => this.#process(how));
    await this.#processing;
  }
}

function isServedBy({ sockets }: QemuDevice, device: ServedDevice): boolean {
  return sockets.some((path) => isSameSocket(path, device));
}

function isSameSocket(path: string, { socketPath }: ServedDevice): boolean {
  if (socketPath === undefined) return false;
  if (path === socketPath) return true;
  try {
    return Deno.realPathSync(path) === Deno.realPathSync(socketPath);
  } catch {
    return false; // One of them is gone
  }
}
