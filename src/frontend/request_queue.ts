import { drainEventfd, type Watch, watch } from "../linux/mod.ts";
import { FrontendError } from "./frontend_error.ts";
import type { AnyDriverQueue } from "./driver_queues.ts";
import type { SharedMemory } from "./shared_memory.ts";
import { DEFAULT_TIMEOUT_MS } from "./wait.ts";

/** How one request is made. */
export interface RequestOptions {
  /**
   * Use an indirect table.
   *
   * @default {if it was negotiated and the request has several parts}
   */
  indirect?: boolean;
  /**
   * How long the request may take, in milliseconds.
   *
   * @default {the driver's timeout}
   */
  timeoutMs?: number;
}

/** What a device made of a request. */
export interface RequestResult {
  /** How many bytes the device says it wrote. */
  written: number;
  /** Each writable part, whole: copies, the caller's. */
  data: Uint8Array<ArrayBuffer>[];
}

interface Pending {
  gpa: number;
  /** Where the writable parts are, behind the readable ones. */
  writable: { gpa: number; bytes: number }[];
  resolve(result: RequestResult): void;
  reject(error: unknown): void;
}

interface Waiting {
  attempt(): void;
  reject(error: unknown): void;
}

/**
 * Requests over a virtqueue, for callers that can afford copies and promises. It watches the
 * queue's eventfds while requests are pending, and nothing else may poll the queue meanwhile.
 */
export class RequestQueue {
  readonly #queue: AnyDriverQueue;
  readonly #memory: SharedMemory;
  readonly #timeoutMs: number;
  readonly #name: string;
  readonly #indirect: boolean;
  readonly #pending = new Map<number, Pending>();
  /** Requests for which the ring had no room. */
  #waiting: Waiting[] = [];
  #watches: Watch[] = [];
  #submitting = false;
  #broken: FrontendError | undefined;

  /**
   * Makes requests over a queue; nothing is watched yet.
   *
   * @param queue The queue; stays the caller's
   * @param memory Where buffers come from; stays the caller's
   * @param options The queue's index, for messages; the default for requests
   */
  constructor(
    queue: AnyDriverQueue,
    memory: SharedMemory,
    options: { index?: number; timeoutMs?: number } = {},
  ) {
    this.#queue = queue;
    this.#memory = memory;
    this.#name = `queue ${options.index ?? 0}`;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#indirect = queue.handle.indirectParts > 0;
  }

  /**
   * Makes a request: copies the readable parts into shared memory, and waits for the device. When
   * the ring is full it waits for room as well. Requests that are made without waiting in between
   * are published together.
   *
   * @param readable What the device reads
   * @param writableBytes The size of each part that the device writes
   * @throws {FrontendError} With reason "timeout"; or "device", if the queue broke
   */
  async request(
    readable: readonly Uint8Array[],
    writableBytes: readonly number[],
    options: RequestOptions = {},
  ): Promise<RequestResult> {
    if (this.#broken !== undefined) throw this.#broken;
    const { timeoutMs = this.#timeoutMs } = options;
    const { promise, resolve, reject } = Promise.withResolvers<RequestResult>();
    const waiting: Waiting = {
      attempt: () => {
        try {
          const added = this.#add(readable, writableBytes, options, { resolve, reject });
          if (!added) this.#waiting.push(waiting);
        } catch (error) {
          reject(error);
        }
      },
      reject,
    };
    const timer = setTimeout(() => {
      this.#waiting = this.#waiting.filter((other) => other !== waiting);
      reject(
        new FrontendError(
          "timeout",
          `Expected ${this.#name} to complete a request within ${timeoutMs} ms, got nothing`,
        ),
      );
    }, timeoutMs);
    waiting.attempt();
    this.resume();
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  #add(
    readable: readonly Uint8Array[],
    writableBytes: readonly number[],
    options: RequestOptions,
    { resolve, reject }: Pick<Pending, "resolve" | "reject">,
  ): boolean {
    const parts = readable.length + writableBytes.length;
    const { indirect = this.#indirect && parts > 1 } = options;
    if (!this.#queue.begin(parts, indirect)) {
      if (!indirect && parts > this.#queue.size) {
        throw new RangeError(
          `Expected at most ${this.#queue.size} parts as the queue has, got ${parts}`,
        );
      }
      return false;
    }
    const sum = (total: number, bytes: number) => total + bytes;
    const total = readable.map((part) => part.length).concat(writableBytes).reduce(sum, 0);
    const gpa = this.#memory.alloc(Math.max(total, 1));
    let at = gpa;
    for (const part of readable) {
      this.#memory.at(at, part.length).set(part);
      this.#queue.descriptor(at, part.length, false);
      at += part.length;
    }
    const writable = writableBytes.map((bytes) => {
      const part = { gpa: at, bytes };
      this.#queue.descriptor(at, bytes, true);
      at += bytes;
      return part;
    });
    this.#pending.set(this.#queue.end(), { gpa, writable, resolve, reject });
    if (!this.#submitting) {
      this.#submitting = true;
      queueMicrotask(() => this.flush());
    }
    return true;
  }

  /** Publishes the requests added since. */
  flush(): void {
    if (!this.#submitting) return;
    this.#submitting = false;
    this.#queue.submit();
  }

  #watch(): void {
    if (this.#watches.length > 0) return;
    const { callFd, errFd } = this.#queue.handle;
    this.#watches = [
      watch(callFd, "readable", () => {
        drainEventfd(callFd);
        this.settle();
      }),
      watch(errFd, "readable", () => {
        drainEventfd(errFd);
        this.#break(
          new FrontendError("device", `The device signalled that ${this.#name} is broken`),
        );
      }),
    ];
    // Completions may have come before anybody watched.
    if (this.#queue.arm()) this.settle();
  }

  #unwatch(): void {
    for (const one of this.#watches.splice(0)) one[Symbol.dispose]();
  }

  /** Takes every completion that there is, and asks for the next. */
  settle(): void {
    try {
      do {
        for (let head = this.#queue.poll(); head >= 0; head = this.#queue.poll()) {
          this.#complete(head, this.#queue.written);
        }
      } while (this.#queue.arm());
      if (this.#pending.size === 0) this.#unwatch();
    } catch (error) {
      this.#break(error as FrontendError);
    }
  }

  #complete(head: number, written: number): void {
    const pending = this.#pending.get(head);
    if (pending === undefined) return;
    this.#pending.delete(head);
    const { gpa, writable, resolve, reject } = pending;
    const room = writable.reduce((sum, { bytes }) => sum + bytes, 0);
    if (written > room) {
      reject(
        new FrontendError("device", `Expected at most ${room} bytes written, got ${written}`),
      );
    } else {
      resolve({
        written,
        data: writable.map((part) => this.#memory.at(part.gpa, part.bytes).slice()),
      });
    }
    this.#memory.free(gpa);
    this.#waiting.shift()?.attempt();
  }

  /** Fails everything; the device may still write to the buffers, so they are kept. */
  #break(error: FrontendError): void {
    this.#broken = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#unwatch();
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  /** Takes completed requests and stops watching, as after the device was stopped. */
  pause(): void {
    this.settle();
    this.#unwatch();
  }

  /** Begins to watch again if something is in flight, as after a restart. */
  resume(): void {
    if (this.#pending.size > 0) this.#watch();
  }

  /** Fails everything that waits and frees its buffers; the device is reset or gone. */
  abandon(reason: string): void {
    this.#unwatch();
    const error = new FrontendError("closed", reason);
    for (const { gpa, reject } of this.#pending.values()) {
      reject(error);
      this.#memory.free(gpa);
    }
    this.#pending.clear();
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.#submitting = false;
    this.#broken = undefined;
  }
}
