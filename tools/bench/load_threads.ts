/** Load threads, kept between runs: V8 compiles the code of each new one again. */
import { Histogram } from "./histogram.ts";
import { type Count, LoadControl, LoadCounters, phases } from "./load_state.ts";
import type { LoadOrder, LoadOutcome } from "./load_worker.ts";
import { ToolError } from "../lib/tool_error.ts";

/** How long a thread may take to end its run. */
const STOP_TIMEOUT_MS = 5000;

/** What a thread is to do, without what it shares. */
export type ThreadOrder = Omit<LoadOrder, "control" | "counters">;

class LoadThread {
  readonly counters = new LoadCounters();
  readonly #worker = new Worker(new URL("./load_worker.ts", import.meta.url), { type: "module" });

  run(order: ThreadOrder, control: LoadControl): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.counters.clear();
    this.#worker.onmessage = ({ data }: MessageEvent<LoadOutcome>) => {
      if ("error" in data) return reject(new ToolError(data.error));
      order.queue = data.queue;
      resolve();
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      reject(new ToolError(`A load thread failed: ${event.message}`));
    };
    this.#worker.postMessage(
      { ...order, control: control.buffer, counters: this.counters.buffer } satisfies LoadOrder,
    );
    return promise;
  }

  terminate(): void {
    this.#worker.terminate();
  }
}

export class RunningLoad {
  /** Rejects when a thread fails. Never resolves. */
  readonly failed: Promise<never>;
  readonly #control: LoadControl;
  readonly #ended: Promise<void>;

  constructor(readonly threads: readonly LoadThread[], orders: readonly ThreadOrder[]) {
    this.#control = new LoadControl();
    this.#ended = Promise.all(orders.map((order, i) => threads[i].run(order, this.#control)))
      .then(() => {});
    this.failed = new Promise((_, reject) => this.#ended.catch(reject));
    this.failed.catch(() => {});
  }

  /** What all threads have counted by now. */
  count(what: Count): number {
    return this.threads.reduce((sum, { counters }) => sum + counters.get(what), 0);
  }

  record(): void {
    this.#control.phase = phases.RECORD;
  }

  /** All latencies that were noted; complete after {@linkcode RunningLoad.stop}. */
  latencies(): Histogram {
    const all = new Histogram();
    for (const { counters } of this.threads) all.merge(counters.latencies);
    return all;
  }

  /** Ends the load, once everything in flight has come back. */
  async stop(): Promise<void> {
    if (this.#control.phase < phases.STOP) this.#control.phase = phases.STOP;
    const timer = setTimeout(() => this.#control.phase = phases.ABORT, STOP_TIMEOUT_MS);
    try {
      await this.#ended;
    } finally {
      clearTimeout(timer);
    }
  }

  async abort(): Promise<void> {
    this.#control.phase = phases.ABORT;
    await this.#ended.catch(() => {});
  }
}

export class LoadThreads implements Disposable {
  readonly #threads: LoadThread[] = [];

  /**
   * Starts a thread for each order. One load runs at a time. Orders can be given again: their
   * queues are kept as they stand.
   */
  start(orders: readonly ThreadOrder[]): RunningLoad {
    while (this.#threads.length < orders.length) this.#threads.push(new LoadThread());
    return new RunningLoad(this.#threads.slice(0, orders.length), orders);
  }

  [Symbol.dispose](): void {
    for (const thread of this.#threads) thread.terminate();
  }
}
