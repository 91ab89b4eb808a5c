/**
 * A device that was opened: its control half, its config space, the memory of
 * whichever guest is connected, and the engines that run its queues.
 *
 * All of it lives as long as the device is served. A connection borrows it and
 * leaves it as it found it.
 *
 * @module
 */

import { Quarantine, watch } from "../linux/mod.ts";
import { GuestMemory } from "../memory/mod.ts";
import {
  type AnyDevice,
  type ConfigLayout,
  ConfigSpace,
  DEFAULT_QUEUE_SIZE,
  defaultOptions,
  expectEffect,
  featureMask,
  type OpenDevice,
  packed,
  type Queues,
  transportMask,
} from "../virtio/mod.ts";
import { checkOpenDevice } from "../virtio/device_names.ts";
import { expectNames } from "../virtio/names.ts";
import { layOutQueues } from "../virtio/queue_layout.ts";
import { counterMemory, QueueCounters } from "./counters.ts";
import { type Engine, QueueThreads, type RunningEngine, ThreadEngine } from "./engine.ts";
import { EnginePool } from "./engine_pool.ts";
import { LateCode } from "./late_code.ts";
import { Notices } from "./notices.ts";
import { Patience } from "./patience.ts";
import type { BrokenEvent, EngineEvent, EngineSetup } from "./queue_engine.ts";
import { DEFAULT_POLL_US } from "./defaults.ts";
import { DeviceRecord } from "./record.ts";
import { Ring } from "./ring.ts";
import { WatchedEngine } from "./watched_engine.ts";

/** The most queues that a device may have: SET_VRING_KICK has 8 bits for the index. */
export const MAX_QUEUES = 256;

/** How many queue threads there are at the most where nobody says: each is there from the start, with some 10 MB. */
const DEFAULT_THREADS = 8;

/** How long a device may wait for requests in flight, in milliseconds. */
const FENCE_MS = 20_000;

/** What the framework itself offers for every device, as a mask. */
export const OFFERED_BY_TRANSPORT: bigint = transportMask(
  "VERSION_1",
  "EVENT_IDX",
  "INDIRECT_DESC",
  "RING_PACKED",
  "IN_ORDER",
  "PROTOCOL_FEATURES",
);

/** How to open a device. */
export interface DeviceHostOptions {
  /** Values of the device's own options; what is missing has its default. */
  options?: Record<string, unknown>;
  /**
   * Runs the queues of a device that has threads on the main thread all the same.
   *
   * @default {Where the device's definition says}
   */
  plane?: "thread" | "main";
  /**
   * How many queue threads there may be, for a device that has several: the queues of a family
   * are dealt out to them in turn. All of them start before there is a front-end.
   *
   * @default {One per processor, and no more than 8}
   */
  threads?: number;
  /**
   * How long a queue thread may look for new requests before it sleeps, in
   * microseconds; it does so where that brings something. Queues on the main
   * thread are never polled.
   *
   * @default {32}
   */
  pollUs?: number;
  /**
   * How long the device has to complete what it took when a queue is to stop, in
   * milliseconds. Then the queue is broken, and guest memory is moved away from
   * whatever still has it.
   *
   * @default {30_000}
   */
  stopLimitMs?: number;
  /**
   * Takes what the person who runs the device is told: what the device says, and
   * faults, the first of each kind with the way out.
   *
   * @default {Nobody is told}
   */
  log?: (message: string, stack?: string) => void;
}

/** A device that is open. */
export class DeviceHost implements AsyncDisposable {
  readonly device: AnyDevice;
  readonly control: OpenDevice<Queues, Record<string, never>, ConfigLayout, unknown>;
  readonly config: ConfigSpace<ConfigLayout>;
  readonly memory: GuestMemory;
  readonly queues: readonly Ring[];
  /** Every feature bit that is offered. */
  readonly offered: bigint;
  /** Those that are not, and that a driver may have all the same from an earlier start of the device. */
  readonly honoured: bigint;
  readonly record: DeviceRecord;
  readonly notices: Notices;
  /** For what its front-ends can hold up. */
  readonly quarantine: Quarantine;
  /** Resolves when all queues can run; rejects when the device's data half could not be made. */
  readonly ready: Promise<void>;
  /** The connection that has the device sets these. */
  onConfigChange: (() => void) | undefined;
  onEvent: ((event: BrokenEvent) => void) | undefined;
  /** How long anybody waits for the device. */
  readonly patience: Patience;
  /** Chains and threads that were given up, and the memory that they had. */
  readonly lateCode: LateCode;
  readonly #engines: EnginePool;

  private constructor(
    parts: Pick<
      DeviceHost,
      | "device"
      | "control"
      | "config"
      | "memory"
      | "queues"
      | "offered"
      | "honoured"
      | "record"
      | "notices"
      | "quarantine"
      | "patience"
      | "lateCode"
    >,
    engines: EnginePool,
  ) {
    this.device = parts.device;
    this.control = parts.control;
    this.config = parts.config;
    this.memory = parts.memory;
    this.queues = parts.queues;
    this.offered = parts.offered;
    this.honoured = parts.honoured;
    this.record = parts.record;
    this.notices = parts.notices;
    this.quarantine = parts.quarantine;
    this.patience = parts.patience;
    this.lateCode = parts.lateCode;
    this.#engines = engines;
    this.ready = engines.ready;
    this.ready.catch(() => {});
  }

  /**
   * Opens a device: its control half first, then its engines.
   *
   * @throws What the device's `open` throws.
   */
  static async open(device: AnyDevice, options: DeviceHostOptions = {}): Promise<DeviceHost> {
    const { log = () => {}, plane = device.threads === "main" ? "main" : "thread" } = options;
    if (device.threads === "main" && plane === "thread") {
      throw new TypeError(`Device ${device.name} runs on the main thread only`);
    }
    const known = Object.keys(device.options ?? {});
    expectNames(`options of ${device.name}`, Object.keys(options.options ?? {}), known);
    expectEffect(device.options ?? {}, options.options ?? {});
    const values = { ...defaultOptions(device.options ?? {}), ...options.options };
    const layout: ConfigLayout = device.config ?? packed({});
    const configMemory = new SharedArrayBuffer(layout.size);
    const config = new ConfigSpace(layout, configMemory);
    const most = plane === "main" || device.threads === "one"
      ? 1
      : options.threads ?? Math.min(navigator.hardwareConcurrency, DEFAULT_THREADS);
    // Loaded only where it is used: threads are to start soon.
    const local = plane === "main" ? await import("./local_engine.ts") : undefined;
    // One thread is needed whatever the device says, and it starts while that opens.
    using threads = new QueueThreads(device, local === undefined ? 1 : 0);
    let host: DeviceHost | undefined;
    const control = await device.open?.({
      options: values,
      config: config.view,
      announceConfig: () => host?.onConfigChange?.(),
      fence: async () => await host?.fence(),
      log,
      watch: (fd, callback) => watch(fd, "readable", callback),
    }) ?? {};
    checkOpenDevice(device, control);
    if (control.config !== undefined) layout.assign(configMemory, control.config as object);

    const slots = layOutQueues(device.queues, control.queues);
    if (slots.length > MAX_QUEUES) {
      throw new RangeError(`Expected at most ${MAX_QUEUES} queues, got ${slots.length}`);
    }
    const counters = counterMemory(slots.length);
    const polling = new SharedArrayBuffer(4);
    const quarantine = new Quarantine();
    const memory = new GuestMemory(quarantine);
    const patience = new Patience(options.stopLimitMs);
    const lateCode = new LateCode(memory);
    // Queues with the same place in their families stay together.
    const families = Math.max(...slots.map(({ ordinal }) => ordinal + 1));
    const engineCount = Math.max(1, Math.min(most, families));
    const engines = new EnginePool(engineCount, (i) => {
      const setup: EngineSetup = {
        queues: slots.filter(({ ordinal }) => ordinal % engineCount === i),
        options: values,
        shared: control.shared,
        config: configMemory,
        counters,
        pollUs: plane === "main" ? 0 : options.pollUs ?? DEFAULT_POLL_US,
        polling,
      };
      const emit = (event: EngineEvent) => {
        if (event.kind === "notice") host?.notices.add(event.notice, event.count);
        else if (event.kind === "broken") host?.onEvent?.(event);
        else lateCode.note(event);
      };
      const onFailure = ({ message }: Error) => log(message);
      const { handle } = memory;
      const engine: RunningEngine = local !== undefined
        ? new local.LocalEngine(device, setup, handle, emit)
        : new ThreadEngine(threads.take(), device, setup, handle, emit, onFailure);
      return new WatchedEngine(engine, {
        device: `${device.name} (${device.module})`,
        queues: setup.queues,
        patience,
        inFlight: (queue) => new QueueCounters(counters, queue).inFlight,
        log,
      });
    }, (i, { message }) => {
      const names = slots.filter(({ ordinal }) => ordinal % engineCount === i)
        .map(({ index }) => index).join(", ");
      log(
        `The thread of queue ${names} cannot be started: ${message}; they do not run. ` +
          "Give fewer --threads, or allow more descriptors (ulimit -n)",
      );
    });
    const queues = slots.map(({ index, name, ordinal }) =>
      new Ring({
        index,
        name,
        maxSize: device.queues[name].size ?? DEFAULT_QUEUE_SIZE,
        counters: new QueueCounters(counters, index),
      }, () => engines.get(ordinal % engineCount))
    );
    const offered = OFFERED_BY_TRANSPORT |
      featuresWhere(device, (name) => control.offer?.[name] !== false);
    const honoured = featuresWhere(device, (name) => control.honour?.[name] === true) & ~offered;
    const notices = new Notices(log);
    const record = new DeviceRecord({
      device,
      offered,
      config,
      queues,
      report: control.report?.bind(control),
      notices,
    });
    return host = new DeviceHost(
      {
        ...{ device, control, config, memory, queues, offered, honoured, record, notices },
        ...{ quarantine, patience, lateCode },
      },
      engines,
    );
  }

  /** Tells all engines something. */
  async tell(command: Parameters<Engine["call"]>[0]): Promise<void> {
    await this.#engines.tell(command);
  }

  /**
   * Moves guest memory away from chains and threads that were given up; no ring
   * may be running.
   *
   * @returns Whether a thread was: what it uses besides has to stay.
   */
  withdrawMemory(): boolean {
    const { hasFailed } = this.#engines;
    this.lateCode.withdraw(hasFailed);
    return hasFailed;
  }

  /**
   * Waits until all that was taken before is completed.
   *
   * @throws {Error} When that takes too long.
   */
  async fence(): Promise<void> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      late.reject(new Error(`Expected requests in flight to end within ${FENCE_MS / 1000} s`));
    }, FENCE_MS);
    try {
      await Promise.race([this.#engines.ask({ kind: "fence" }), late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the engines, then the control half; no connection may have the device. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#engines.close();
    this.record.finish();
    this.notices[Symbol.dispose]();
    await this.control[Symbol.asyncDispose]?.();
    this.memory[Symbol.dispose]();
  }
}

/** The device's own features of which something is true, as a mask. */
function featuresWhere(device: AnyDevice, isTrue: (name: string) => boolean): bigint {
  let mask = 0n;
  for (
    const [name, { bit }] of Object.entries(device.features ?? {}) as [string, { bit: number }][]
  ) {
    if (isTrue(name)) mask |= featureMask(bit);
  }
  return mask;
}
