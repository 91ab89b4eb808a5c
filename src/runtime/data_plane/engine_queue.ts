/**
 * One queue of an engine: its ring, and the device's handler for it.
 *
 * @module
 */

import { microseconds } from "../../linux/mod.ts";
import {
  DEFAULT_MOST_PENDING,
  type HandlerResult,
  LATER,
  NOT_NOW,
  type QueueHandle,
  UNTIL_READY,
} from "../../virtio/mod.ts";
import type { QueueSlot } from "../../virtio/queue_layout.ts";
import { type Chain, createRing, RingError, type Virtqueue } from "../../virtqueue/mod.ts";
import type { QueueCounters } from "../counters.ts";
import { viewInflight } from "../session/inflight_area.ts";
import { type QueueOwner, watchKick } from "./engine_host.ts";
import { type Handler, isPromise, wrongResult } from "./handler_result.ts";
import type { RingStart, StartCommand } from "./messages.ts";
import { PromisedChains } from "./promised_chains.ts";
import { QueueSpans } from "./queue_spans.ts";

/**
 * How many chains are handled between two publications: a driver continues with the first ones while
 * the device handles the others. The very first is published by itself, as a driver that sleeps
 * takes longer to wake up than the device needs for the rest.
 */
const MAX_UNPUBLISHED = 16;

/** How many chains are handled between two calls of onBatch. */
const MAX_BATCH = 64;

// Why a queue takes no chains.
/** Until the chains in flight are completed. */
const HELD = 1;
/** Until the device resumes it. */
const PAUSED = 2;
/** Until one of its promises settles. */
const FULL = 4;
/** Until the ring starts again: the driver or the device broke it. */
const BROKEN = 8;

/** A queue, on the thread that runs it. */
export class EngineQueue implements QueueHandle {
  readonly index: number;
  readonly name: string;
  readonly ordinal: number;
  readonly #owner: QueueOwner;
  readonly #counters: QueueCounters;
  /** Of a queue whose sender is the driver. */
  readonly #handler: Handler | undefined;
  /** Of a queue whose sender is the device. */
  readonly #onBuffers: ((queue: QueueHandle) => void) | undefined;
  readonly #mostPending: number;
  readonly #spans: QueueSpans;
  #ring: Virtqueue | undefined;
  #kickWatch: Disposable | undefined;
  #call = -1;
  #err = -1;
  #isEnabled = false;
  #stopped: ((base: number) => void) | undefined;
  /** Why it takes no chains: a sum of HELD, PAUSED, FULL and BROKEN. */
  #waits = 0;
  /** It is paused until a timer or a promise of the device resumes it. */
  #needsEventLoop = false;
  /** Called when it is not held any more. */
  readonly #fences: (() => void)[] = [];
  /** Its handler is running: completions are published with the batch. */
  #isInBatch = false;
  #isDeferred = false;
  /** The poller looks at it, so the driver is not asked for notifications. */
  isPolled = false;
  /** Which start of the ring this is: chains of earlier ones are dropped. */
  #epoch = 0;
  readonly #promises: PromisedChains;
  readonly #look = () => this.run();
  readonly #kicked = () => {
    this.#counters.kicked();
    this.#spans.kicked();
    this.run();
    this.#spans.turned();
  };
  readonly #runDeferred = () => {
    this.#isDeferred = false;
    this.run();
  };

  /** Makes a queue without a ring. */
  constructor(owner: QueueOwner, { index, name, ordinal }: QueueSlot, counters: QueueCounters) {
    this.#owner = owner;
    this.index = index;
    this.name = name;
    this.ordinal = ordinal;
    this.#counters = counters;
    const { sender, mostPending = DEFAULT_MOST_PENDING } = owner.device.queues[name];
    const handler: unknown = owner.half.queues[name];
    this.#mostPending = mostPending;
    this.#spans = new QueueSpans(owner, this);
    this.#promises = new PromisedChains(owner, {
      complete: (chain, written) => this.complete(chain, written),
      refuse: (chain, error, isCurrent) => {
        if (isCurrent) this.break(error);
        this.#abandon(chain);
      },
      settled: () => this.#settled(),
    });
    this.#handler = sender === "device" ? undefined : handler as Handler;
    this.#onBuffers = sender === "device" ? handler as (queue: QueueHandle) => void : undefined;
  }

  get isRunning(): boolean {
    return this.#ring !== undefined && this.#isEnabled && (this.#waits & BROKEN) === 0 &&
      this.#stopped === undefined;
  }

  /** Whether it has a ring, enabled or not. */
  get isStarted(): boolean {
    return this.#ring !== undefined;
  }

  // Commands of the control plane.

  /**
   * Starts a ring.
   *
   * @throws When it cannot be placed, or the device refuses it.
   */
  start(command: StartCommand): RingStart {
    const { half, host, memory } = this.#owner;
    const record = command.inflight === null ? undefined : viewInflight(command.inflight);
    const ring = createRing(memory, command.ring, record);
    this.#kickWatch = watchKick(host, command.kick, this.#kicked, this.#look);
    this.#ring = ring;
    this.#epoch++;
    this.isPolled = false;
    this.#waits = 0;
    this.#promises.restart();
    this.#spans.start();
    this.#call = command.call;
    this.#err = command.err;
    this.#isEnabled = command.enabled;
    try {
      half.onStart?.(this);
    } catch (error) {
      this.#unwatch();
      this.#ring = undefined;
      throw error;
    }
    // A back-end that died may have used buffers and not notified the driver.
    if (ring.isResumed) this.#notify();
    this.run();
    return { resumed: ring.isResumed, resubmitted: ring.resubmitted };
  }

  #unwatch(): void {
    this.#kickWatch?.[Symbol.dispose]();
    this.#kickWatch = undefined;
  }

  /** Enables or disables it. */
  enable(isEnabled: boolean): void {
    this.#isEnabled = isEnabled;
    if (this.#ring === undefined) return;
    try {
      this.#owner.half.onEnable?.(this);
    } catch (error) {
      this.break(error);
    }
    this.run();
  }

  /** Sets the descriptor for notifications of the driver. */
  setCall(fd: number): void {
    this.#call = fd;
    // Buffers may have been used while there was no descriptor.
    if (this.#ring !== undefined) this.#notify();
  }

  /** Sets the descriptor for errors. */
  setErr(fd: number): void {
    this.#err = fd;
  }

  /** Stops the ring; `stopped` is called with the base when all chains are back. */
  stop(stopped: (base: number) => void): void {
    if (this.#ring === undefined) return stopped(0);
    this.#unwatch();
    this.#stopped = stopped;
    this.#endWait(PAUSED);
    const epoch = this.#epoch;
    const hooked = () => {
      if (this.#epoch === epoch) this.#giveBack();
      this.#stopIfDrained();
    };
    const failed = (error: unknown) => this.break(error);
    let hook: unknown;
    try {
      hook = this.#owner.half.onStop?.(this);
    } catch (error) {
      failed(error);
    }
    if (isPromise(hook)) this.#owner.keep(hook).catch(failed).then(hooked);
    else hooked();
  }

  /** Returns buffers of a queue whose sender is the device: the driver awaits no answer. */
  #giveBack(): void {
    const ring = this.#ring;
    if (ring === undefined || this.#onBuffers === undefined) return;
    for (let left = ring.inFlight; left > 0; left--) this.#counters.abandoned();
    ring.giveBack();
  }

  #stopIfDrained(): void {
    const ring = this.#ring, stopped = this.#stopped;
    if (stopped === undefined || ring === undefined || ring.inFlight > 0) return;
    this.#publish();
    ring.release();
    this.#ring = this.#stopped = undefined;
    this.#releaseIfDrained();
    stopped(ring.base);
  }

  /**
   * Stops the ring although the device has chains: their completion is ignored.
   *
   * @returns The base; null when the ring has stopped.
   */
  giveUp(incident: number, message: string): number | null {
    const ring = this.#ring;
    if (ring === undefined) return null;
    this.#publish();
    const chains = ring.held;
    for (let left = chains.length; left > 0; left--) this.#counters.abandoned();
    this.break(new Error(message));
    this.#ring = this.#stopped = undefined;
    this.#epoch++;
    this.#owner.late.add(incident, chains);
    return ring.base;
  }

  /**
   * Takes no chains until those in flight are completed, and calls `drained` then; at once for
   * buffers of a queue whose sender is the device, which can stay with the device for ever.
   */
  fence(drained: () => void): void {
    if (this.#handler === undefined || (this.#ring?.inFlight ?? 0) === 0) return drained();
    this.#waits |= HELD;
    this.#fences.push(drained);
  }

  /** Ends a queue, and nothing else, after a fault of the driver or the device. */
  break(error: unknown, rule?: string): void {
    if ((this.#waits & BROKEN) !== 0 || this.#ring === undefined) return;
    this.#waits |= BROKEN;
    this.#counters.failed();
    if (this.#stopped === undefined) this.#unwatch();
    if (this.#err >= 0) this.#owner.host.signal(this.#err);
    const { message, stack = undefined } = error instanceof Error
      ? error
      : { message: String(error) };
    const how = error instanceof RingError
      ? { rule: error.rule, section: error.section }
      : { rule: rule ?? "device", stack };
    this.#owner.host.emit({ kind: "broken", queue: this.index, message, ...how });
  }

  // Handling.

  /** Handles the available chains. */
  run(): void {
    if (!this.isRunning || this.#waits !== 0) return;
    try {
      if (this.#handler === undefined) this.#onBuffers!(this);
      else this.#handle(this.#handler);
    } catch (error) {
      this.break(error);
    }
  }

  #handle(handler: Handler): void {
    const owner = this.#owner, ring = this.#ring!;
    const { budget, half, host, poller } = owner;
    const now = microseconds();
    poller.turn(now, owner.handled);
    owner.handled = 0;
    budget.begin(now);
    do {
      ring.disarm();
      let isOver = false, handled = 0;
      let chain: Chain | null;
      this.#isInBatch = true;
      try {
        while (!isOver && this.#waits === 0 && (chain = ring.take()) !== null) {
          this.#handleChain(chain, handler);
          isOver = budget.spend(chain) || host.isAwaited?.() === true;
          if (++handled % MAX_BATCH === 0) half.onBatch?.(this);
          if (handled % MAX_UNPUBLISHED === 1) this.#publish();
        }
        half.onBatch?.(this);
      } finally {
        this.#isInBatch = false;
        this.#publish();
      }
      // A queue that waits is not armed: the driver need not kick.
      if (this.#waits !== 0) return this.#releaseIfDrained();
      if (isOver) return this.#runSoon();
      // While the kernel works for the queue, its completions end the wait by themselves.
      if (poller.isOn && ring.inFlight === this.#promises.pending) {
        this.isPolled = true;
        return;
      }
    } while (ring.arm());
  }

  #handleChain(chain: Chain, handler: Handler): void {
    this.#owner.handled++;
    this.#noteTaken(chain);
    let result: HandlerResult;
    try {
      result = handler(chain, this);
      if (result === NOT_NOW || result === UNTIL_READY) {
        return this.#pause(chain, result === NOT_NOW);
      }
    } catch (error) {
      this.#abandon(chain);
      throw error;
    }
    this.#spans.submitted(chain);
    if (typeof result === "number") {
      if (result !== LATER) this.complete(chain, result);
    } else if (isPromise(result)) {
      this.#promises.add(chain, result);
      if (this.#promises.pending >= this.#mostPending) this.#waits |= FULL;
    } else {
      this.#abandon(chain);
      throw wrongResult(this, this.#owner.device, chain, result);
    }
  }

  #pause(chain: Chain, needsEventLoop: boolean): void {
    this.untake(chain);
    this.#owner.handled--;
    this.#waits |= PAUSED;
    if (!needsEventLoop || this.#needsEventLoop) return;
    this.#needsEventLoop = true;
    this.#owner.pending++;
  }

  resume(): void {
    this.#endWait(PAUSED);
  }

  #endWait(reason: number): void {
    if ((this.#waits & reason) === 0) return;
    this.#waits &= ~reason;
    if (reason === PAUSED && this.#needsEventLoop) {
      this.#needsEventLoop = false;
      this.#owner.pending--;
    }
    if (this.#waits === 0) this.#runSoon();
  }

  /** Promises settled. */
  #settled(): void {
    this.flush();
    if (this.#promises.pending < this.#mostPending) this.#endWait(FULL);
  }

  hold(): void {
    this.#waits |= HELD;
    if (!this.#isInBatch) this.#releaseIfDrained();
  }

  #releaseIfDrained(): void {
    if ((this.#waits & HELD) === 0 || (this.#ring?.inFlight ?? 0) > 0) return;
    for (const drained of this.#fences.splice(0)) drained();
    this.#endWait(HELD);
  }

  /** Runs it after others had their turn. */
  #runSoon(): void {
    if (this.#isDeferred) return;
    this.#isDeferred = true;
    this.#owner.host.defer(this.#runDeferred);
  }

  /** Runs it if the poller looks at it and finds a chain. */
  look(): void {
    if (!this.isPolled || !this.#ring?.isAvailable) return;
    this.isPolled = false;
    this.#owner.poller.found();
    this.run();
  }

  /** Asks for notifications again after polling. */
  endPolling(): void {
    if (!this.isPolled) return;
    this.isPolled = false;
    if (this.#ring?.arm()) this.#runSoon();
  }

  // What the device does with its chains.

  take(): Chain | null {
    if (!this.isRunning) return null;
    const ring = this.#ring!;
    try {
      let chain = ring.take();
      // A queue whose sender is the driver is armed after its batch.
      if (chain === null && this.#handler === undefined && ring.arm()) chain = ring.take();
      if (chain === null) return null;
      this.#noteTaken(chain);
      return chain;
    } catch (error) {
      this.break(error);
      return null;
    }
  }

  #noteTaken(chain: Chain): void {
    chain.epoch = this.#epoch;
    this.#counters.taken(chain.readableBytes);
    // A buffer waits until the device has something to say: only its way back is measured.
    if (this.#handler !== undefined) this.#spans.taken(chain);
  }

  untake(chain: Chain): void {
    const ring = this.#ring;
    if (ring === undefined || chain.epoch !== this.#epoch) {
      return this.#owner.late.returned(chain);
    }
    ring.untake(chain);
    this.#spans.untaken(chain);
    this.#counters.untaken(chain.readableBytes);
    if (this.#isInBatch) return;
    this.#stopIfDrained();
    this.#releaseIfDrained();
    if (this.#handler !== undefined) this.#runSoon();
  }

  complete(chain: Chain, written: number): void {
    const ring = this.#ring;
    if (ring === undefined || chain.epoch !== this.#epoch) {
      return this.#owner.late.returned(chain);
    }
    if (!chain.inFlight) throw new Error(`The device completed a chain of ${this.name} twice`);
    if (!(Number.isInteger(written) && written >= 0 && written <= chain.writableBytes)) {
      this.#abandon(chain);
      throw wrongResult(this, this.#owner.device, chain, written);
    }
    ring.put(chain, written);
    if (this.#handler === undefined) this.#spans.taken(chain);
    this.#spans.completed(chain);
    this.#counters.completed(written);
    // There is room for the next one now.
    if (ring.isHeldUp && !this.#isInBatch) this.#runSoon();
  }

  flush(): void {
    if (this.#isInBatch) return;
    this.#publish();
    this.#stopIfDrained();
    this.#releaseIfDrained();
  }

  fail(error: Error, chain?: Chain): void {
    this.flush();
    this.break(error);
    if (chain !== undefined) this.#abandon(chain);
    this.#stopIfDrained();
  }

  /** Gives up a chain that is in flight. Once: its completion is ignored. */
  #abandon(chain: Chain): void {
    if (!chain.inFlight || chain.epoch !== this.#epoch) return this.#owner.late.returned(chain);
    chain.epoch = -1;
    this.#ring?.abandon(chain);
    this.#counters.abandoned();
  }

  #publish(): void {
    const isWanted = this.#ring?.publish() === true;
    this.#spans.published();
    if (isWanted) this.#notify();
    this.#spans.end(isWanted);
  }

  #notify(): void {
    if (this.#call < 0) return;
    this.#owner.host.signal(this.#call);
    this.#counters.notified();
  }
}
