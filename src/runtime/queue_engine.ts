/**
 * The data plane of one thread: rings, and the device's handlers for them.
 *
 * @module
 */

import {
  createTimerfd,
  drainEventfd,
  elapsed,
  type Fd,
  microseconds,
  type Readiness,
  type ThreadIo,
  type Watch,
} from "../linux/mod.ts";
import { type MemoryView, type Region, RegionTable } from "../memory/mod.ts";
import {
  type AnyDevice,
  type DataHalf,
  type DeviceNotice,
  type HandlerResult,
  hasFeature,
  LATER,
  type QueueHandle,
} from "../virtio/mod.ts";
import { checkHandlers } from "../virtio/device_names.ts";
import type { QueueSlot } from "../virtio/queue_layout.ts";
import {
  type Chain,
  createRing,
  RingError,
  type RingOptions,
  type Virtqueue,
} from "../virtqueue/mod.ts";
import { QueueCounters } from "./counters.ts";
import { type InflightPlace, viewInflight } from "./session/inflight_area.ts";
import { NoticeSender } from "./notices.ts";
import { Poller } from "./poller.ts";

/**
 * How many chains a queue may take before others have their turn, commands of
 * the control plane among them. One with many bytes counts as several: a guest
 * can make requests of 4 GiB that all lie in the same memory, and a stop would
 * wait for a thousand of them.
 */
const MAX_BATCH = 1024;

/**
 * How long a queue may be handled before others have their turn, in
 * microseconds. One chain can take that long.
 */
const MAX_BATCH_US = 10_000;

/** Chains that take less, in microseconds, need no look at the clock after each. */
const CLOCK_US = 100;

/** How many bytes of a chain count as one more chain. */
const BATCH_BYTES = 65_536;

/** How many parts of a chain count as one more chain. */
const BATCH_PARTS = 16;

/** How many chains are handled between two publications. */
const MAX_UNPUBLISHED = 64;

/** How many parts of late chains are told of, at the most. */
const MAX_LATE_PARTS = 4096;

/** How often a ring is looked at that has no kick descriptor. */
const POLL_PERIOD_MS = 1;

/** What an engine needs to begin. Plain values: it travels to a thread. */
export interface EngineSetup {
  /** The queues of this engine. */
  queues: QueueSlot[];
  /** The values of the device's options. */
  options: Record<string, unknown>;
  /** What the control half handed over. */
  shared: unknown;
  /** The memory of config space. */
  config: SharedArrayBuffer;
  /** The memory of the counters of all queues. */
  counters: SharedArrayBuffer;
  /** How long the thread may look for new requests before it sleeps, in microseconds; 0 for not at all. */
  pollUs: number;
  /** How many threads of the device poll: an i32. */
  polling: SharedArrayBuffer;
}

/** What the control plane asks of an engine. Descriptors stay the control plane's. */
export type EngineCommand =
  | { kind: "memory"; regions: readonly Region[] }
  | { kind: "features"; bits: bigint }
  | {
    kind: "start";
    queue: number;
    ring: RingOptions;
    /** Where it records what is in flight; null where nobody asked for that. */
    inflight: InflightPlace | null;
    /** Descriptors; -1 where there is none. */
    kick: number;
    call: number;
    err: number;
    enabled: boolean;
  }
  | { kind: "enable"; queue: number; enabled: boolean }
  | { kind: "call"; queue: number; fd: number }
  | { kind: "err"; queue: number; fd: number }
  /** Ends a queue because of its front-end. */
  | { kind: "break"; queue: number; rule: string; message: string }
  | { kind: "stop"; queue: number }
  /** Asks the kernel to end what it works on for this engine. */
  | { kind: "cancel" }
  /**
   * Ends a queue whose device does not complete what it took: with the base, or {@linkcode STOPPED}
   * when it did in the meantime.
   */
  | { kind: "giveUp"; queue: number; incident: number; message: string }
  /** Is answered when all that was taken before is completed. */
  | { kind: "fence" }
  | { kind: "close" };

/** The answer to `giveUp` of a queue that has no ring any more. */
export const STOPPED = -1;

/** The answer to `start` of a ring that nobody has used yet. */
export const BEGAN_ANEW = -1;

/** What an engine tells the control plane on its own. */
export type EngineEvent = BrokenEvent | {
  /** What the device tells the person who runs it, and how many of it there were. */
  kind: "notice";
  notice: DeviceNotice;
  count: number;
} | {
  /** A queue was given up while the device had chains of it. */
  kind: "late";
  incident: number;
  /** Index and length of what the device may still read of them, in turn. */
  readable: number[];
} | {
  /** The device has none of those chains any more. */
  kind: "returned";
  incident: number;
};

/** A queue broke. */
export interface BrokenEvent {
  kind: "broken";
  queue: number;
  /**
   * The rule that was broken, `device` when the device could not make sense of a chain, or
   * `memory` when guest memory was lost.
   */
  rule: string;
  /** The section of the standard that has the rule. */
  section?: string;
  message: string;
  /** The stack of an error that the device's code threw. */
  stack?: string;
}

/** Where an engine lives: on the main thread or on a queue thread. */
export interface EngineHost {
  /** Calls `callback` when a descriptor is ready. */
  watch(fd: number, readiness: Readiness, callback: () => void): Watch;
  /** Calls `callback` each time an eventfd is signalled; nobody reads it. */
  watchSignals(fd: number, callback: () => void): Disposable;
  /** Signals an eventfd of the front-end's, without ever waiting. */
  signal(fd: number): void;
  /** Calls `callback` soon, after others had their turn. */
  defer(callback: () => void): void;
  /** The thread's io_uring, where it has one. */
  readonly io?: ThreadIo;
  /** Asks the kernel to end what it works on. */
  cancel?(): void;
  /** The control plane waits for an answer. Asked after each chain. */
  isAwaited?(): boolean;
  /** Tells the control plane something. */
  emit(event: EngineEvent): void;
}

type Handler = (chain: Chain, queue: QueueHandle) => HandlerResult;

/** What a device is told when a driver's request breaks no rule of the ring but makes no sense. */
const DEVICE_RULE = "device";

class EngineQueue implements QueueHandle {
  readonly index: number;
  readonly name: string;
  readonly ordinal: number;
  readonly counters: QueueCounters;
  readonly handler: Handler | undefined;
  readonly onBuffers: ((queue: QueueHandle) => void) | undefined;
  readonly #engine: QueueEngine;
  ring: Virtqueue | undefined;
  kickWatch: Disposable | undefined;
  timer: Fd | undefined;
  kick = -1;
  call = -1;
  err = -1;
  enabled = false;
  broken = false;
  stopping: ((base: number) => void) | undefined;
  /** It takes no chains until those in flight are completed. */
  held = false;
  /** Called then. */
  readonly fences: (() => void)[] = [];
  /** The handler of the queue is running: its completions are published with the batch. */
  inBatch = false;
  deferred = false;
  /** What a deferred queue goes on with; made once. */
  resume: (() => void) | undefined;
  /** It is looked at again and again: the driver is not asked for notifications meanwhile. */
  polled = false;
  epoch = 0;

  constructor(
    engine: QueueEngine,
    slot: QueueSlot,
    counters: QueueCounters,
    handler: unknown,
    deviceSends: boolean,
  ) {
    this.#engine = engine;
    this.index = slot.index;
    this.name = slot.name;
    this.ordinal = slot.ordinal;
    this.counters = counters;
    this.handler = deviceSends ? undefined : handler as Handler;
    this.onBuffers = deviceSends ? handler as (queue: QueueHandle) => void : undefined;
  }

  get isRunning(): boolean {
    return this.ring !== undefined && this.enabled && !this.broken && this.stopping === undefined;
  }

  take(): Chain | null {
    return this.#engine.takeFor(this);
  }

  complete(chain: Chain, written: number): void {
    this.#engine.complete(this, chain, written);
  }

  flush(): void {
    this.#engine.flush(this);
  }

  hold(): void {
    this.held = true;
  }

  fail(error: Error, chain?: Chain): void {
    this.#engine.fail(this, error, chain);
  }
}

/** Runs some of a device's queues on the thread it was made on. */
export class QueueEngine {
  #host: EngineHost;
  #memory: MemoryView;
  #device: AnyDevice;
  #features: Record<string, boolean>;
  #queues = new Map<number, EngineQueue>();
  readonly #all: EngineQueue[] = [];
  readonly #half: DataHalf;
  #pending = 0;
  /** Chains of queues that were given up, which the device still has. */
  readonly #late = new Map<Chain, Incident>();
  readonly #poller: Poller;
  /** Requests since the poller was told last. */
  #handled = 0;

  /** Makes the data half of a device. */
  constructor(device: AnyDevice, setup: EngineSetup, memory: MemoryView, host: EngineHost) {
    this.#device = device;
    this.#host = host;
    this.#memory = memory;
    this.#poller = new Poller(setup.pollUs, setup.polling, navigator.hardwareConcurrency);
    this.#features = Object.fromEntries(
      Object.keys(device.features ?? {}).map((name) => [name, false]),
    );
    const byName: Record<string, QueueHandle[]> = Object.fromEntries(
      Object.keys(device.queues).map((name) => [name, []]),
    );
    const notices = new NoticeSender((notice, count) =>
      host.emit({ kind: "notice", notice, count })
    );
    const half: DataHalf = this.#half = device.handlers({
      notice: (notice: DeviceNotice) => notices.add(notice),
      options: setup.options,
      shared: setup.shared,
      config: device.config?.view(setup.config) ?? {},
      features: this.#features,
      queues: byName,
      memory,
      watch: (fd, callback) => host.watch(fd, "readable", callback),
      io: host.io,
    });
    checkHandlers(device, half);
    for (const slot of setup.queues) {
      const counters = new QueueCounters(setup.counters, slot.index);
      const deviceSends = device.queues[slot.name].sender === "device";
      const queue = new EngineQueue(this, slot, counters, half.queues[slot.name], deviceSends);
      this.#queues.set(slot.index, queue);
      this.#all.push(queue);
      byName[slot.name].push(queue);
    }
  }

  /** Whether the device has promised completions: the thread's event loop must turn for them. */
  get isPending(): boolean {
    return this.#pending > 0;
  }

  /**
   * Does what the control plane asks; `done` is called with the answer, at once
   * or when everything in flight is completed. To `stop` it is the base, to
   * `start` how many chains are taken again, or {@linkcode BEGAN_ANEW}.
   *
   * @throws When a ring cannot be placed.
   */
  execute(command: EngineCommand, done: (result: number) => void): void {
    switch (command.kind) {
      case "memory":
        this.#memory.regions = new RegionTable(command.regions);
        break;
      case "features":
        for (
          const [name, { bit }] of Object.entries(this.#device.features ?? {}) as [
            string,
            { bit: number },
          ][]
        ) {
          this.#features[name] = hasFeature(command.bits, bit);
        }
        break;
      case "start":
        done(this.#start(this.#queue(command.queue), command));
        return;
      case "enable": {
        const queue = this.#queue(command.queue);
        queue.enabled = command.enabled;
        if (queue.isRunning) this.#run(queue);
        break;
      }
      case "call": {
        const queue = this.#queue(command.queue);
        queue.call = command.fd;
        // What was used while there was nobody to tell is told now.
        if (queue.ring !== undefined && command.fd >= 0) this.#notify(queue);
        break;
      }
      case "err":
        this.#queue(command.queue).err = command.fd;
        break;
      case "break": {
        const queue = this.#queue(command.queue);
        if (queue.ring !== undefined) this.#break(queue, command.message, command.rule);
        break;
      }
      case "stop":
        this.#stop(this.#queue(command.queue), done);
        return;
      case "cancel":
        this.#host.cancel?.();
        break;
      case "giveUp":
        done(this.#giveUp(this.#queue(command.queue), command.incident, command.message));
        return;
      case "fence":
        this.#fence(done);
        return;
      case "close":
        this.#half.close?.();
        break;
    }
    done(0);
  }

  #queue(index: number): EngineQueue {
    const queue = this.#queues.get(index);
    if (queue === undefined) throw new RangeError(`Expected a queue of this engine, got ${index}`);
    return queue;
  }

  #start(queue: EngineQueue, command: EngineCommand & { kind: "start" }): number {
    const record = command.inflight === null ? undefined : viewInflight(command.inflight);
    const ring = createRing(this.#memory, command.ring, record);
    queue.kick = command.kick;
    queue.kickWatch = this.#watchKick(queue);
    queue.ring = ring;
    queue.epoch++;
    queue.broken = queue.polled = queue.held = false;
    queue.call = command.call;
    queue.err = command.err;
    queue.enabled = command.enabled;
    try {
      this.#half.onStart?.(queue);
    } catch (error) {
      this.#unwatch(queue);
      queue.ring = undefined;
      throw error;
    }
    // Who ran the ring before may have died between using buffers and telling of it.
    if (ring.isResumed) this.#notify(queue);
    this.#run(queue);
    return ring.isResumed ? ring.resubmitted : BEGAN_ANEW;
  }

  #watchKick(queue: EngineQueue): Disposable {
    const { kick } = queue;
    if (kick >= 0) {
      return this.#host.watchSignals(kick, () => {
        queue.counters.kicked();
        this.#run(queue);
      });
    }
    // A ring without a kick descriptor is polled: SET_VRING_KICK, bit 8.
    const timer = queue.timer = createTimerfd(POLL_PERIOD_MS);
    return this.#host.watch(timer.number, "readable", () => {
      drainEventfd(timer.number);
      this.#run(queue);
    });
  }

  #stop(queue: EngineQueue, done: (base: number) => void): void {
    if (queue.ring === undefined) return done(0);
    this.#unwatch(queue);
    queue.stopping = done;
    const { epoch } = queue;
    const hooked = () => {
      if (queue.epoch === epoch) this.#giveBack(queue);
      this.#stopIfDrained(queue);
    };
    try {
      const hook: unknown = this.#half.onStop?.(queue);
      if (isPromise(hook)) {
        this.#pending++;
        hook.then(() => {}, (error) => this.#break(queue, error)).finally(() => {
          this.#pending--;
          hooked();
        });
        return;
      }
    } catch (error) {
      this.#break(queue, error);
    }
    hooked();
  }

  /** Buffers of a queue whose sender is the device go back: nobody waits for an answer. */
  #giveBack(queue: EngineQueue): void {
    const { ring } = queue;
    if (ring === undefined || queue.onBuffers === undefined) return;
    for (let left = ring.inFlight; left > 0; left--) queue.counters.abandoned();
    ring.giveBack();
  }

  /** Ends a queue whose device still has chains: whatever it does with them later is dropped. */
  #giveUp(queue: EngineQueue, id: number, message: string): number {
    const { ring } = queue;
    if (ring === undefined) return STOPPED;
    this.#publish(queue);
    const chains = ring.held;
    const incident: Incident = { id, left: chains.length };
    const readable: number[] = [];
    for (const chain of chains) {
      this.#late.set(chain, incident);
      queue.counters.abandoned();
      for (let i = 0; i < chain.readable.count && readable.length < 2 * MAX_LATE_PARTS; i++) {
        readable.push(chain.readable.index(i), chain.readable.length(i));
      }
    }
    this.#break(queue, new Error(message));
    queue.ring = undefined;
    queue.stopping = undefined;
    queue.epoch++;
    this.#host.emit({ kind: "late", incident: id, readable });
    if (chains.length === 0) this.#host.emit({ kind: "returned", incident: id });
    return ring.base;
  }

  /** The device has done with a chain that came too late, or was given up. */
  #returned(chain: Chain): void {
    const incident = this.#late.get(chain);
    if (incident === undefined) return;
    this.#late.delete(chain);
    if (--incident.left === 0) this.#host.emit({ kind: "returned", incident: incident.id });
  }

  #unwatch(queue: EngineQueue): void {
    queue.kickWatch?.[Symbol.dispose]();
    queue.kickWatch = undefined;
    queue.timer?.close();
    queue.timer = undefined;
  }

  #stopIfDrained(queue: EngineQueue): void {
    const { ring, stopping } = queue;
    if (stopping === undefined || ring === undefined || ring.inFlight > 0) return;
    this.#publish(queue);
    ring.release();
    queue.ring = undefined;
    queue.stopping = undefined;
    this.#releaseIfDrained(queue);
    stopping(ring.base);
  }

  #fence(done: (result: number) => void): void {
    let left = 1;
    const drained = () => {
      if (--left === 0) done(0);
    };
    for (const queue of this.#all) {
      if ((queue.ring?.inFlight ?? 0) === 0) continue;
      left++;
      queue.held = true;
      queue.fences.push(drained);
    }
    drained();
  }

  /** Goes on with a queue that was held, when nothing of it is in flight any more. */
  #releaseIfDrained(queue: EngineQueue): void {
    if (!queue.held || (queue.ring?.inFlight ?? 0) > 0) return;
    queue.held = false;
    for (const drained of queue.fences.splice(0)) drained();
    this.#again(queue);
  }

  /** Handles what is available on a queue. */
  #run(queue: EngineQueue): void {
    if (!queue.isRunning) return;
    try {
      if (queue.handler === undefined) queue.onBuffers?.(queue);
      else this.#handle(queue, queue.handler);
    } catch (error) {
      this.#break(queue, error);
    }
  }

  #handle(queue: EngineQueue, handler: Handler): void {
    const ring = queue.ring!;
    const { counters } = queue;
    let budget = MAX_BATCH;
    const began = microseconds();
    this.#poller.turn(began, this.#handled);
    this.#handled = 0;
    let looked = began;
    /** How many chains there are to a look at the clock, and how many are left. */
    let stride = 1, left = 1;
    do {
      ring.disarm();
      let unpublished = 0;
      let chain: Chain | null;
      queue.inBatch = true;
      try {
        while (!queue.held && (chain = ring.take()) !== null) {
          chain.epoch = queue.epoch;
          counters.taken(chain.readableBytes);
          this.#handled++;
          let result: HandlerResult;
          try {
            result = handler(chain, queue);
          } catch (error) {
            this.#abandon(queue, chain);
            throw error;
          }
          if (typeof result === "number") {
            if (result !== LATER) this.complete(queue, chain, result);
          } else if (isPromise(result)) {
            this.#promised(queue, chain, result);
          } else {
            this.#abandon(queue, chain);
            throw this.#wrongResult(queue, chain, result);
          }
          budget -= 1 + ((chain.readableBytes + chain.writableBytes) / BATCH_BYTES | 0) +
            (chain.parts / BATCH_PARTS | 0);
          if (--left === 0) {
            const now = microseconds();
            stride = elapsed(looked, now) < CLOCK_US ? Math.min(stride * 2, MAX_UNPUBLISHED) : 1;
            if (elapsed(began, now) >= MAX_BATCH_US) budget = 0;
            looked = now;
            left = stride;
          }
          if (this.#host.isAwaited?.()) budget = 0;
          if (++unpublished === MAX_UNPUBLISHED || budget <= 0) {
            unpublished = 0;
            this.#half.onBatch?.(queue);
            this.#publish(queue);
            if (budget <= 0) break;
          }
        }
        this.#half.onBatch?.(queue);
      } finally {
        queue.inBatch = false;
        this.#publish(queue);
      }
      if (queue.held) return this.#releaseIfDrained(queue);
      if (budget <= 0) return this.#again(queue);
      // What the kernel still works on comes back by itself, and only then is there more to do.
      if (this.#poller.isOn && ring.inFlight === 0) {
        queue.polled = true;
        return;
      }
    } while (ring.arm());
  }

  /**
   * Looks for new requests for a while, instead of sleeping. For the thread's
   * loop, after it has taken what there was.
   *
   * @param glance Takes what else the thread waits for, without waiting; false
   * when that comes first.
   */
  poll(glance: () => boolean): void {
    const all = this.#all;
    if (!all.some(isPolled)) return;
    const poller = this.#poller;
    if (poller.begin()) {
      do {
        // By index: an iterator would be made at each look until V8 has seen enough of them.
        for (let i = 0; i < all.length; i++) {
          const queue = all[i];
          if (!queue.polled || !queue.ring?.isAvailable) continue;
          queue.polled = false;
          poller.found();
          this.#run(queue);
        }
      } while (glance() && !this.isPending && poller.goesOn());
      poller.end();
    }
    for (let i = 0; i < all.length; i++) {
      const queue = all[i];
      if (!queue.polled) continue;
      queue.polled = false;
      if (queue.ring?.arm()) this.#again(queue);
    }
  }

  /** Goes on with a queue after others had their turn. */
  #again(queue: EngineQueue): void {
    if (queue.deferred) return;
    queue.deferred = true;
    this.#host.defer(
      queue.resume ??= () => {
        queue.deferred = false;
        this.#run(queue);
      },
    );
  }

  #promised(queue: EngineQueue, chain: Chain, promise: Promise<number>): void {
    this.#pending++;
    promise.then((written) => {
      this.complete(queue, chain, written);
      this.flush(queue);
    }).catch((error) => {
      this.#break(queue, error);
      this.#abandon(queue, chain);
    }).finally(() => {
      this.#pending--;
      this.#returned(chain);
      this.#stopIfDrained(queue);
      this.#releaseIfDrained(queue);
    });
  }

  /** Something that is no number of bytes, or no possible one. */
  #wrongResult(queue: EngineQueue, { writableBytes }: Chain, result: unknown): TypeError {
    const { name, module } = this.#device;
    const shown = result === undefined
      ? "nothing (undefined)"
      : typeof result === "string"
      ? `the text ${JSON.stringify(result.slice(0, 40))}`
      : typeof result === "object"
      ? "an object"
      : String(result);
    return new TypeError(
      `Expected the bytes written (0 to ${writableBytes}), a promise of that or LATER from the handler of queue ${queue.name} of device ${name} (${module}), got ${shown}`,
    );
  }

  /** Takes a buffer of a queue whose sender is the device. */
  takeFor(queue: EngineQueue): Chain | null {
    if (!queue.isRunning) return null;
    const ring = queue.ring!;
    try {
      let chain = ring.take();
      if (chain === null && ring.arm()) chain = ring.take();
      if (chain === null) return null;
      chain.epoch = queue.epoch;
      queue.counters.taken(chain.readableBytes);
      return chain;
    } catch (error) {
      this.#break(queue, error);
      return null;
    }
  }

  /** Puts a chain back; a chain of an earlier start is dropped. */
  complete(queue: EngineQueue, chain: Chain, written: number): void {
    const ring = queue.ring;
    if (ring === undefined || chain.epoch !== queue.epoch) return this.#returned(chain);
    if (!chain.inFlight) throw new Error(`The device completed a chain of ${queue.name} twice`);
    if (!(Number.isInteger(written) && written >= 0 && written <= chain.writableBytes)) {
      this.#abandon(queue, chain);
      throw this.#wrongResult(queue, chain, written);
    }
    ring.put(chain, written);
    queue.counters.completed(written);
    // There is room for the next one now.
    if (ring.isHeldUp && !queue.inBatch) this.#again(queue);
  }

  /** Publishes what was put back outside a batch. */
  flush(queue: EngineQueue): void {
    if (queue.inBatch) return;
    this.#publish(queue);
    this.#stopIfDrained(queue);
    this.#releaseIfDrained(queue);
  }

  /** Ends a queue because of its driver. */
  fail(queue: EngineQueue, error: Error, chain?: Chain): void {
    this.flush(queue);
    this.#break(queue, error);
    if (chain !== undefined) this.#abandon(queue, chain);
    this.#stopIfDrained(queue);
  }

  /** Gives up a chain that is in flight. Once: what comes of it later is dropped. */
  #abandon(queue: EngineQueue, chain: Chain): void {
    if (!chain.inFlight || chain.epoch !== queue.epoch) return this.#returned(chain);
    chain.epoch = -1;
    queue.ring?.abandon(chain);
    queue.counters.abandoned();
  }

  #publish(queue: EngineQueue): void {
    if (queue.ring?.publish()) this.#notify(queue);
  }

  #notify(queue: EngineQueue): void {
    if (queue.call < 0) return;
    this.#host.signal(queue.call);
    queue.counters.notified();
  }

  /** A fault of the driver (or a device that cannot go on) ends its queue, and nothing else. */
  #break(
    queue: EngineQueue,
    error: unknown,
    rule: string = error instanceof RingError ? error.rule : DEVICE_RULE,
  ): void {
    if (queue.broken) return;
    queue.broken = true;
    queue.counters.failed();
    if (queue.stopping === undefined) this.#unwatch(queue);
    if (queue.err >= 0) this.#host.signal(queue.err);
    this.#host.emit({
      kind: "broken",
      queue: queue.index,
      rule,
      section: error instanceof RingError ? error.section : undefined,
      message: error instanceof Error ? error.message : String(error),
      stack: error instanceof Error && !(error instanceof RingError) ? error.stack : undefined,
    });
  }
}

/** Chains that were given up at a time. */
interface Incident {
  readonly id: number;
  /** How many the device still has. */
  left: number;
}

function isPromise(value: unknown): value is Promise<number> {
  return typeof (value as Promise<number> | undefined | null)?.then === "function";
}

function isPolled(queue: EngineQueue): boolean {
  return queue.polled;
}
