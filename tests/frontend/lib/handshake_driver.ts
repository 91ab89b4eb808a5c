/**
 * The driver's thread of the handshake stress test: it makes requests available, asks for a
 * notification and sleeps, as often as it can.
 *
 * @module
 */

import {
  type AnyDriverQueue,
  openDriverQueue,
  viewSharedMemory,
} from "../../../src/frontend/mod.ts";
import {
  ANSWER_BYTES,
  Bell,
  CELL_BYTES,
  cellsOf,
  type HandshakeOrder,
  type HandshakeResult,
  Jitter,
  LINE_WORDS,
  linesOf,
  writtenOf,
} from "./handshake_order.ts";
import { Random } from "../../../tools/lib/random.ts";
import { answerOrders } from "./worker_thread.ts";

/** Requests between two reads of the clock. */
const REQUESTS_PER_CLOCK = 1000;

class Driver {
  readonly #random: Random;
  readonly #jitter: Jitter;
  readonly #queue: AnyDriverQueue;
  readonly #mine: Bell;
  readonly #devices: Bell;
  readonly #gpa: number;
  readonly #milliseconds: number;
  /** The first word of each cell is the number of its request. */
  readonly #words: Uint32Array<ArrayBuffer>;
  /** The free cells, from `#nextFree` on; the one that has been free longest is used first. */
  readonly #free: Int32Array;
  #nextFree = 0;
  #freed = 0;
  /** The cell of each request in flight; -1 where there is none. */
  readonly #cells: Int32Array;
  #id = 0;
  readonly result: HandshakeResult = { sleeps: 0, requests: 0 };

  constructor({ memory, queue, bells, seed, gpa, milliseconds }: HandshakeOrder) {
    const view = viewSharedMemory(memory);
    this.#queue = openDriverQueue(view, queue);
    this.#random = new Random(seed);
    this.#jitter = new Jitter(this.#random);
    this.#mine = Bell.ofDriver(bells);
    this.#devices = Bell.ofDevice(bells);
    this.#gpa = gpa;
    this.#milliseconds = milliseconds;
    const cells = cellsOf(queue.size);
    const { buffer, offset } = view.locate(gpa, cells * CELL_BYTES);
    this.#words = new Uint32Array(buffer, offset, cells * CELL_BYTES / 4);
    this.#free = Int32Array.from({ length: cells }, (_, cell) => cell);
    this.#cells = new Int32Array(queue.size).fill(-1);
  }

  run(): void {
    const queue = this.#queue;
    const most = queue.size / 2;
    let end = Infinity;
    for (let clock = 1; performance.now() < end; clock += REQUESTS_PER_CLOCK) {
      const inFlight = this.#random.pick([1, 1, 2, most]);
      while (this.result.requests < clock) {
        while (queue.inFlight < inFlight) {
          this.#add();
          this.#jitter.pass();
          if (queue.publish()) this.#devices.ring();
        }
        this.#collect();
      }
      // Time starts at the first answer, when the other thread runs.
      if (clock === 1) end = performance.now() + this.#milliseconds;
    }
    while (queue.inFlight > 0) this.#collect();
  }

  #add(): void {
    const queue = this.#queue;
    const id = this.#id = (this.#id + 1) >>> 0;
    const cell = this.#free[this.#nextFree];
    this.#nextFree = (this.#nextFree + 1) % this.#free.length;
    const gpa = this.#gpa + cell * CELL_BYTES;
    this.#words[cell * CELL_BYTES / 4] = id;
    queue.begin(2);
    queue.descriptor(gpa, 4, false);
    queue.descriptor(gpa + 4 * LINE_WORDS, ANSWER_BYTES, true);
    const head = queue.end();
    if (this.#cells[head] >= 0) throw new Error(`Number ${head} was given out twice`);
    this.#cells[head] = cell;
  }

  /** Takes completed requests, and sleeps until there are some. */
  #collect(): void {
    const queue = this.#queue;
    queue.disarm();
    for (;;) {
      let found = false;
      for (let head = queue.poll(); head >= 0; head = queue.poll()) {
        this.#check(head);
        found = true;
      }
      if (found) return;
      this.#jitter.pass();
      if (queue.arm()) continue;
      this.result.sleeps++;
      this.#mine.wait("a used buffer", () => queue.arm());
      if (this.#mine.isEnded) throw new Error("The device's thread has ended");
    }
  }

  #check(head: number): void {
    const cell = this.#cells[head];
    const first = cell * CELL_BYTES / 4;
    const id = this.#words[first];
    const { written } = this.#queue;
    if (written !== writtenOf(id)) {
      throw new Error(`Request ${id} has ${writtenOf(id)} bytes, the ring says ${written}`);
    }
    for (let line = 1; line <= linesOf(id); line++) {
      const word = this.#words[first + line * LINE_WORDS];
      if (word !== id) throw new Error(`Request ${id} has the answer to ${word} in line ${line}`);
    }
    this.#cells[head] = -1;
    this.#free[this.#freed] = cell;
    this.#freed = (this.#freed + 1) % this.#free.length;
    this.result.requests++;
  }
}

answerOrders((order: HandshakeOrder): HandshakeResult => {
  const driver = new Driver(order);
  try {
    driver.run();
    return driver.result;
  } catch (error) {
    return { ...driver.result, error: (error as Error).message };
  } finally {
    Bell.end(order.bells);
  }
});
