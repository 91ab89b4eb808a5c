/**
 * An engine as the control plane reaches it: every command is answered in a stated time, whatever
 * the device's code does.
 *
 * - A chain that the device does not complete is given up when its queue stops: the queue breaks,
 *   and a later completion is dropped. What the kernel still works on for it is cancelled before.
 * - A thread that does not answer (a handler does not return) is given up itself: it cannot be
 *   ended, but is no longer waited for.
 *
 * Either may still touch the memory that it had. So the control plane moves guest memory away from
 * it (`GuestMemory.withdraw`) before a front-end gets its answer.
 *
 * @module
 */

import type { QueueSlot } from "../virtio/queue_layout.ts";
import { noteSlow, type Patience, STOP_LIMIT_MS } from "./patience.ts";
import type { AnswerTo, EngineCommand } from "./data_plane/messages.ts";

/** A stop that takes longer, in milliseconds, is told of. */
const NOTE_MS = 5_000;

/** Time that the kernel has to cancel operations. */
const CANCEL_MS = 1_000;

/** Time that a thread has to answer when it has nothing to wait for. */
const ANSWER_MS = 10_000;

/** How commands reach a `QueueEngine`, on this thread or another. They are carried out in order. */
export interface Transport {
  /** Resolves when queues can run; rejects when the device's data half could not be made. */
  readonly ready: Promise<void>;
  /** Resolves if the thread ends by itself; its pending commands reject then. */
  readonly ended?: Promise<Error>;
  /**
   * Sends a command.
   *
   * @returns Its answer, once everything that it asks for has happened.
   */
  call(command: EngineCommand): Promise<unknown>;
  /** Ends the engine; no queue may be running. */
  close(): Promise<void>;
  /** Gives up an engine that does not answer. What it uses stays, since it may still use it. */
  abandon?(): void;
}

/** The result of a stop. */
export interface Stopped {
  /** Index at which the ring resumes; undefined if it is unknown. */
  base: number | undefined;
  /** Whether the device, or its thread, may still access the ring's chains. */
  isLate: boolean;
}

/** Callbacks for an engine's events. */
export interface EngineOptions {
  /** The device and its module. */
  device: string;
  queues: readonly QueueSlot[];
  patience: Patience;
  /** Number of chains of a queue that the device has. */
  inFlight(queue: number): number;
  log(message: string): void;
}

/** Incidents so far: each time that chains are given up has a number. */
let incidents = 0;

/** An engine that answers, whatever its device does. */
export class Engine {
  /** Resolves when queues can run; rejects when the device's data half could not be made. */
  readonly ready: Promise<void>;
  /** Why it cannot be used any more. */
  failure: Error | undefined;
  readonly #transport: Transport;
  readonly #options: EngineOptions;

  /** Takes over the transport, and closes it. */
  constructor(transport: Transport, options: EngineOptions) {
    this.#transport = transport;
    this.#options = options;
    this.ready = noteSlow(transport.ready, `handlers() of ${options.device}`, options.log);
    const ended = (error: Error) => {
      if (this.failure !== undefined) return;
      this.failure = error;
      options.log(error.message);
    };
    // A thread that never ran has no pending commands; its starter reports why.
    this.ready.then(() => transport.ended?.then(ended), (error) => this.failure ??= error);
  }

  /**
   * Sends a command that does not wait for the device.
   *
   * @returns Its answer, once everything that it asks for has happened.
   * @throws {Error} When it was refused, or there was no answer in time.
   */
  async call<C extends EngineCommand>(command: C): Promise<AnswerTo<C>> {
    const { patience } = this.#options;
    const limitMs = Math.max(patience.limitMs, STOP_LIMIT_MS);
    const answer = await patience.within(this.ask(command), limitMs, limitMs);
    if (answer === undefined) throw this.#abandon(command.kind);
    return answer.value;
  }

  /** Sends a command that may wait for the device; the caller limits the time. */
  async ask<C extends EngineCommand>(command: C): Promise<AnswerTo<C>> {
    if (this.failure !== undefined) throw this.failure;
    return await this.#transport.call(command) as AnswerTo<C>;
  }

  /** Stops a queue, once everything in flight is completed or given up. */
  async stop(queue: number): Promise<Stopped> {
    const late: Stopped = { base: undefined, isLate: true };
    const { patience, log } = this.#options;
    const note = setTimeout(() => {
      const times = `stopping for ${NOTE_MS / 1000} s, given up after ${patience.limitMs / 1000} s`;
      log(`Expected ${this.#held(queue)} to be completed, still waiting: ${times}`);
    }, NOTE_MS);
    try {
      const stop = this.ask({ kind: "stop", queue });
      let stopped = await patience.within(stop);
      if (stopped === undefined) {
        this.ask({ kind: "cancel" }).catch(() => {});
        stopped = await patience.within(stop, CANCEL_MS);
      }
      if (stopped !== undefined) return { base: stopped.value, isLate: false };
      const message = `Expected ${
        this.#held(queue)
      } to be completed when the queue was to stop, still waiting`;
      const giveUp = this.ask({ kind: "giveUp", queue, incident: ++incidents, message });
      const given = await patience.within(giveUp, ANSWER_MS);
      if (given === undefined) {
        this.#abandon("stop");
        return late;
      }
      if (given.value === null) return { base: await stop, isLate: false };
      return { base: given.value, isLate: true };
    } catch (error) {
      // The thread ended meanwhile, and touches nothing any more.
      this.failure ??= error as Error;
      return late;
    } finally {
      clearTimeout(note);
    }
  }

  /** What the device has of a queue, in words. */
  #held(queue: number): string {
    const { queues, device, inFlight } = this.#options;
    const count = inFlight(queue);
    const name = queues.find(({ index }) => index === queue)?.name;
    return `${count} chain${count === 1 ? "" : "s"} of queue ${queue} (${name}) of ${device}`;
  }

  /** The thread does not answer: its queues are dead, and its memory is no longer the guest's. */
  #abandon(command: string): Error {
    const { queues, device, log } = this.#options;
    const names = queues.map(({ index, name }) => `${index} (${name})`).join(", ");
    const message =
      `The thread of queue ${names} of ${device} does not answer (${command}): a handler does not return. ` +
      "Its queues are dead until the device is started again";
    this.failure = new Error(message);
    this.#transport.abandon?.();
    log(message);
    return this.failure;
  }

  /** Ends the engine; no queue may be running. */
  async close(): Promise<void> {
    if (this.failure !== undefined) return;
    const { patience, device, log } = this.#options;
    const closing = this.#transport.close().catch((error) =>
      log(`close() of ${device} failed: ${error.message}`)
    );
    const closed = await patience.within(closing, ANSWER_MS, ANSWER_MS);
    if (closed === undefined) this.#abandon("close");
  }
}
