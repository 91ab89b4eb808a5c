/** What a load consists of. */
import type { DriverRing } from "../../src/frontend/mod.ts";
import { ToolError } from "../lib/tool_error.ts";
import { readClock } from "../lib/clock.ts";

/** Requests of one kind, in slots that are used again and again. */
export interface Requests {
  /** How many there are. */
  readonly depth: number;
  /** Puts the next request of a slot into the ring; returns the chain's number. */
  add(ring: DriverRing, slot: number): number;
  /** Looks at what came back. */
  check(slot: number, written: number): void;
}

/** How late paced requests may be and still be made. */
const MOST_LATE_NS = 10_000_000;

/** Requests that are made when they are due, whenever those before them came back. */
export class PacedRequests implements Requests {
  readonly depth: number;
  readonly #intervalNs: number;
  readonly #word = new Int32Array(new SharedArrayBuffer(4));
  #due = readClock();

  /** @param rate Requests per second: one at least, as the clock goes round in four seconds */
  constructor(readonly inner: Requests, rate: number) {
    this.depth = inner.depth;
    this.#intervalNs = 1e9 / rate;
  }

  add(ring: DriverRing, slot: number): number {
    const now = readClock();
    const left = (this.#due - now) | 0;
    if (left > 0) Atomics.wait(this.#word, 0, 0, left / 1e6);
    // What a busy machine kept it from for longer is not made up for.
    this.#due = ((left < -MOST_LATE_NS ? now : this.#due) + this.#intervalNs) | 0;
    return this.inner.add(ring, slot);
  }

  check(slot: number, written: number): void {
    this.inner.check(slot, written);
  }
}

/** How requests for random bytes are made: virtio 1.3, 5.4.6. */
export interface RngRequestsOptions {
  depth: number;
  bytes: number;
  /** Guest physical address of memory for all of them. */
  gpa: number;
}

/** Requests for random bytes. A device may give fewer than it was asked for. */
export class RngRequests implements Requests {
  readonly depth: number;
  readonly #bytes: number;
  readonly #gpa: number;

  constructor({ depth, bytes, gpa }: RngRequestsOptions) {
    this.depth = depth;
    this.#bytes = bytes;
    this.#gpa = gpa;
  }

  add(ring: DriverRing, slot: number): number {
    if (!ring.begin(1)) throw new ToolError("Expected room in the ring, got none");
    ring.descriptor(this.#gpa + slot * this.#bytes, this.#bytes, true);
    return ring.end();
  }

  check(_slot: number, written: number): void {
    // The table says how many bytes come per second.
    if (written !== this.#bytes) {
      throw new ToolError(`Expected ${this.#bytes} random bytes, got ${written}`);
    }
  }
}
