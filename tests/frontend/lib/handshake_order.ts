/**
 * What the two threads of the handshake stress agree upon.
 *
 * @module
 */

import type { DriverQueueHandle, SharedRegionHandle } from "../../../src/frontend/mod.ts";
import type { Random } from "../../../tools/lib/random.ts";

const LINE_BYTES = 64;

/** The most lines of an answer. */
const MAX_LINES = 16;

/** The room for an answer, and for a byte to say that there is one. */
export const ANSWER_BYTES = MAX_LINES * LINE_BYTES + 1;

/** The memory of each request: a line that says which one it is, then its answer. */
export const CELL_BYTES = (1 + MAX_LINES + 1) * LINE_BYTES;

/** A line, in units of u32. */
export const LINE_WORDS = LINE_BYTES / 4;

/**
 * How many lines the answer to a request has, each beginning with its number.
 * While they are on their way from one processor's cache to the other's, so is
 * all that the device stores after them, and a barrier that is missing shows.
 */
export function linesOf(id: number): number {
  return id % 4 === 0 ? id / 4 % (MAX_LINES + 1) : 0;
}

/** How many bytes the device says it wrote. */
export function writtenOf(id: number): number {
  return linesOf(id) * LINE_BYTES + 1;
}

/** How long a notification may take, also where others want the processors. */
const LOST_AFTER_MS = 5000;

/** How often so long the other side may take, if there is nothing to notify of. */
const MOST_TIMES = 6;

/** How many looks there are before a thread sleeps: some hundred microseconds. */
const LOOKS_BEFORE_SLEEP = 50_000;

/** How many requests' memory there is: more than can be in flight, so that places change. */
export function cellsOf(queueSize: number): number {
  return 2 * queueSize;
}

/** What a thread is to do. */
export interface HandshakeOrder {
  memory: SharedRegionHandle[];
  queue: DriverQueueHandle;
  /** Memory of both bells. */
  bells: SharedArrayBuffer;
  /** Guest physical address of `CELL_BYTES` for each cell. */
  gpa: number;
  seed: number;
  milliseconds: number;
}

/** What became of it. */
export interface HandshakeResult {
  /** How often this thread went to sleep until it was notified. */
  sleeps: number;
  /** How many requests it saw. */
  requests: number;
  /** What was wrong. */
  error?: string;
}

/** A side has waited for what does not come. */
export class LostNotification extends Error {
  override name = "LostNotification";
}

// Places of the words behind the bells.
const DEVICE = 0, DRIVER = 1, END = 2;

/** Memory for {@linkcode Bell}, at rest. */
export function makeBells(): SharedArrayBuffer {
  // Each on a cache line of its own.
  return new SharedArrayBuffer(3 * 64);
}

/** One side's notifications: what an eventfd is to a device and its driver, but faster. */
export class Bell {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #at: number;
  #seen = 0;

  private constructor(bells: SharedArrayBuffer, at: number) {
    this.#words = new Int32Array(bells);
    this.#at = at * 16;
  }

  /** The bell by which the driver notifies the device. */
  static ofDevice(bells: SharedArrayBuffer): Bell {
    return new Bell(bells, DEVICE);
  }

  /** The bell by which the device notifies the driver. */
  static ofDriver(bells: SharedArrayBuffer): Bell {
    return new Bell(bells, DRIVER);
  }

  /** Notifies the other side. */
  ring(): void {
    Atomics.add(this.#words, this.#at, 1);
    Atomics.notify(this.#words, this.#at);
  }

  /** Tells both sides that this is all. */
  static end(bells: SharedArrayBuffer): void {
    Atomics.store(new Int32Array(bells), END * 16, 1);
    Bell.ofDevice(bells).ring();
    Bell.ofDriver(bells).ring();
  }

  /** This was all. */
  get isEnded(): boolean {
    return Atomics.load(this.#words, END * 16) !== 0;
  }

  /**
   * Sleeps until it was rung since it was last waited for.
   *
   * @param what What a notification would be about that does not come
   * @param isThere Whether the ring has something that one was due for
   */
  wait(what: string, isThere: () => boolean): void {
    const words = this.#words, at = this.#at, seen = this.#seen;
    for (let look = 0; look < LOOKS_BEFORE_SLEEP; look++) {
      const now = Atomics.load(words, at);
      if (now !== seen) return void (this.#seen = now);
    }
    // Looked at twice: what is there only now may be announced in a moment.
    let wasThere = false;
    for (let times = 1; Atomics.wait(words, at, seen, LOST_AFTER_MS) === "timed-out"; times++) {
      if (wasThere) {
        throw new LostNotification(
          `A notification was lost: ${what} is in the ring, and none came in ${LOST_AFTER_MS} ms`,
        );
      }
      if (times === MOST_TIMES) {
        throw new Error(`Neither ${what} nor a notification came in ${times * LOST_AFTER_MS} ms`);
      }
      wasThere = isThere();
    }
    this.#seen = Atomics.load(words, at);
  }
}

/**
 * Lets a random time pass, so that what both threads do meets at every offset:
 * mostly tens of nanoseconds, which is how long a processor keeps a store to
 * itself.
 */
export class Jitter {
  readonly #random: Random;
  #longest = 1;
  #turns = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  pass(): void {
    if (--this.#turns < 0) {
      this.#turns = 500;
      this.#longest = this.#random.pick([1, 4, 16, 64, 256, 1024]);
    }
    for (let spin = this.#random.below(this.#longest); spin > 0; spin--);
  }
}
