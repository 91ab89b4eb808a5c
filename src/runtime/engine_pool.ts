/**
 * The engines of a device.
 *
 * @module
 */

import { Engine } from "./engine.ts";
import { type EngineCommand, MAX_MESSAGES } from "./data_plane/messages.ts";
import type { Patience } from "./patience.ts";

/**
 * Engines that start at once: most machines have no more processors free for that, and a thread
 * that starts holds descriptors that are not counted yet.
 */
const AT_ONCE = 2;

/** Time for requests in flight to be completed for a fence, in milliseconds. */
const FENCE_MS = 20_000;

/** Time for the answer to a message, in milliseconds. */
const MESSAGE_MS = 30_000;

/** Time for the threads to report for a record, in milliseconds. */
const REPORT_MS = 1_000;

/**
 * Engines that all start before there is a front-end: they run the modules of that moment, whatever
 * becomes of the files, and no front-end can take the descriptors that they need.
 */
export class EnginePool {
  /** Resolves when every engine has started or failed; rejects when the first one cannot run. */
  readonly ready: Promise<void>;
  /** Engines that began to start, and why others could not. */
  readonly #engines: (Engine | Error)[];
  readonly #patience: Patience;
  /** Messages without an answer. */
  #unanswered = 0;
  /** What each engine reported last, and its report that is under way. */
  readonly #reports: unknown[] = [];
  readonly #reporting: (Promise<void> | undefined)[] = [];
  #isClosed = false;

  /**
   * Starts the first engine, and the others after it.
   *
   * @param start Starts an engine, by its index.
   * @param patience Limits the time that the device has.
   * @param onFailure Called for each engine but the first one that cannot be started.
   * @throws What `start` throws for the first engine.
   */
  constructor(
    count: number,
    start: (index: number) => Engine,
    patience: Patience,
    onFailure: (index: number, error: Error) => void,
  ) {
    this.#patience = patience;
    this.#engines = [start(0)];
    this.ready = this.#startOthers(count, start, onFailure);
    this.ready.catch(() => {});
  }

  async #startOthers(
    count: number,
    start: (index: number) => Engine,
    onFailure: (index: number, error: Error) => void,
  ): Promise<void> {
    const attempt = (index: number) => {
      try {
        return start(index);
      } catch (error) {
        return error as Error;
      }
    };
    for (let i = 1; i < count; i++) {
      await this.#failure(i - AT_ONCE);
      if (this.#isClosed) return;
      let engine = attempt(i);
      if (engine instanceof Error) {
        // Alone, it may exceed the limit.
        await this.#failure(i - 1);
        engine = attempt(i);
      }
      this.#engines[i] = engine;
    }
    for (let i = 1; i < count; i++) {
      const error = await this.#failure(i);
      if (error !== undefined && !this.#isClosed) onFailure(i, error);
    }
    await this.get(0).ready;
  }

  /** Waits until an engine has started; returns why it could not. */
  async #failure(index: number): Promise<Error | undefined> {
    const engine = this.#engines[index];
    if (engine === undefined || engine instanceof Error) return engine;
    return await engine.ready.then(() => undefined, (error) => error);
  }

  /**
   * An engine of those that have started.
   *
   * @throws {Error} When it could not be started.
   */
  get(index: number): Engine {
    const engine = this.#engines[index];
    if (engine instanceof Error) throw engine;
    return engine;
  }

  get #started(): Engine[] {
    return this.#engines.filter((engine) => engine instanceof Engine);
  }

  /** Sends all engines a command that does not wait for the device. */
  async tell(command: EngineCommand): Promise<void> {
    await this.#each((engine) => engine.call(command));
  }

  /** Resets the data half on each thread; no ring may be running. */
  async reset(): Promise<void> {
    await this.#patience.within(this.#each((engine) => engine.ask({ kind: "reset" })));
  }

  /**
   * Waits until all that was taken before is completed.
   *
   * @throws {Error} When that takes too long.
   */
  async fence(): Promise<void> {
    const fences = this.#each((engine) => engine.ask({ kind: "fence" }));
    const done = await this.#patience.within(fences, FENCE_MS, FENCE_MS);
    if (done !== undefined) return;
    throw new Error(`Expected requests in flight to end within ${FENCE_MS / 1000} s`);
  }

  /** Does some work with all engines; one that was given up may fail it. */
  async #each(work: (engine: Engine, index: number) => Promise<unknown>): Promise<void> {
    await Promise.all(this.#started.map((engine, i) =>
      work(engine, i).catch((error) => {
        if (engine.failure === undefined) throw error;
      })
    ));
  }

  /**
   * Sends a message to the data half on each thread, once all have started.
   *
   * @returns The answers, in the order of the threads.
   * @throws {Error} When a thread does not run, refuses the message or does not answer in time, or
   * when too many messages wait for an answer.
   */
  async post(value: unknown): Promise<unknown[]> {
    if (this.#unanswered >= MAX_MESSAGES) {
      throw new RangeError(`Expected at most ${MAX_MESSAGES} messages without an answer`);
    }
    this.#unanswered++;
    const asked = this.ready.then(() =>
      Promise.all(this.#engines.map((_, i) => this.get(i).ask({ kind: "message", value })))
    );
    asked.catch(() => {}).finally(() => this.#unanswered--);
    const answers = await this.#patience.within(asked, MESSAGE_MS);
    if (answers !== undefined) return answers.value;
    throw new Error(`Expected an answer of the data half within ${MESSAGE_MS / 1000} s`);
  }

  /** Asks all threads for their reports; one that is busy answers later. */
  async refreshReports(): Promise<void> {
    const reports = this.#each((engine, i) =>
      this.#reporting[i] ??= engine.ask({ kind: "report" })
        .catch((error) => ({ error: `report() failed: ${error.message}` }))
        .then((report) => {
          if (engine.failure === undefined) this.#reports[i] = report;
          this.#reporting[i] = undefined;
        })
    );
    await this.#patience.within(reports, REPORT_MS);
  }

  /**
   * Makes all engines sample 1 in `every` requests, and write their spans to rings, or to none; one
   * that is busy begins later.
   */
  async trace(
    every: number,
    ringOf: ((engine: number) => SharedArrayBuffer) | null,
  ): Promise<void> {
    await this.ready;
    const told = this.#each((engine, i) =>
      engine.ask({ kind: "trace", ring: ringOf?.(i) ?? null, every })
    );
    await this.#patience.within(told, REPORT_MS);
  }

  /** What the threads reported last. */
  get reports(): unknown[] {
    return this.#reports.filter((report) => report !== undefined);
  }

  /** Whether one of them does not answer any more. */
  get hasFailed(): boolean {
    return this.#started.some(({ failure }) => failure !== undefined);
  }

  /** Ends the engines that were started. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.ready.catch(() => {});
    await Promise.allSettled(this.#started.map((engine) => engine.close()));
  }
}
