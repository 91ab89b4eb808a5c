/**
 * A queue thread, seen from the main thread.
 *
 * @module
 */

import { createEventfd, type Fd, signalEventfd } from "../linux/mod.ts";
import { expectDescriptors, WORKER_DESCRIPTORS } from "../linux/fd.ts";
import type { MemoryHandle } from "../memory/mod.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import type { Transport } from "./engine.ts";
import type { EngineCommand, EngineEvent, EngineSetup } from "./data_plane/messages.ts";

/** What a queue thread begins with. */
export interface ThreadStart {
  /** The module of the device. */
  module: string;
  setup: EngineSetup;
  memory: MemoryHandle;
  /** An eventfd that is signalled once for each command. */
  wakeFd: number;
  /** How many commands were sent, as an Int32Array of one. */
  posted: SharedArrayBuffer;
}

/** A command on its way to a queue thread. */
export interface ThreadCommand {
  id: number;
  command: EngineCommand;
}

/** What comes back from a queue thread. */
export type ThreadMessage =
  | { kind: "ready" }
  | { kind: "answer"; id: number; result: unknown }
  | { kind: "refused"; id: number; error: Error }
  | { kind: "event"; event: EngineEvent }
  | { kind: "failed"; error: Error };

/** Threads of this process that do not run yet: each may still need descriptors. */
let starting = 0;

/**
 * A queue thread. It starts before there is an engine for it, since that takes as long as much of
 * what else happens when a device opens, and blocks for the first half of it.
 */
export class ThreadTransport implements Transport, Disposable {
  readonly #device: AnyDevice;
  readonly #wake: Fd;
  readonly #worker: Worker;
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>();
  #nextId = 1;
  readonly #posted = new Int32Array(new SharedArrayBuffer(4));
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<Error>();
  #isStarting = true;
  #emit: (event: EngineEvent) => void = () => {};

  /** Starts the thread. */
  constructor(device: AnyDevice) {
    this.#device = device;
    this.#ready.promise.catch(() => {});
    expectDescriptors(WORKER_DESCRIPTORS * (starting + 1));
    this.#wake = createEventfd();
    const { name } = device;
    this.#worker = new Worker(new URL("./queue_thread.ts", import.meta.url), {
      type: "module",
      name: `vhostd-${name}`,
    });
    starting++;
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(new Error(`The queue thread of ${name} ended: ${event.message}`));
    };
  }

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get ended(): Promise<Error> {
    return this.#ended.promise;
  }

  /**
   * Sends the thread its initial state; commands wait until it is ready.
   *
   * @throws {Error} When what the device shares cannot be copied; the thread is ended then.
   */
  begin(setup: EngineSetup, memory: MemoryHandle, emit: (event: EngineEvent) => void): this {
    this.#emit = emit;
    const { module, name } = this.#device;
    const start: ThreadStart = {
      ...{ module, setup, memory },
      wakeFd: this.#wake.number,
      posted: this.#posted.buffer,
    };
    try {
      this.#worker.postMessage(start);
    } catch (cause) {
      this[Symbol.dispose]();
      throw new Error(
        `Cannot hand queue threads of ${name} what its open() returned as shared: ${
          (cause as Error).message.replaceAll(/\s+/g, " ").slice(0, 120)
        }; share plain values, numbers of descriptors and SharedArrayBuffers`,
        { cause },
      );
    }
    return this;
  }

  #receive(message: ThreadMessage): void {
    this.#noteStarted();
    switch (message.kind) {
      case "ready":
        return this.#ready.resolve();
      case "answer":
        return this.#take(message.id)?.resolve(message.result);
      case "refused":
        return this.#take(message.id)?.reject(message.error);
      case "event":
        return this.#emit(message.event);
      case "failed":
        return this.#fail(message.error);
    }
  }

  #noteStarted(): void {
    if (this.#isStarting) starting--;
    this.#isStarting = false;
  }

  #take(id: number): PromiseWithResolvers<unknown> | undefined {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    return call;
  }

  #fail(error: Error): void {
    this.#noteStarted();
    this.#ready.reject(error);
    this.#ended.resolve(error);
    for (const call of this.#calls.values()) call.reject(error);
    this.#calls.clear();
  }

  async call(command: EngineCommand): Promise<unknown> {
    const call: ThreadCommand = { id: this.#nextId++, command };
    const answer = Promise.withResolvers<unknown>();
    this.#worker.postMessage(call);
    this.#calls.set(call.id, answer);
    Atomics.add(this.#posted, 0, 1);
    signalEventfd(this.#wake.number);
    return await answer.promise;
  }

  abandon(): void {
    this.#fail(new Error("The thread was given up"));
    // It ends when it comes back to its event loop, if it does. It may still use its eventfd.
    this.#worker.terminate();
  }

  async close(): Promise<void> {
    using _thread = this;
    await this.call({ kind: "close" });
  }

  /** Ends a thread that runs no engine. */
  [Symbol.dispose](): void {
    this.#noteStarted();
    this.#worker.terminate();
    this.#wake.close();
  }
}
