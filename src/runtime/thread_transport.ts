/**
 * Queue threads, seen from the main thread.
 *
 * @module
 */

import { createEventfd, type Fd, signalEventfd } from "../linux/mod.ts";
import { expectDescriptors, WORKER_DESCRIPTORS } from "../linux/fd.ts";
import type { MemoryHandle } from "../memory/mod.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import type { Transport } from "./engine.ts";
import type { EngineCommand, EngineEvent, EngineSetup } from "./data_plane/messages.ts";

/** What a queue thread starts with. */
export interface ThreadStart {
  /** An eventfd that is signalled once for each message. */
  wakeFd: number;
  /** How many messages were sent after this one, as an Int32Array of one. */
  posted: SharedArrayBuffer;
}

/** An engine that a queue thread is to run from now on. */
export interface EngineStart {
  kind: "begin";
  engine: number;
  /** The module of the device. */
  module: string;
  setup: EngineSetup;
  memory: MemoryHandle;
}

/** A message to a queue thread. */
export type ThreadRequest = EngineStart | {
  kind: "command";
  engine: number;
  id: number;
  command: EngineCommand;
};

/** A message of a queue thread: it cannot go on, or is about one of its engines. */
export type ThreadMessage = EngineMessage | { kind: "ended"; why: string };

/** A message of a queue thread about one of its engines. */
export type EngineMessage =
  & { engine: number }
  & (
    | { kind: "ready" }
    | { kind: "answer"; id: number; result: unknown }
    | { kind: "refused"; id: number; error: Error }
    | { kind: "event"; event: EngineEvent }
    | { kind: "failed"; error: Error }
  );

/** Threads of this process that do not run yet: each may still need descriptors. */
let starting = 0;

/**
 * A queue thread: it runs one engine, or those of several devices that share their objects. It
 * starts before there is an engine for it, since that takes as long as much of what else happens
 * when a device opens, and blocks for the first half of it. It ends with its last engine.
 */
export class QueueThread implements Disposable {
  readonly #name: string;
  readonly #wake: Fd;
  readonly #worker: Worker;
  readonly #engines = new Map<number, ThreadTransport>();
  #nextEngine = 0;
  readonly #posted = new Int32Array(new SharedArrayBuffer(4));
  #isStarting = true;
  /** Why it runs no engine any more. */
  #failure: Error | undefined;

  /** Starts the thread. */
  constructor(name: string) {
    this.#name = name;
    expectDescriptors(WORKER_DESCRIPTORS * (starting + 1));
    this.#wake = createEventfd();
    this.#worker = new Worker(new URL("./queue_thread.ts", import.meta.url), {
      type: "module",
      name: `vhostd-${name}`,
    });
    starting++;
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#end(event.message);
    };
    const start: ThreadStart = { wakeFd: this.#wake.number, posted: this.#posted.buffer };
    this.#worker.postMessage(start);
  }

  /**
   * Begins an engine, which is never ready if the thread has ended.
   *
   * @throws {Error} When what the device shares cannot be copied.
   */
  begin(
    device: AnyDevice,
    setup: EngineSetup,
    memory: MemoryHandle,
    emit: (event: EngineEvent) => void,
  ): Transport {
    const engine = this.#nextEngine++;
    try {
      if (this.#failure === undefined) {
        this.#post({ kind: "begin", engine, module: device.module, setup, memory });
      }
    } catch (cause) {
      this.#endIfUnused();
      throw new Error(
        `Cannot hand queue threads of ${device.name} what its open() returned as shared: ${
          (cause as Error).message.replaceAll(/\s+/g, " ").slice(0, 120)
        }; share plain values, numbers of descriptors and SharedArrayBuffers`,
        { cause },
      );
    }
    const transport = new ThreadTransport({
      send: (id, command) => this.#post({ kind: "command", engine, id, command }),
      abandon: () => this.#abandon(),
      end: () => {
        this.#engines.delete(engine);
        this.#endIfUnused();
      },
    }, emit);
    if (this.#failure === undefined) this.#engines.set(engine, transport);
    else transport.fail(this.#failure);
    return transport;
  }

  #post(message: ThreadRequest): void {
    this.#worker.postMessage(message);
    Atomics.add(this.#posted, 0, 1);
    signalEventfd(this.#wake.number);
  }

  #receive(message: ThreadMessage): void {
    this.#noteStarted();
    if (message.kind === "ended") return this.#end(message.why);
    this.#engines.get(message.engine)?.receive(message);
  }

  #end(why: string): void {
    this.#fail(new Error(`The queue thread of ${this.#name} ended: ${why}`));
  }

  #noteStarted(): void {
    if (this.#isStarting) starting--;
    this.#isStarting = false;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#noteStarted();
    for (const engine of this.#engines.values()) engine.fail(error);
  }

  #abandon(): void {
    this.#fail(new Error("The thread was given up"));
    // It ends when it comes back to its event loop, if it does. It may still use its eventfd.
    this.#worker.terminate();
  }

  #endIfUnused(): void {
    if (this.#engines.size === 0) this[Symbol.dispose]();
  }

  /** Ends a thread that runs no engine. */
  [Symbol.dispose](): void {
    if (this.#failure !== undefined || this.#engines.size > 0) return;
    this.#failure = new Error(`The queue thread of ${this.#name} has ended`);
    this.#noteStarted();
    this.#worker.terminate();
    this.#wake.close();
  }
}

/** What an engine has of its thread. */
interface EngineThread {
  send(id: number, command: EngineCommand): void;
  abandon(): void;
  /** The engine is closed. */
  end(): void;
}

/** An engine on a queue thread. */
class ThreadTransport implements Transport {
  readonly #thread: EngineThread;
  readonly #emit: (event: EngineEvent) => void;
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>();
  #nextId = 1;
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<Error>();

  constructor(thread: EngineThread, emit: (event: EngineEvent) => void) {
    this.#thread = thread;
    this.#emit = emit;
    this.#ready.promise.catch(() => {});
  }

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get ended(): Promise<Error> {
    return this.#ended.promise;
  }

  /** Takes a message of the thread. */
  receive(message: EngineMessage): void {
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
        this.fail(message.error);
        return this.#thread.end();
    }
  }

  #take(id: number): PromiseWithResolvers<unknown> | undefined {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    return call;
  }

  /** The thread does not run it any more. */
  fail(error: Error): void {
    this.#ready.reject(error);
    this.#ended.resolve(error);
    for (const call of this.#calls.values()) call.reject(error);
    this.#calls.clear();
  }

  async call(command: EngineCommand): Promise<unknown> {
    const id = this.#nextId++;
    const answer = Promise.withResolvers<unknown>();
    this.#thread.send(id, command);
    this.#calls.set(id, answer);
    return await answer.promise;
  }

  abandon(): void {
    this.#thread.abandon();
  }

  async close(): Promise<void> {
    await this.call({ kind: "close" }).finally(() => this.#thread.end());
  }
}
