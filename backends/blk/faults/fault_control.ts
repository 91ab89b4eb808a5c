/**
 * The control half of faults: what is in force, and the command that changes it.
 *
 * @module
 */

import type { DeviceCommand } from "../../../mod.ts";
import { type FaultPlan, FAULTS, parseFaults } from "./fault_plan.ts";
import type { FaultySetup } from "./faulty_store.ts";

/** What it needs of its disk. */
export interface FaultContext {
  readonly blockBytes: number;
  /** Sends a plan to the queue threads, which use it from now on. */
  put(plan: FaultPlan): Promise<unknown>;
  log(message: string): void;
}

/** The faults of a disk, on the main thread. */
export class FaultControl {
  #plan: FaultPlan | undefined;
  readonly #counts = new Int32Array(new SharedArrayBuffer(4 * (FAULTS.length + 1)));
  readonly #context: FaultContext;

  /**
   * @param faults The option; undefined for a disk that has no faults and gets none.
   * @throws {OptionError} When it is wrong.
   */
  constructor(faults: string | undefined, context: FaultContext) {
    this.#context = context;
    if (faults !== undefined) this.#take(parseFaults(faults, "--faults"));
  }

  /** What queue threads make their faulty stores from. */
  get shared(): FaultySetup | undefined {
    if (this.#plan === undefined) return undefined;
    const { blockBytes } = this.#context;
    return { plan: this.#plan, counts: this.#counts.buffer, blockBytes };
  }

  /** Commands for the control socket. */
  readonly commands: Readonly<Record<"faults", DeviceCommand>> = {
    faults: {
      about: 'Fail on purpose: {"faults":"error=write:1%:ENOSPC"}, {} for no faults, which also ' +
        "releases stuck requests; answers what is in force",
      run: async (body) => {
        if (this.#plan === undefined) {
          throw new TypeError("Expected a disk with --faults; start vhostd with --faults=none");
        }
        if (body !== undefined) {
          const plan = parseBody(body);
          this.#take(plan);
          await this.#context.put(plan);
        }
        return this.#json();
      },
    },
  };

  #take(plan: FaultPlan): void {
    this.#plan = plan;
    if (plan.rules.length > 0) {
      this.#context.log(`The disk fails on purpose; seed=${plan.seed} repeats the choices`);
    }
  }

  #json(): Record<string, unknown> {
    const { text, seed } = this.#plan!;
    return {
      inForce: text,
      seed,
      injected: Object.fromEntries(FAULTS.map((fault, i) => [fault, this.#counts[i]])),
      held: this.#counts[FAULTS.length],
    };
  }

  /** Returns what it adds to the record. */
  report(): Record<string, unknown> {
    return this.#plan === undefined ? {} : { faults: this.#json() };
  }
}

function parseBody(body: unknown): FaultPlan {
  const { faults = "none", ...others } = Object(body) as { faults?: unknown };
  const isObject = typeof body === "object" && body !== null && !Array.isArray(body);
  if (!isObject || typeof faults !== "string" || Object.keys(others).length > 0) {
    throw new TypeError(
      `Expected {"faults":"error=write:1%"} or {}, got ${JSON.stringify(body)}`,
    );
  }
  try {
    return parseFaults(faults, "faults");
  } catch (error) {
    throw new TypeError((error as Error).message, { cause: error });
  }
}
