/**
 * The interface between the two threads of the handshake stress test.
 *
 * @module
 */

import type { DriverQueueHandle, SharedRegionHandle } from "../../../src/frontend/mod.ts";
import type { Random } from "../../../tools/lib/random.ts";

const LINE_BYTES = 64;

/** The most lines of an answer. */
const MAX_LINES = 16;

/** Room for an answer, and for a byte that says that there is one. */
export const ANSWER_BYTES = MAX_LINES * LINE_BYTES + 1;

/** Memory of each request: a line with its number, then its answer. */
export const CELL_BYTES = (1 + MAX_LINES + 1) * LINE_BYTES;

/** A line, in units of u32. */
export const LINE_WORDS = LINE_BYTES / 4;

/**
 * The number of lines of the answer to a request, each starting with its number. While they move
 * between the processors' caches, later stores of the device do too, and a missing barrier shows.
 */
export function linesOf(id: number): number {
  return id % 4 === 0 ? id / 4 % (MAX_LINES + 1) : 0;
}

/** The number of bytes that the device says it wrote. */
export function writtenOf(id: number): number {
  return linesOf(id) * LINE_BYTES + 1;
}

/** Time limit for a notification, also on busy processors. */
const LOST_AFTER_MS = 5000;

/** The number of such limits that the other side may take if no notification is due. */
const MOST_TIMES = 6;

/** Polls before a thread sleeps: some hundred microseconds. */
const LOOKS_BEFORE_SLEEP = 50_000;

/** The number of cells: more than can be in flight, so that requests change cells. */
export function cellsOf(queueSize: number): number {
  return 2 * queueSize;
}

/** A thread's task. */
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

/** The result of a thread. */
export interface HandshakeResult {
  /** The number of times that this thread slept until it was notified. */
  sleeps: number;
  /** The number of requests that it saw. */
  requests: number;
  /** The error, if there was one. */
  error?: string;
}

/** A notification or a buffer did not come in time. */
export class LostNotification extends Error {
  override name = "LostNotification";
}

// Places of the words behind the bells.
const DEVICE = 0, DRIVER = 1, END = 2;

/** Memory for {@linkcode Bell}, at rest. */
export function makeBells(): SharedArrayBuffer {
  // Each on its own cache line.
  return new SharedArrayBuffer(3 * 64);
}

/** One side's notifications: like an eventfd, but faster. */
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

  /** Tells both sides to end. */
  static end(bells: SharedArrayBuffer): void {
    Atomics.store(new Int32Array(bells), END * 16, 1);
    Bell.ofDevice(bells).ring();
    Bell.ofDriver(bells).ring();
  }

  /** Whether both sides are to end. */
  get isEnded(): boolean {
    return Atomics.load(this.#words, END * 16) !== 0;
  }

  /**
   * Sleeps until it was rung after the last wait.
   *
   * @param what The subject of a missing notification
   * @param isThere Whether the ring has a buffer for which a notification was due
   */
  wait(what: string, isThere: () => boolean): void {
    const words = this.#words, at = this.#at, seen = this.#seen;
    for (let look = 0; look < LOOKS_BEFORE_SLEEP; look++) {
      const now = Atomics.load(words, at);
      if (now !== seen) return void (this.#seen = now);
    }
    // Checked twice: a buffer that was just added may be announced in a moment.
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
 * Spins for a random time, so that the threads' steps meet at every offset: mostly tens of
 * nanoseconds, the time for which a processor delays a store.
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
