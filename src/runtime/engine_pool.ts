/**
 * The engines of a device.
 *
 * @module
 */

import type { Engine } from "./engine.ts";
import type { EngineCommand } from "./queue_engine.ts";

/**
 * How many engines start at once. A guest waits for them when it is connected
 * again, and most have no more processors for queues than that.
 */
const AT_ONCE = 2;

/**
 * A number of engines of which the first ones start at once, and each other
 * when a queue of its own is first used: a front-end that enables one queue of
 * many does not cost a thread for each.
 */
export class EnginePool {
  readonly #start: (index: number) => Engine;
  readonly #engines: (Engine | undefined)[];
  /** What every engine has been told, the latest of each kind. */
  readonly #told = new Map<EngineCommand["kind"], EngineCommand>();

  /** @param start Starts an engine, by its index. */
  constructor(count: number, start: (index: number) => Engine) {
    this.#start = start;
    this.#engines = new Array(count).fill(undefined);
    for (let i = 0; i < Math.min(count, AT_ONCE); i++) this.get(i);
  }

  /** Resolves when the first engine can run queues; rejects when it cannot be made. */
  get ready(): Promise<void> {
    return this.get(0).ready;
  }

  /** An engine; it is started if it has not been. */
  get(index: number): Engine {
    return this.#engines[index] ??= this.#begin(index);
  }

  #begin(index: number): Engine {
    const engine = this.#start(index);
    // Commands are carried out in order: whatever comes next finds these done.
    for (const command of this.#told.values()) engine.call(command).catch(() => {});
    return engine;
  }

  /** Tells all engines something, also those that start later. */
  async tell(command: EngineCommand): Promise<void> {
    this.#told.set(command.kind, command);
    await Promise.all(this.#engines.map((engine) =>
      engine?.call(command).catch((error) => {
        // Of one that does not answer nothing is expected, and nobody waits for it.
        if (engine.failure === undefined) throw error;
      })
    ));
  }

  /** Whether one of them does not answer any more. */
  get hasFailed(): boolean {
    return this.#engines.some((engine) => engine?.failure !== undefined);
  }

  /** Ends the engines that were started. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#engines.map((engine) => engine?.close()));
  }
}
