/**
 * Threads of tests: each carries out orders, one after the other.
 *
 * @module
 */

/** A thread that carries out a test's orders. */
export class WorkerThread<Order, Result> implements Disposable {
  readonly #worker: Worker;

  /** Starts a thread. Its module calls {@linkcode answerOrders}. */
  constructor(module: URL) {
    this.#worker = new Worker(module, { type: "module" });
  }

  /** Sends an order; resolves to its result. */
  async run(order: Order): Promise<Result> {
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    this.#worker.onmessage = ({ data }) => resolve(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
    this.#worker.postMessage(order);
    return await promise;
  }

  /** Ends the thread. */
  [Symbol.dispose](): void {
    this.#worker.terminate();
  }
}

declare const self: {
  onmessage: (event: MessageEvent) => void;
  postMessage(result: unknown): void;
};

/** Carries orders out, on the thread's own side. */
export function answerOrders<Order, Result>(carryOut: (order: Order) => Result): void {
  self.onmessage = ({ data }) => self.postMessage(carryOut(data));
}
