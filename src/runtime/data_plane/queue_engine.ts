/**
 * The data plane of one thread: the data half of a device, and the queues that it serves.
 *
 * @module
 */

import { RegionTable, type SpanView } from "../../memory/mod.ts";
import { type AnyDevice, type DataHalf, hasFeature, type QueueHandle } from "../../virtio/mod.ts";
import { transportFeatures } from "../../virtio/features.ts";
import { checkHandlers } from "../../virtio/device_names.ts";
import { QueueCounters } from "../counters.ts";
import { Latencies } from "../latency.ts";
import { NoticeSender } from "../notices.ts";
import { SpanRing } from "../trace/span_ring.ts";
import { BatchBudget } from "./batch_budget.ts";
import type { EngineHost, QueueOwner } from "./engine_host.ts";
import { EngineQueue } from "./engine_queue.ts";
import { isPromise } from "./handler_result.ts";
import { LateChains } from "./late_chains.ts";
import { type EngineCommand, type EngineSetup, MAX_MESSAGES } from "./messages.ts";
import type { Poller } from "./poller.ts";
import { RequestSampler } from "./request_sampler.ts";

/** Runs some of a device's queues on the thread that it was made on. */
export class QueueEngine implements QueueOwner {
  readonly device: AnyDevice;
  half!: DataHalf;
  /** Resolves when it is made. */
  readonly ready: Promise<void>;
  readonly host: EngineHost;
  readonly memory: SpanView;
  readonly budget = new BatchBudget();
  readonly poller: Poller;
  readonly late: LateChains;
  readonly sampler: RequestSampler;
  handled = 0;
  pending = 0;
  readonly #features: Record<string, boolean>;
  readonly #queues: EngineQueue[] = [];

  /** Makes the data half of a device. */
  constructor(device: AnyDevice, setup: EngineSetup, memory: SpanView, host: EngineHost) {
    this.device = device;
    this.host = host;
    this.memory = memory;
    this.poller = host.poller;
    this.late = new LateChains((event) => host.emit(event));
    this.sampler = new RequestSampler(new Latencies(device, setup.latencies));
    const names = (of: object) => Object.keys(of);
    this.#features = Object.fromEntries(
      [...names(device.features ?? {}), "VERSION_1"].map((name) => [name, false]),
    );
    const queues: Record<string, QueueHandle[]> = Object.fromEntries(
      names(device.queues).map((name) => [name, []]),
    );
    const notices = new NoticeSender((notice, count) =>
      host.emit({ kind: "notice", notice, count })
    );
    const unheard = new Int32Array(setup.unheard);
    const half = device.handlers({
      notice: (notice) => notices.add(notice),
      options: setup.options,
      shared: setup.shared,
      config: device.config?.view(setup.config) ?? {},
      features: this.#features,
      queues,
      memory,
      watch: (fd, readiness, callback) => host.watch(fd, readiness, callback),
      keep: (promise) => this.keep(promise),
      post(value) {
        if (Atomics.load(unheard, 0) >= MAX_MESSAGES) return false;
        host.emit({ kind: "message", value });
        Atomics.add(unheard, 0, 1);
        return true;
      },
      io: host.io,
    });
    const made = (half: DataHalf) => {
      checkHandlers(device, half);
      this.half = half;
      for (const slot of setup.queues) {
        const queue = new EngineQueue(this, slot, new QueueCounters(setup.counters, slot.index));
        this.#queues.push(queue);
        queues[slot.name].push(queue);
      }
      this.poller.queues = [...this.poller.queues, ...this.#queues];
    };
    this.ready = isPromise(half) ? half.then(made) : Promise.resolve(made(half));
  }

  /**
   * Promises began or settled since this was last cleared: the event loop must turn once, for those
   * that settle by themselves and for what awaits them.
   */
  hasPromises = false;

  /** Whether the thread's event loop must turn: promises are pending, or queues are paused. */
  get isPending(): boolean {
    return this.pending > 0 || this.hasPromises;
  }

  began(): void {
    this.pending++;
    this.hasPromises = true;
  }

  settled(): void {
    this.pending--;
    this.hasPromises = true;
  }

  keep<T>(promise: Promise<T>): Promise<T> {
    this.began();
    return Promise.resolve(promise).finally(() => this.settled());
  }

  /**
   * Carries out a command of the control plane; `done` is called with its answer: see
   * `EngineAnswers`. A hook of the device that rejects has `refuse` called instead.
   *
   * @throws When the command cannot be carried out, or a hook of the device throws.
   */
  execute(
    command: EngineCommand,
    done: (answer?: unknown) => void,
    refuse: (error: unknown) => void,
  ): void {
    const { half, host } = this;
    let answer: unknown;
    switch (command.kind) {
      case "memory":
        this.memory.regions = new RegionTable(command.regions);
        break;
      case "features":
        for (const name in this.#features) {
          const { bit } = this.device.features?.[name] ?? transportFeatures.VERSION_1;
          this.#features[name] = hasFeature(command.bits, bit);
        }
        break;
      case "start":
        answer = this.#queue(command.queue).start(command);
        break;
      case "enable":
        this.#queue(command.queue).enable(command.enabled);
        break;
      case "call":
        this.#queue(command.queue).setCall(command.fd);
        break;
      case "err":
        this.#queue(command.queue).setErr(command.fd);
        break;
      case "break":
        this.#queue(command.queue).break(command.message, command.rule);
        break;
      case "stop":
        return this.#queue(command.queue).stop(done);
      case "cancel":
        host.cancel?.();
        half.onCancel?.();
        break;
      case "giveUp":
        answer = this.#queue(command.queue).giveUp(command.incident, command.message);
        break;
      case "fence":
        return this.#fence(done);
      case "reset":
        answer = this.#stopped(command.kind).onReset?.();
        break;
      case "save":
        answer = this.#stopped(command.kind).save?.();
        break;
      case "load":
        answer = this.#stopped(command.kind).load?.(command.state);
        break;
      case "report":
        answer = half.report?.();
        break;
      case "trace":
        this.sampler.trace(command.ring && new SpanRing(command.ring), command.every);
        break;
      case "message":
        if (half.onMessage === undefined) {
          throw new TypeError(`Expected onMessage() in the handlers of ${this.device.name}`);
        }
        answer = half.onMessage(command.value);
        break;
      case "close": {
        const { poller } = this;
        poller.queues = poller.queues.filter((queue) =>
          !this.#queues.includes(queue as EngineQueue)
        );
        half.close?.();
      }
    }
    if (isPromise(answer)) this.keep(answer).then(done).catch(refuse);
    else done(answer);
  }

  #queue(index: number): EngineQueue {
    const queue = this.#queues.find((queue) => queue.index === index);
    if (queue === undefined) throw new RangeError(`Expected a queue of this engine, got ${index}`);
    return queue;
  }

  /** The data half, while no ring runs. */
  #stopped(kind: string): DataHalf {
    const running = this.#queues.find(({ isStarted }) => isStarted);
    if (running === undefined) return this.half;
    throw new Error(`Expected all rings to be stopped for ${kind}, queue ${running.index} runs`);
  }

  /** No promise: nothing runs one while the thread blocks in its wait. */
  #fence(done: () => void): void {
    let left = this.#queues.length;
    const drained = () => {
      if (--left === 0) done();
    };
    for (const queue of this.#queues) queue.fence(drained);
  }
}
