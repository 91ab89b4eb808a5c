/**
 * The engines of a device.
 *
 * @module
 */

import type { Engine } from "./engine.ts";
import type { EngineCommand } from "./queue_engine.ts";

/**
 * How many engines start at once: most machines have no more processors free
 * for that, and what starts holds descriptors that nobody has counted yet.
 */
const AT_ONCE = 2;

/**
 * A number of engines, all of them started before there is a front-end: the
 * modules that they run are those of that moment, whatever becomes of the files,
 * and no front-end can take the descriptors that they need.
 */
export class EnginePool {
  /** Resolves when every engine has started or failed; rejects when the first one cannot run. */
  readonly ready: Promise<void>;
  readonly #start: (index: number) => Engine;
  /** Those that started, and why others did not. */
  readonly #engines: (Engine | Error | undefined)[];
  /** What every engine has been told, the latest of each kind. */
  readonly #told = new Map<EngineCommand["kind"], EngineCommand>();
  #isClosed = false;

  /**
   * @param start Starts an engine, by its index.
   * @param onFailure Called for each engine but the first one that cannot be started.
   * @throws What `start` throws for the first engine.
   */
  constructor(
    count: number,
    start: (index: number) => Engine,
    onFailure: (index: number, error: Error) => void = () => {},
  ) {
    this.#start = start;
    this.#engines = new Array(count).fill(undefined);
    this.#engines[0] = start(0);
    this.ready = this.#startOthers(onFailure);
    this.ready.catch(() => {});
  }

  async #startOthers(onFailure: (index: number, error: Error) => void): Promise<void> {
    for (let i = 1; i < this.#engines.length; i++) {
      await this.#ended(i - AT_ONCE);
      if (this.#isClosed) return;
      let engine = this.#tryToBegin(i);
      if (engine instanceof Error) {
        // Alone it may have what it needs.
        await this.#ended(i - 1);
        engine = this.#tryToBegin(i);
      }
      this.#engines[i] = engine;
      if (engine instanceof Error) onFailure(i, engine);
    }
    for (let i = 1; i < this.#engines.length; i++) {
      const error = await this.#ended(i);
      if (error !== undefined && !this.#isClosed) onFailure(i, error);
    }
    await this.get(0).ready;
  }

  /** Waits until an engine has done with starting; returns why it failed, if it did after it began. */
  async #ended(index: number): Promise<Error | undefined> {
    const engine = this.#engines[index];
    if (engine === undefined || engine instanceof Error) return;
    return await engine.ready.then(() => undefined, (error) => error);
  }

  /**
   * An engine.
   *
   * @throws {Error} When it could not be started.
   */
  get(index: number): Engine {
    const engine = this.#engines[index] ??= this.#begin(index);
    if (engine instanceof Error) throw engine;
    return engine;
  }

  #tryToBegin(index: number): Engine | Error {
    try {
      return this.get(index);
    } catch (error) {
      return error as Error;
    }
  }

  #begin(index: number): Engine {
    const engine = this.#start(index);
    // Commands are carried out in order: whatever comes next finds these done.
    for (const command of this.#told.values()) engine.call(command).catch(() => {});
    return engine;
  }

  get #started(): Engine[] {
    return this.#engines.filter((engine): engine is Engine =>
      engine !== undefined && !(engine instanceof Error)
    );
  }

  /** Tells all engines something, also those that start later. */
  async tell(command: EngineCommand): Promise<void> {
    this.#told.set(command.kind, command);
    await this.ask(command);
  }

  /** Asks all engines that there are something, and awaits their answers. */
  async ask(command: EngineCommand): Promise<void> {
    await Promise.all(this.#started.map((engine) =>
      engine.call(command).catch((error) => {
        // Of one that does not answer nothing is expected, and nobody waits for it.
        if (engine.failure === undefined) throw error;
      })
    ));
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
