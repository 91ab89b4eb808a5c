/**
 * Engines as the control plane reaches them: on its own thread, or on another.
 *
 * @module
 */

import {
  createEventfd,
  expectDescriptors,
  type Fd,
  signalEventfd,
  WORKER_DESCRIPTORS,
} from "../linux/mod.ts";
import type { MemoryHandle } from "../memory/mod.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import type { EngineCommand, EngineEvent, EngineSetup } from "./queue_engine.ts";

/** What a stop came to. */
export interface Stopped {
  /** Where the ring goes on; undefined if nobody can tell. */
  base: number | undefined;
  /** The device, or its thread, may still touch what it had of the ring. */
  isLate: boolean;
}

/** An engine that answers in a stated time. */
export interface Engine {
  /** Resolves when it can run queues; rejects when the device's data half could not be made. */
  readonly ready: Promise<void>;
  /** Why it cannot be used any more. */
  readonly failure: Error | undefined;
  /**
   * Has a command carried out.
   *
   * @returns Its answer, once everything that it asks for has happened.
   * @throws {Error} When it was refused, or there was no answer in time.
   */
  call(command: EngineCommand): Promise<number>;
  /** Stops a queue, once everything in flight is completed or has been given up. */
  stop(queue: number): Promise<Stopped>;
  /** Ends the engine; no queue may be running. */
  close(): Promise<void>;
}

/** An engine, wherever it runs. Commands are carried out in their order. */
export interface RunningEngine {
  /** Resolves when it can run queues; rejects when the device's data half could not be made. */
  readonly ready: Promise<void>;
  /**
   * Has a command carried out.
   *
   * @returns Its answer, once everything that it asks for has happened.
   */
  call(command: EngineCommand): Promise<number>;
  /** Ends the engine; no queue may be running. */
  close(): Promise<void>;
  /** Gives it up: it does not answer. What it uses stays, since it may still do so. */
  abandon(): void;
}

/** What a queue thread is started with. */
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
  | { kind: "answer"; id: number; result: number }
  | { kind: "refused"; id: number; error: Error }
  | { kind: "event"; event: EngineEvent }
  | { kind: "failed"; error: Error };

/** A thread that was started. */
interface QueueThread {
  worker: Worker;
  /** The eventfd that ends its wait. */
  wake: Fd;
  /** Resolves if it ends on its own, which it may do before anybody has taken it. */
  ended: Promise<Error>;
}

/**
 * The threads of a device's queues, some of them started before an engine has
 * something for them to do: to start one takes as long as much of what else
 * happens at a start, and blocks for the first half of it.
 */
export class QueueThreads implements Disposable {
  readonly #device: AnyDevice;
  readonly #started: QueueThread[] = [];
  /** How many have not said yet that they run: they may still need descriptors. */
  #starting = 0;

  /** @param count How many start at once. */
  constructor(device: AnyDevice, count: number) {
    this.#device = device;
    for (let i = 0; i < count; i++) this.#started.push(this.#start());
  }

  #start(): QueueThread {
    const { name } = this.#device;
    expectDescriptors(WORKER_DESCRIPTORS * (this.#starting + 1));
    const wake = createEventfd();
    const worker = new Worker(new URL("./queue_thread.ts", import.meta.url), {
      type: "module",
      name: `vhostd-${name}`,
    });
    this.#starting++;
    let isStarting = true;
    const started = () => {
      if (isStarting) this.#starting--;
      isStarting = false;
    };
    worker.addEventListener("message", started, { once: true });
    const { promise, resolve } = Promise.withResolvers<Error>();
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      started();
      resolve(new Error(`The queue thread of ${name} ended: ${event.message}`));
    });
    return { worker, wake, ended: promise };
  }

  /** A thread for an engine, which ends it. */
  take(): QueueThread {
    return this.#started.shift() ?? this.#start();
  }

  /** Ends those that nobody took. */
  [Symbol.dispose](): void {
    for (const { worker, wake } of this.#started.splice(0)) {
      worker.terminate();
      wake.close();
    }
  }
}

/** Hands a thread what it starts with; what the device shares is copied for it. */
function post(worker: Worker, start: ThreadStart, name: string): void {
  try {
    worker.postMessage(start);
  } catch (cause) {
    throw new Error(
      `Cannot hand queue threads of ${name} what its open() returned as shared: ${
        (cause as Error).message.replaceAll(/\s+/g, " ").slice(0, 120)
      }; share plain values, numbers of descriptors and SharedArrayBuffers`,
      { cause },
    );
  }
}

/** An engine on a thread of its own. */
export class ThreadEngine implements RunningEngine {
  #worker: Worker;
  #wake: Fd;
  #calls = new Map<number, PromiseWithResolvers<number>>();
  #nextId = 1;
  readonly #posted = new Int32Array(new SharedArrayBuffer(4));
  #ready = Promise.withResolvers<void>();
  #failure: Error | undefined;
  readonly #onFailure: (error: Error) => void;
  #isReady = false;

  /**
   * Takes a thread over; commands wait until it is ready.
   *
   * @param onFailure Called when the thread ends on its own after it was ready: its queues are
   * dead then.
   */
  constructor(
    { worker, wake, ended }: QueueThread,
    device: AnyDevice,
    setup: EngineSetup,
    memory: MemoryHandle,
    emit: (event: EngineEvent) => void,
    onFailure: (error: Error) => void = () => {},
  ) {
    this.#onFailure = onFailure;
    this.#worker = worker;
    this.#wake = wake;
    ended.then((error) => this.#fail(error));
    this.#worker.onmessage = ({ data }: MessageEvent<ThreadMessage>) => {
      switch (data.kind) {
        case "ready":
          this.#isReady = true;
          this.#ready.resolve();
          break;
        case "answer":
          this.#settle(data.id)?.resolve(data.result);
          break;
        case "refused":
          this.#settle(data.id)?.reject(data.error);
          break;
        case "event":
          emit(data.event);
          break;
        case "failed":
          this.#fail(data.error);
      }
    };
    this.#ready.promise.catch(() => {});
    const start: ThreadStart = {
      module: device.module,
      setup,
      memory,
      wakeFd: this.#wake.number,
      posted: this.#posted.buffer,
    };
    post(this.#worker, start, device.name);
  }

  #settle(id: number): PromiseWithResolvers<number> | undefined {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    return call;
  }

  #fail(error: Error): void {
    this.#failure = error;
    this.#ready.reject(error);
    for (const call of this.#calls.values()) call.reject(error);
    this.#calls.clear();
    if (this.#isReady) this.#onFailure(error);
  }

  async call(command: EngineCommand): Promise<number> {
    if (this.#failure) throw this.#failure;
    const id = this.#nextId++;
    const call = Promise.withResolvers<number>();
    this.#calls.set(id, call);
    const message: ThreadCommand = { id, command };
    this.#worker.postMessage(message);
    Atomics.add(this.#posted, 0, 1);
    signalEventfd(this.#wake.number);
    return await call.promise;
  }

  /** Resolves when the thread runs; rejects when it could not start. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  abandon(): void {
    this.#isReady = false;
    this.#fail(new Error("The thread was given up"));
    // It ends when it comes back to its event loop, if it does. It may still use its eventfd.
    this.#worker.terminate();
  }

  async close(): Promise<void> {
    try {
      await this.call({ kind: "close" });
    } finally {
      this.#worker.terminate();
      this.#wake.close();
    }
  }
}
