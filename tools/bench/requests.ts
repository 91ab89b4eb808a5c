/** What a load consists of. */
import type { DriverRing } from "../../src/frontend/mod.ts";
import { readClock } from "../lib/clock.ts";

/** Requests of one kind, in slots that are used again and again. */
export interface Requests {
  /** How many there are. */
  readonly depth: number;
  /**
   * Puts the next request of a slot into the ring.
   *
   * @returns The chain's number
   */
  add(ring: DriverRing, slot: number): number;
  /**
   * Looks at what came back.
   *
   * @throws {ToolError} When it is not what it has to be
   */
  check(slot: number, written: number): void;
}

/** How late paced requests may be and still be made. */
const MOST_LATE_NS = 10_000_000;

/** Requests that are made when they are due, whenever those before them came back. */
export class PacedRequests implements Requests {
  readonly depth: number;
  readonly #inner: Requests;
  readonly #intervalNs: number;
  readonly #word = new Int32Array(new SharedArrayBuffer(4));
  #due = readClock();

  /** @param rate Requests per second: one at least, as the clock goes round in four seconds */
  constructor(inner: Requests, rate: number) {
    this.depth = inner.depth;
    this.#inner = inner;
    this.#intervalNs = 1e9 / rate;
  }

  add(ring: DriverRing, slot: number): number {
    const now = readClock();
    const left = (this.#due - now) | 0;
    if (left > 0) Atomics.wait(this.#word, 0, 0, left / 1e6);
    // What a busy machine kept it from for longer is not made up for.
    this.#due = ((left < -MOST_LATE_NS ? now : this.#due) + this.#intervalNs) | 0;
    return this.#inner.add(ring, slot);
  }

  check(slot: number, written: number): void {
    this.#inner.check(slot, written);
  }
}
