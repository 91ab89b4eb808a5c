/**
 * Whether a thread looks for work before it sleeps, and how long.
 *
 * @module
 */

import { elapsed, microseconds } from "../../linux/mod.ts";

/** Looks at the queues per look at the clock. */
const LOOKS_PER_CLOCK = 32;

/** Number of turns that are measured together. */
const WINDOW = 64;

/** Longest time between two turns that is measured, in microseconds: the rest is idle time. */
const MAX_TURN_US = 256;

/** Windows until the other way is tried again: at first, and at most. */
const MIN_HOLD = 2, MAX_HOLD = 64;

/** Least gain of polling, as a ratio of requests per time: it takes a processor. */
const GAIN = 1.1;

/** A queue that a poller can look at. */
export interface PolledQueue {
  /** Whether the thread looks at it, and the driver need not notify. */
  readonly isPolled: boolean;
  /** Handles what has come, if anything. */
  look(): void;
  /** Asks the driver to notify again. */
  endPolling(): void;
}

/**
 * Tries both polling and sleeping for {@linkcode WINDOW} turns each, and keeps the one that serves
 * more requests per time, for longer and longer until it tries the other again. Which one does
 * depends on the client, the scheduler and how deeply processors sleep: polling serves twice as
 * many requests of a client on another processor, and half as many of one that shares the
 * processor. At a low rate both serve the same, and the thread sleeps.
 *
 * One processor is left to others: at most as many threads of a device poll as there are
 * processors but one.
 */
export class Poller {
  /** The queues of the thread. */
  queues: readonly PolledQueue[] = [];
  readonly #mostUs: number;
  /** Number of threads that poll. */
  readonly #polling: Int32Array<SharedArrayBuffer>;
  readonly #mostThreads: number;
  /** Polling served more when both were compared last. */
  #isBetter = true;
  /** The thread polls in this window. */
  #isOn = true;
  #turns = 0;
  #requests = 0;
  #us = 0;
  #last = 0;
  /** Requests per microsecond in the last window of the better way. */
  #rate = 0;
  #hold = MIN_HOLD;
  /** Windows until the other way is tried. */
  #left = MIN_HOLD;
  #since = 0;
  #isNew = false;
  #looks = 0;

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
    return this.#mostUs > 0 && this.#isOn;
  }

  /**
   * Notes that the thread turns to a queue.
   *
   * @param now As {@linkcode microseconds} says.
   * @param handled The requests that were handled since the turn before.
   */
  turn(now: number, handled: number): void {
    this.#us += Math.min(elapsed(this.#last, now), MAX_TURN_US);
    this.#last = now;
    this.#requests += handled;
    if (++this.#turns < WINDOW) return;
    this.#compare(this.#requests / this.#us);
    this.#turns = this.#requests = this.#us = 0;
  }

  #compare(rate: number): void {
    if (this.#isOn === this.#isBetter) {
      if (--this.#left > 0) return;
      this.#rate = rate;
      this.#isOn = !this.#isBetter;
      return;
    }
    const isBetter = this.#isOn ? rate > GAIN * this.#rate : this.#rate > GAIN * rate;
    this.#hold = isBetter === this.#isBetter ? Math.min(2 * this.#hold, MAX_HOLD) : MIN_HOLD;
    this.#left = this.#hold;
    this.#isOn = this.#isBetter = isBetter;
  }

  /**
   * Looks for new requests for a while, instead of sleeping. For the thread's loop, when it has
   * done everything else.
   *
   * @param glance Does what else the thread waits for, without waiting; returns false when that
   * comes first.
   * @returns Whether that came first, and requests just before it.
   */
  poll(glance: () => boolean): boolean {
    const { queues } = this;
    if (!queues.some(isPolled) || !this.begin()) return false;
    do {
      // By index: an iterator would be made at each look until V8 has seen enough of them.
      for (let i = 0; i < queues.length; i++) queues[i].look();
    } while (glance() && this.continues());
    this.end();
    return this.#isNew;
  }

  /** Asks drivers to notify again: the thread will sleep, or do something that may take long. */
  endPolling(): void {
    const { queues } = this;
    for (let i = 0; i < queues.length; i++) queues[i].endPolling();
  }

  /** Begins to poll, unless enough others do. */
  begin(): boolean {
    if (Atomics.add(this.#polling, 0, 1) >= this.#mostThreads) {
      Atomics.sub(this.#polling, 0, 1);
      return false;
    }
    this.#isNew = false;
    this.#since = microseconds();
    return true;
  }

  /** Restarts the time: a request came. */
  found(): void {
    this.#isNew = true;
  }

  /** Whether to look again. */
  continues(): boolean {
    if (!this.#isNew && ++this.#looks % LOOKS_PER_CLOCK !== 0) return true;
    const now = microseconds();
    if (this.#isNew) this.#since = now;
    this.#isNew = false;
    return elapsed(this.#since, now) < this.#mostUs;
  }

  /** Ends what {@linkcode Poller.begin} began: the thread goes to sleep, or has something else to do. */
  end(): void {
    Atomics.sub(this.#polling, 0, 1);
  }
}

function isPolled(queue: PolledQueue): boolean {
  return queue.isPolled;
}
