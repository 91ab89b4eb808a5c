/**
 * An engine of whose device nothing is expected: whatever its code does, every
 * command is answered in a stated time.
 *
 * - A chain that the device does not complete is given up when its queue is to
 *   stop: the queue is broken, and what the device does with the chain later is
 *   dropped. What the kernel still works on for it is cancelled before.
 * - A thread that does not answer at all (a handler that never returns) is given
 *   up itself: it cannot be ended, but nobody waits for it any more.
 *
 * Either may still touch the memory that it had. So the control plane moves
 * guest memory away from it (`GuestMemory.withdraw`) before a front-end gets its
 * answer.
 *
 * @module
 */

import type { QueueSlot } from "../virtio/queue_layout.ts";
import type { Engine, RunningEngine, Stopped } from "./engine.ts";
import { type Patience, STOP_LIMIT_MS, within } from "./patience.ts";
import { type EngineCommand, STOPPED } from "./queue_engine.ts";

/** When a stop takes so long, in milliseconds, that is told. */
const NOTE_MS = 5_000;

/** How long the kernel has to give up what it is to give up. */
const CANCEL_MS = 1_000;

/** How long a thread has to answer that has nothing to wait for. */
const ANSWER_MS = 10_000;

/** What is told of an engine, and to whom. */
export interface WatchedOptions {
  /** The device and its module. */
  device: string;
  queues: readonly QueueSlot[];
  patience: Patience;
  /** How many chains the device has of a queue. */
  inFlight(queue: number): number;
  log(message: string): void;
}

/** Numbers for incidents: one for each time that chains are given up. */
let incidents = 0;

/** An engine that answers, whatever its device does. */
export class WatchedEngine implements Engine {
  readonly #engine: RunningEngine;
  readonly #options: WatchedOptions;
  failure: Error | undefined;

  /** Takes an engine over. */
  constructor(engine: RunningEngine, options: WatchedOptions) {
    this.#engine = engine;
    this.#options = options;
    // One that never ran has nothing that others wait for.
    engine.ready.catch((error) => this.failure ??= error);
  }

  get ready(): Promise<void> {
    return this.#engine.ready;
  }

  async call(command: EngineCommand): Promise<number> {
    if (this.failure !== undefined) throw this.failure;
    // It waits for the device itself, and whoever asks for it has a limit.
    if (command.kind === "fence") return await this.#engine.call(command);
    const limitMs = Math.max(this.#options.patience.limitMs, STOP_LIMIT_MS);
    const answer = await within(this.#engine.call(command), limitMs);
    if (answer === undefined) throw this.#abandon(command.kind);
    return answer.value;
  }

  async stop(queue: number): Promise<Stopped> {
    const late: Stopped = { base: undefined, isLate: true };
    if (this.failure !== undefined) return late;
    const { patience, log } = this.#options;
    const note = setTimeout(() => log(this.#stillWaits(queue)), NOTE_MS);
    try {
      const stop = this.#engine.call({ kind: "stop", queue });
      let stopped = await patience.within(stop);
      if (stopped === undefined) {
        this.#engine.call({ kind: "cancel" }).catch(() => {});
        stopped = await patience.within(stop, CANCEL_MS);
      }
      if (stopped !== undefined) return { base: stopped.value, isLate: false };
      const given = await patience.within(
        this.#engine.call({
          kind: "giveUp",
          queue,
          incident: ++incidents,
          message: this.#notCompleted(queue),
        }),
        ANSWER_MS,
      );
      if (given === undefined) {
        this.#abandon("stop");
        return late;
      }
      if (given.value === STOPPED) return { base: await stop, isLate: false };
      return { base: given.value, isLate: true };
    } catch (error) {
      // The thread ended meanwhile; what it did it does no more.
      this.failure ??= error as Error;
      return late;
    } finally {
      clearTimeout(note);
    }
  }

  #name(queue: number): string {
    const { queues, device } = this.#options;
    const slot = queues.find(({ index }) => index === queue);
    return `queue ${queue} (${slot?.name}) of ${device}`;
  }

  #stillWaits(queue: number): string {
    const { inFlight, patience } = this.#options;
    return `${this.#name(queue)} is to stop, and the device still has ${
      chains(inFlight(queue))
    } after ${NOTE_MS / 1000} s; it is given up after ${patience.limitMs / 1000} s`;
  }

  #notCompleted(queue: number): string {
    const { inFlight } = this.#options;
    return `Expected ${chains(inFlight(queue))} of ${
      this.#name(queue)
    } to be completed when the queue was to stop, still waiting`;
  }

  /** The thread does not answer: its queues are dead, and what it may still touch is not the guest's. */
  #abandon(command: string): Error {
    const { queues, device, log } = this.#options;
    const names = queues.map(({ index, name }) => `${index} (${name})`).join(", ");
    const message =
      `The thread of queue ${names} of ${device} does not answer (${command}): a handler does not return. ` +
      "Its queues are dead until the device is started again";
    this.failure = new Error(message);
    this.#engine.abandon();
    log(message);
    return this.failure;
  }

  async close(): Promise<void> {
    if (this.failure !== undefined) return;
    const closed = await within(this.#engine.close(), ANSWER_MS);
    if (closed === undefined) this.#abandon("close");
  }
}

function chains(count: number): string {
  return count === 1 ? "1 chain" : `${count} chains`;
}
