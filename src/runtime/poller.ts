/**
 * Whether a thread looks for work before it sleeps, and how long.
 *
 * @module
 */

import { elapsed, microseconds } from "../linux/mod.ts";

/** How many looks there are to a look at the clock. */
const LOOKS_PER_CLOCK = 32;

/** How many times in a row polling may bring nothing before it pauses. */
const TRIES = 4;

/** The most times that a thread sleeps at once before it tries polling again. */
const MAX_PAUSE = 1024;

/**
 * Decides by what polling brings. A thread that finds a request before its time
 * is over saves the driver a notification and itself a wake-up, so it polls again
 * the next time; one that finds nothing four times in a row has paid for nothing,
 * and sleeps at once for the next 2, 4, 8 … 1024 times before it tries again. So
 * a client that is slow to come back costs a thousandth of what polling could.
 *
 * One processor is left to others: where as many threads of a device poll as
 * there are processors but one, further ones sleep.
 */
export class Poller {
  readonly #mostUs: number;
  /** How many threads poll. */
  readonly #polling: Int32Array<SharedArrayBuffer>;
  readonly #mostThreads: number;
  #tries = TRIES;
  #pause = 1;
  /** How many times to sleep before the next try. */
  #left = 0;
  #since = 0;
  #isNew = false;
  #looks = 0;
  #hasFound = false;

  /**
   * @param pollUs The longest time, in microseconds; 0 for never.
   * @param polling Shared by the threads of a device: an i32, the number of those that poll.
   * @param processors How many processors there are.
   */
  constructor(pollUs: number, polling: SharedArrayBuffer, processors: number) {
    this.#mostUs = pollUs;
    this.#polling = new Int32Array(polling);
    this.#mostThreads = Math.max(1, processors - 1);
  }

  /** Whether polling follows when there is nothing to do. */
  get isOn(): boolean {
    return this.#mostUs > 0 && this.#left === 0;
  }

  /** The thread sleeps without having polled. */
  sleeps(): void {
    if (this.#left > 0) this.#left--;
  }

  /** Begins to poll, unless enough others do. */
  begin(): boolean {
    if (Atomics.add(this.#polling, 0, 1) >= this.#mostThreads) {
      Atomics.sub(this.#polling, 0, 1);
      return false;
    }
    this.#hasFound = this.#isNew = false;
    this.#since = microseconds();
    return true;
  }

  /** Something came: the time begins anew. */
  found(): void {
    this.#hasFound = this.#isNew = true;
  }

  /** Whether to look once more. */
  goesOn(): boolean {
    if (!this.#isNew && ++this.#looks % LOOKS_PER_CLOCK !== 0) return true;
    const now = microseconds();
    if (this.#isNew) this.#since = now;
    this.#isNew = false;
    return elapsed(this.#since, now) < this.#mostUs;
  }

  /** Ends what {@linkcode Poller.begin} began: the thread goes to sleep, or has something else to do. */
  end(): void {
    Atomics.sub(this.#polling, 0, 1);
    if (this.#hasFound) {
      this.#tries = TRIES;
      this.#pause = 1;
    } else if (this.#tries > 1) {
      this.#tries--;
    } else {
      this.#left = this.#pause = Math.min(2 * this.#pause, MAX_PAUSE);
    }
  }
}
