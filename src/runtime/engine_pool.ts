/**
 * The engines of a device.
 *
 * @module
 */

import { Engine } from "./engine.ts";
import type { AnswerTo, EngineCommand } from "./data_plane/messages.ts";

/**
 * Engines that start at once: most machines have no more processors free for that, and what starts
 * holds descriptors that nobody has counted yet.
 */
const AT_ONCE = 2;

/**
 * Engines that all start before there is a front-end: they run the modules of that moment, whatever
 * becomes of the files, and no front-end can take the descriptors that they need.
 */
export class EnginePool {
  /** Resolves when every engine has started or failed; rejects when the first one cannot run. */
  readonly ready: Promise<void>;
  /** Engines that began to start, and why others could not. */
  readonly #engines: (Engine | Error)[];
  #isClosed = false;

  /**
   * Starts the first engine, and the others after it.
   *
   * @param start Starts an engine, by its index.
   * @param onFailure Called for each engine but the first one that cannot be started.
   * @throws What `start` throws for the first engine.
   */
  constructor(
    count: number,
    start: (index: number) => Engine,
    onFailure: (index: number, error: Error) => void = () => {},
  ) {
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
        // Alone it may have what it needs.
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

  /** Has all engines do something; nothing is expected of one that does not answer any more. */
  async each(work: (engine: Engine, index: number) => Promise<unknown>): Promise<void> {
    await Promise.all(this.#started.map((engine, i) =>
      work(engine, i).catch((error) => {
        if (engine.failure === undefined) throw error;
      })
    ));
  }

  /**
   * Asks all engines something, once they have started; the caller limits the time.
   *
   * @returns Their answers, in their order.
   * @throws {Error} When one of them cannot be asked or refuses.
   */
  async ask<C extends EngineCommand>(command: C): Promise<AnswerTo<C>[]> {
    await this.ready;
    return await Promise.all(this.#engines.map((_, i) => this.get(i).ask(command)));
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
