/**
 * A block device in memory whose store fails when it is told to, at once, by promises, or later.
 */
import blk from "../../../backends/blk/mod.ts";
import { Operation } from "../../../backends/blk/operation.ts";
import { blkOptions } from "../../../backends/blk/options.ts";
import { SharedState } from "../../../backends/blk/shared_state.ts";
import type {
  FileHandle,
  Store,
  StoreHost,
  StoreRequest,
  StoreResult,
} from "../../../backends/blk/store.ts";
import { attachLocalStore } from "../../../backends/blk/stores.ts";
import { defineDevice, LATER } from "../../../mod.ts";
import {
  createTimerfd,
  drainEventfd,
  LinuxError,
  type watch as watchOnMain,
} from "../../../src/linux/mod.ts";

/** The size of a range of the disk that has an order of its own. */
export const STRIPE_BYTES = 8192;

/** The stripes that there can be; behind them is the order for flushes. */
export const MAX_STRIPES = 64;

/** Behind that order: how many flushes there were. */
export const FLUSHES: number = MAX_STRIPES + 1;

/** How often it is looked at what is answered later. */
const PERIOD_MS = 1;

export type Manner = "now" | "promise" | "later";

export default defineDevice({
  ...blk,
  name: "faulty-blk",
  module: import.meta.url,
  options: {
    ...blkOptions,
    manner: { type: "text", placeholder: "now|promise|later", about: "How it answers" },
  },
  async open(context) {
    const opened = await blk.open!(context);
    const orders = new SharedArrayBuffer((FLUSHES + 1) * 4);
    return { ...opened, shared: { ...opened.shared!, orders } };
  },
  handlers({ options, shared, features, config, memory, queues, watch, keep, io }) {
    const store = new FaultyStore(
      {
        memory,
        io,
        done: (request, result) => operation.done(request, result),
        flush: () => queues.requestq.forEach((queue) => queue.flush()),
      },
      (host) => attachLocalStore(shared.store as FileHandle, host),
      new Int32Array(shared.orders),
      options.manner as Manner,
      watch,
    );
    const operation = new Operation({
      ...shared,
      ...{ store, keep },
      state: new SharedState(shared.state),
      zones: undefined,
      features,
      config,
    });
    return {
      queues: { requestq: (chain, queue) => operation.handle(chain, queue) },
      onStart: (queue) => operation.start(queue),
      onMessage: () => operation.flush(),
      close: () => store.close(),
    };
  },
});

/** Fails the next request of a stripe with the errno of its order. */
class FaultyStore implements Store {
  readonly #inner: Store;
  readonly #waiting: { request: StoreRequest; result: number }[] = [];
  readonly #timer = createTimerfd(PERIOD_MS);
  readonly #watch: Disposable;

  constructor(
    readonly host: StoreHost,
    attach: (host: StoreHost) => Store,
    readonly orders: Int32Array<SharedArrayBuffer>,
    readonly manner: Manner,
    watch: typeof watchOnMain,
  ) {
    this.#inner = attach(host);
    this.#watch = watch(this.#timer.number, "readable", () => {
      drainEventfd(this.#timer.number);
      this.#answerSome();
    });
  }

  read(request: StoreRequest): StoreResult {
    return this.#answer(request, () => this.#inner.read(request));
  }
  write(request: StoreRequest): StoreResult {
    return this.#answer(request, () => this.#inner.write(request));
  }
  flush(request: StoreRequest): StoreResult {
    const answer = this.#answer(request, () => this.#inner.flush(request), MAX_STRIPES);
    // When its order was taken: the next one is another flush's
    Atomics.add(this.orders, FLUSHES, 1);
    return answer;
  }
  discard(request: StoreRequest): StoreResult {
    return this.#answer(request, () => this.#inner.discard(request));
  }
  writeZeroes(request: StoreRequest, unmap: boolean): StoreResult {
    return this.#answer(request, () => this.#inner.writeZeroes(request, unmap));
  }

  #answer(
    request: StoreRequest,
    perform: () => StoreResult,
    stripe: number = Math.floor(request.offset / STRIPE_BYTES),
  ): StoreResult {
    const order = Atomics.exchange(this.orders, stripe, 0);
    // What is in memory is done at once.
    const result = order === 0 ? perform() as number : order;
    switch (this.manner) {
      case "now":
        return result;
      case "promise":
        return new Promise((resolve, reject) => {
          const isThrown = result !== 0 && request.offset % 1024 === 0;
          const settle = () => isThrown ? reject(new LinuxError("test", result)) : resolve(result);
          if (request.offset % 3 === 0) settle();
          else setTimeout(settle, request.offset % 5);
        });
      case "later":
        this.#waiting.push({ request, result });
        return LATER;
    }
  }

  /** Answers half of what waits, the last first. */
  #answerSome(): void {
    if (this.#waiting.length === 0) return;
    for (let i = Math.ceil(this.#waiting.length / 2); i > 0; i--) {
      const { request, result } = this.#waiting.pop()!;
      this.host.done(request, result);
    }
    this.host.flush();
  }

  close(): void {
    this.#watch[Symbol.dispose]();
    this.#timer.close();
    this.#inner.close?.();
  }
}
