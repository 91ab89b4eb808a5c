/**
 * A device that was opened: its control half, its config space, the memory of whichever guest is
 * connected, and the engines that run its queues.
 *
 * All of it lives as long as the device is served. A connection borrows it and leaves it as it
 * found it.
 *
 * @module
 */

import { watch } from "../linux/mod.ts";
import { Quarantine } from "../linux/quarantine.ts";
import { GuestMemory, type MemoryHandle } from "../memory/mod.ts";
import {
  type AnyDevice,
  type ConfigLayout,
  ConfigSpace,
  DEFAULT_QUEUE_SIZE,
  deviceOptions,
  featureMask,
  type Features,
  type OpenDevice,
  packed,
  type Queues,
  transportMask,
} from "../virtio/mod.ts";
import { checkOpenDevice } from "../virtio/device_names.ts";
import { layOutQueues } from "../virtio/queue_layout.ts";
import { counterMemory, QueueCounters } from "./counters.ts";
import { Latencies, latencyMemory } from "./latency.ts";
import { Engine, type Transport } from "./engine.ts";
import { EnginePool } from "./engine_pool.ts";
import { LateCode } from "./late_code.ts";
import { Notices } from "./notices.ts";
import { noteSlow, Patience } from "./patience.ts";
import type {
  BrokenEvent,
  EngineCommand,
  EngineEvent,
  EngineSetup,
} from "./data_plane/messages.ts";
import { DEFAULT_POLL_US } from "./defaults.ts";
import { DeviceRecord, type RecordJson } from "./record.ts";
import { Ring } from "./ring.ts";
import { QueueThread } from "./thread_transport.ts";
import { WireTap } from "./wire_tap.ts";
import { Tracing } from "./trace/tracing.ts";

/** The most queues that a device may have: SET_VRING_KICK has 8 bits for the index. */
export const MAX_QUEUES = 256;

/** The most queue threads by default: each starts with the device and takes some 10 MB. */
const DEFAULT_THREADS = 8;

/** The feature bits that the framework offers for every device. */
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
  /** Values of the device's own options; missing ones have their defaults. */
  options?: Record<string, unknown>;
  /**
   * `main` runs the queues on the main thread, also those of a device that has threads.
   *
   * @default {Where the device's definition says}
   */
  plane?: "thread" | "main";
  /**
   * The most queue threads of a device whose `threads` is `each`: the queues of a family are dealt
   * out to them in turn. All of them start before the first connection.
   *
   * @default {One per processor, and no more than 8}
   */
  threads?: number;
  /**
   * How long a queue thread may look for new requests before it sleeps, in microseconds; it does so
   * where that serves more requests. Queues on the main thread are never polled.
   *
   * @default {32}
   */
  pollUs?: number;
  /**
   * Time that the device has to complete its chains when a queue stops, in milliseconds. After it
   * the queue is broken, and guest memory is moved away from the device's code.
   *
   * @default {30_000}
   */
  stopLimitMs?: number;
  /**
   * Prints a line for the person who runs the device: the device's own, and the first fault of each
   * kind with its remedy.
   *
   * @default {Nothing is printed}
   */
  log?: (message: string, stack?: string) => void;
  /**
   * Takes the messages of the device's connections.
   *
   * @internal
   */
  wire?: WireTap;
}

/** The place of a device among those that share a thread. */
export interface SharedThread {
  readonly thread: QueueThread;
  /** Its number among them, from 0, and its name. */
  readonly instance: number;
  readonly name: string;
}

/** An open control half, and how to run the data half. */
interface Opened {
  /** The name of an instance. */
  instance: string | undefined;
  control: DeviceHost["control"];
  config: ConfigSpace<ConfigLayout>;
  /** The setup that all engines share. */
  common: Pick<EngineSetup, "options" | "shared" | "config" | "pollUs">;
  /** The most engines that there may be. */
  most: number;
  /** Begins an engine, here or on a thread. */
  begin(setup: EngineSetup, memory: MemoryHandle, emit: (event: EngineEvent) => void): Transport;
}

/** A device that is open. */
export class DeviceHost implements AsyncDisposable {
  readonly device: AnyDevice;
  readonly control: OpenDevice<Queues, Record<string, never>, ConfigLayout, unknown>;
  readonly config: ConfigSpace<ConfigLayout>;
  readonly queues: readonly Ring[];
  /** Every feature bit that is offered. */
  readonly offered: bigint;
  /** Feature bits that are not offered, but that a driver may keep from an earlier start. */
  readonly honoured: bigint;
  readonly record: DeviceRecord;
  readonly notices: Notices;
  /** Takes the messages of connections, for captures of them. */
  readonly wire: WireTap;
  readonly tracing: Tracing;
  /** Takes calls that a front-end can hold up. */
  readonly quarantine: Quarantine = new Quarantine();
  readonly memory: GuestMemory = new GuestMemory(this.quarantine);
  /** Resolves when all queues can run; rejects when the device's data half could not be made. */
  readonly ready: Promise<void>;
  /** The path of the socket by which front-ends reach it, if there is one; set by its server. */
  path: string | undefined;
  /** Set by the connection that is served. */
  onConfigChange: (() => void) | undefined;
  onEvent: ((event: BrokenEvent) => void) | undefined;
  /** Limits for waiting for the device. */
  readonly patience: Patience;
  readonly #lateCode = new LateCode(this.memory);
  readonly #engines: EnginePool;
  /** Messages of the data half that the control half has not handled: an i32. */
  readonly #unheard = new Int32Array(new SharedArrayBuffer(4));

  private constructor(
    device: AnyDevice,
    { log = () => {}, stopLimitMs, wire = new WireTap() }: DeviceHostOptions,
    { instance, control, config, common, most, begin }: Opened,
  ) {
    this.device = device;
    this.control = control;
    this.config = config;
    this.wire = wire;
    this.notices = new Notices(log);
    this.patience = new Patience(stopLimitMs);
    const slots = layOutQueues(device.queues, control.queues);
    if (slots.length > MAX_QUEUES) {
      throw new RangeError(`Expected at most ${MAX_QUEUES} queues, got ${slots.length}`);
    }
    const counters = counterMemory(slots.length);
    const latencies = latencyMemory(device, slots.length);
    const polling = new SharedArrayBuffer(4);
    // Queues with the same place in their families stay together.
    const places = Math.max(...slots.map(({ ordinal }) => ordinal + 1));
    const engineCount = Math.max(1, Math.min(most, places));
    const slotsOf = (engine: number) =>
      slots.filter(({ ordinal }) => ordinal % engineCount === engine);
    const start = (i: number) => {
      const queues = slotsOf(i);
      const unheard = this.#unheard.buffer;
      const setup = { ...common, queues, counters, latencies, polling, unheard };
      const emit = (event: EngineEvent) => this.#onEngineEvent(event);
      return new Engine(begin(setup, this.memory.handle, emit), {
        ...{ queues, log },
        device: `${device.name} (${device.module})`,
        patience: this.patience,
        inFlight: (queue) => new QueueCounters(counters, queue).inFlight,
      });
    };
    const engines = new EnginePool(engineCount, start, this.patience, (i, { message }) => {
      const names = slotsOf(i).map(({ index }) => index).join(", ");
      log(
        `The thread of queue ${names} cannot be started: ${message}; they do not run. ` +
          "Give fewer --threads, or allow more descriptors (ulimit -n)",
      );
    });
    this.#engines = engines;
    this.ready = engines.ready;
    this.queues = slots.map(({ index, name, ordinal }) =>
      new Ring({
        index,
        name,
        maxSize: device.queues[name].size ?? DEFAULT_QUEUE_SIZE,
        counters: new QueueCounters(counters, index),
      }, () => engines.get(ordinal % engineCount))
    );
    this.offered = OFFERED_BY_TRANSPORT |
      featuresWhere(device, (name) => control.offer?.[name] !== false);
    this.honoured = featuresWhere(device, (name) => control.honour?.[name] === true) &
      ~this.offered;
    this.record = new DeviceRecord({
      device,
      instance,
      offered: this.offered,
      config,
      queues: this.queues,
      latencies: new Latencies(device, latencies),
      report: () => this.#report(),
      notices: this.notices,
      wire,
    });
    this.tracing = new Tracing({
      ...{ device, instance, log, queues: this.queues },
      trace: (every, ringOf) => engines.trace(every, ringOf),
    });
  }

  /**
   * Opens a device: its control half first, then its engines.
   *
   * @param shared The thread of a device that shares it with others; the caller ends it if this
   * throws.
   * @throws What the device's `open` throws.
   */
  static async open(
    device: AnyDevice,
    options: DeviceHostOptions = {},
    shared?: SharedThread,
  ): Promise<DeviceHost> {
    const { log = () => {}, plane = device.threads === "main" ? "main" : "thread" } = options;
    if (device.threads === "main" && plane === "thread") {
      throw new TypeError(`Device ${device.name} runs on the main thread only`);
    }
    const [values] = deviceOptions(device, [options.options ?? {}]);
    const layout: ConfigLayout = device.config ?? packed({});
    const configMemory = new SharedArrayBuffer(layout.size);
    const config = new ConfigSpace(layout, configMemory);
    // Loaded only where it is used: threads are to start soon.
    const local = plane === "main" ? await import("./local_transport.ts") : undefined;
    // One thread is needed whatever the device says, and it starts while that opens.
    let thread = local === undefined && shared === undefined
      ? new QueueThread(device.name)
      : undefined;
    using _unused = { [Symbol.dispose]: () => thread?.[Symbol.dispose]() };
    let host: DeviceHost | undefined;
    const opening = device.open?.({
      options: values,
      config: config.view,
      instance: { number: shared?.instance ?? 0, name: shared?.name ?? device.name },
      announceConfig: () => host?.onConfigChange?.(),
      async fence() {
        if (host !== undefined) await host.#engines.fence();
      },
      // The promise of #post() itself: its rejection does not end the process if it is not awaited
      post(message) {
        if (host !== undefined) return host.#post(message);
        return Promise.reject(new Error("Expected no message before open() has returned"));
      },
      log,
      watch,
    });
    const control = await noteSlow(opening, `open() of ${device.name}`, log) ?? {};
    checkOpenDevice(device, control);
    if (control.config !== undefined) layout.assign(configMemory, control.config as object);
    const pollUs = plane === "main" ? 0 : options.pollUs ?? DEFAULT_POLL_US;
    return host = new DeviceHost(device, options, {
      ...{ instance: shared?.name, control, config },
      common: { options: values, shared: control.shared, config: configMemory, pollUs },
      most: plane === "main" || shared !== undefined || device.threads === "one" ||
          control.threads === "one"
        ? 1
        : options.threads ?? Math.min(navigator.hardwareConcurrency, DEFAULT_THREADS),
      begin(setup, memory, emit) {
        if (local !== undefined) return new local.LocalTransport(device, setup, memory, emit);
        const started = shared?.thread ?? thread ?? new QueueThread(device.name);
        thread = undefined;
        return started.begin(device, setup, memory, emit);
      },
    });
  }

  #onEngineEvent(event: EngineEvent): void {
    if (event.kind === "notice") this.notices.add(event.notice, event.count);
    else if (event.kind === "broken") this.onEvent?.(event);
    else if (event.kind === "message") void this.#hear(event.value);
    else this.#lateCode.note(event);
  }

  /** Gives the control half a message of the data half. */
  async #hear(message: unknown): Promise<void> {
    try {
      // Not in the middle of the handler that sent it.
      await null;
      await this.control.onMessage?.(message);
    } catch (error) {
      this.#noteFailure("A message to the control half", error);
    } finally {
      Atomics.sub(this.#unheard, 0, 1);
    }
  }

  #post(message: unknown): Promise<unknown[]> {
    const answers = this.#engines.post(message);
    answers.catch((error) => this.#noteFailure("A message to the data half", error));
    return answers;
  }

  #noteFailure(what: string, error: unknown): void {
    const why = error instanceof Error ? error.message : String(error);
    this.notices.add({ what: `${what} failed`, why });
  }

  /** The record, with the data half's current report; a busy thread's last one. */
  async freshRecord(): Promise<RecordJson> {
    await this.#engines.refreshReports();
    return this.record.toJSON();
  }

  /** What both halves of the device report. */
  #report(): Record<string, unknown> {
    const { reports: threads } = this.#engines;
    return { ...this.control.report?.(), ...threads.length > 0 && { threads } };
  }

  /** Sends all engines a command that does not wait for the device. */
  async tell(command: EngineCommand): Promise<void> {
    await this.#engines.tell(command);
  }

  /** Makes the device as it was when it was opened; no ring may be running. */
  async reset(): Promise<void> {
    await this.#engines.reset().catch((error) => this.#noteFailure("onReset()", error));
    this.config.reset();
    this.control.onReset?.();
  }

  /**
   * Moves guest memory away from chains and threads that were given up; no ring may be running.
   *
   * @returns Whether a thread was given up: whatever else it uses must stay.
   */
  withdrawMemory(): boolean {
    const { hasFailed } = this.#engines;
    this.#lateCode.withdraw(hasFailed);
    return hasFailed;
  }

  /** Ends the engines, then the control half; no connection may have the device. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.freshRecord();
    await this.tracing.stop();
    await this.#engines.close();
    this.record.finish();
    this.notices[Symbol.dispose]();
    await this.control[Symbol.asyncDispose]?.();
    this.memory[Symbol.dispose]();
  }
}

/** A mask of the device's own features that fulfil a condition. */
function featuresWhere(device: AnyDevice, isTrue: (name: string) => boolean): bigint {
  const features = Object.entries((device.features ?? {}) as Features);
  return features.reduce(
    (mask, [name, { bit }]) => isTrue(name) ? mask | featureMask(bit) : mask,
    0n,
  );
}
