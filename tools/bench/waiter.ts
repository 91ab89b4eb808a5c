/**
 * What a load does while nothing has come back.
 *
 * @module
 */

import type { DriverRing } from "../../src/frontend/mod.ts";
import { Epoll, EPOLLET, EPOLLIN } from "../../src/linux/mod.ts";
import { BenchError } from "./bench_error.ts";
import { readClock } from "./clock.ts";

/** How long a request may take. */
const TIMEOUT_MS = 4000;

/** Something to do until a request comes back. */
export interface Waiter extends Disposable {
  /** Called before the first request. */
  begin(): void;
  /** Waits until there may be something to poll. */
  wait(): void;
}

/** Sleeps until the device notifies, as a driver in a guest does. */
export class SleepingWaiter implements Waiter {
  readonly #ring: DriverRing;
  readonly #epoll = new Epoll();

  constructor(ring: DriverRing, callFd: number) {
    this.#ring = ring;
    // Edges: each notification ends a wait, without a call to take it back.
    this.#epoll.add(callFd, EPOLLIN | EPOLLET, 0);
  }

  begin(): void {}

  wait(): void {
    if (this.#ring.arm()) return;
    if (this.#epoll.wait(TIMEOUT_MS) === 0 && !this.#ring.arm()) throw timeout();
  }

  [Symbol.dispose](): void {
    this.#epoll[Symbol.dispose]();
  }
}

/** Never sleeps, and tells the device that it need not notify. */
export class PollingWaiter implements Waiter {
  readonly #ring: DriverRing;
  #turns = 0;
  #since = 0;

  constructor(ring: DriverRing) {
    this.#ring = ring;
  }

  begin(): void {
    this.#ring.disarm();
  }

  wait(): void {
    // The clock is looked at now and then only.
    if ((++this.#turns & 0xffff) !== 0) return;
    this.#ring.disarm();
    this.#since = readClock();
  }

  [Symbol.dispose](): void {}
}

function timeout(): BenchError {
  return new BenchError(`Expected a request back within ${TIMEOUT_MS / 1000} s, got none`);
}
