/**
 * How much of a queue is handled before other queues and commands have their turn.
 *
 * @module
 */

import { elapsed, microseconds } from "../../linux/mod.ts";
import type { Chain } from "../../virtqueue/mod.ts";

/**
 * The most chains of a turn. A large one counts as several: a guest can make requests of 4 GiB
 * that all lie in the same memory, and a stop would wait for a thousand of them.
 */
const MAX_CHAINS = 1024;

/** The longest turn, in microseconds. One chain can take that long. */
const MAX_TURN_US = 10_000;

/** Where chains take less, in microseconds, the clock is read less often. */
const CLOCK_US = 100;

/** The most chains between two looks at the clock. */
const MAX_STRIDE = 64;

/** How many bytes of a chain count as one more chain. */
const CHAIN_BYTES = 65_536;

/** How many parts of a chain count as one more chain. */
const CHAIN_PARTS = 16;

/** The budget of one turn of a queue, restarted for each turn. */
export class BatchBudget {
  #left = 0;
  #began = 0;
  #looked = 0;
  /** Chains between two looks at the clock, and how many of them are left. */
  #stride = 1;
  #untilLook = 1;

  /** Begins a turn at a time that {@linkcode microseconds} gave. */
  begin(now: number): void {
    this.#left = MAX_CHAINS;
    this.#began = this.#looked = now;
    this.#stride = this.#untilLook = 1;
  }

  /** Counts a chain that was handled; returns whether the turn is over. */
  spend(chain: Chain): boolean {
    this.#left -= 1 + ((chain.readableBytes + chain.writableBytes) / CHAIN_BYTES | 0) +
      (chain.parts / CHAIN_PARTS | 0);
    if (--this.#untilLook === 0) {
      const now = microseconds();
      const isFast = elapsed(this.#looked, now) < CLOCK_US;
      this.#untilLook = this.#stride = isFast ? Math.min(this.#stride * 2, MAX_STRIDE) : 1;
      this.#looked = now;
      if (elapsed(this.#began, now) >= MAX_TURN_US) return true;
    }
    return this.#left <= 0;
  }
}
