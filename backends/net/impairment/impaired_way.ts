/**
 * One direction of an impaired port: its random choices, its rate and its delayed packets.
 *
 * @module
 */

import { elapsed, microseconds } from "../../../src/linux/mod.ts";
import { DelayQueue, isDue } from "./delay_queue.ts";
import { CLEAN, type DirectionImpairment, isCleanWay } from "./impairment.ts";

/** Times are modulo 2^30 µs, as those of `microseconds`. */
const MASK = 2 ** 30 - 1;

/** Random numbers are whole and below this. */
const RANDOM_RANGE = 2 ** 30;

/** A rate's credit while no packet passes: what a late timer may catch up. */
const BURST_US = 4000;

/** The impairment of one direction of a pair. */
export class ImpairedWay {
  /** Whether the next packet is lost. */
  isLost = false;
  /** Whether it comes twice. */
  isDuplicated = false;
  /** Whether it is delayed. */
  isDelayed = false;
  readonly #base: number;
  #impairment = CLEAN;
  #isClean = true;
  #random = 0;
  #queue: DelayQueue | undefined;
  /** Time for which the rate is used up from `#since` on; negative: credit. */
  #busyUs = 0;
  #since = 0;

  /** @param base The address of index 0 of guest memory. */
  constructor(base: number) {
    this.#base = base;
  }

  /**
   * Puts an impairment in force, also for packets that are delayed: none waits for longer from now on
   * than a new one. One without a delay makes all of them due.
   *
   * @param seed The random choices begin from this; undefined to continue.
   * @param stream The number of this direction among those of the device.
   */
  set(impairment: DirectionImpairment, seed: number | undefined, stream: number): void {
    this.#impairment = impairment;
    this.#isClean = isCleanWay(impairment);
    if (seed !== undefined) {
      // Neither seeds nor directions that are neighbours may have neighbouring sequences.
      this.#random = seed;
      this.#random = this.#next() + Math.imul(stream, 0x85eb_ca6b) | 0;
    }
    this.#busyUs = 0;
    const now = this.#since = microseconds();
    this.#queue?.note(now);
    this.#queue?.hasten(now + (impairment.delayMs + impairment.jitterMs) * 1000 & MASK);
  }

  /** The packets that are delayed, or wait behind those; memory for them is taken at the first use. */
  get queue(): DelayQueue {
    return this.#queue ??= new DelayQueue(this.#base);
  }

  /** How many packets are in the queue. */
  get count(): number {
    return this.#queue === undefined ? 0 : this.#queue.count;
  }

  /** Whether the next packet passes as it is. */
  get isPassing(): boolean {
    return this.#isClean && this.count === 0;
  }

  /** Whether the first packet of the queue is to pass now. */
  isDue(now: number): boolean {
    const queue = this.#queue;
    if (queue === undefined || queue.count === 0) return false;
    queue.note(now);
    return this.#impairment.delayMs === 0 || queue.ready > 0;
  }

  /** Chooses what happens to the next packet. */
  choose(): void {
    const { loss, duplicate, reorder, delayMs } = this.#impairment;
    this.isLost = this.#happens(loss);
    this.isDuplicated = this.#happens(duplicate);
    this.isDelayed = (delayMs > 0 || this.count > 0) && !this.#happens(reorder);
  }

  /** The time at which a packet is due that comes now. Never before the one in front of it. */
  dueAt(now: number): number {
    const { delayMs, jitterMs } = this.#impairment;
    let us = delayMs * 1000;
    if (jitterMs > 0) us += (2 * this.#next() / RANDOM_RANGE - 1) * jitterMs * 1000;
    const due = (now + Math.round(us)) & MASK;
    const queue = this.queue;
    return queue.count > queue.ready && isDue(due, queue.lastDue) ? queue.lastDue : due;
  }

  /** The time until the next packet becomes due, in microseconds; -1 if all are, or there is none. */
  nextInUs(now: number): number {
    const queue = this.#queue;
    if (queue === undefined) return -1;
    queue.note(now);
    return queue.ready === queue.count ? -1 : elapsed(now, queue.nextDue);
  }

  /** The time until the first packet of the queue is due, in microseconds. */
  dueInUs(now: number): number {
    return this.isDue(now) ? 0 : elapsed(now, this.queue.due);
  }

  /** How long the rate lets no packet pass, in microseconds. */
  busyUs(now: number): number {
    if (this.#impairment.rate === 0) return 0;
    this.#busyUs = Math.max(this.#busyUs - elapsed(this.#since, now), -BURST_US);
    this.#since = now;
    return Math.max(0, Math.ceil(this.#busyUs));
  }

  /** Uses the rate for a frame. */
  use(bytes: number): void {
    const { rate } = this.#impairment;
    if (rate > 0) this.#busyUs += bytes * 8e6 / rate;
  }

  #happens(part: number): boolean {
    return part > 0 && this.#next() < part * RANDOM_RANGE;
  }

  /** A random number; the generator is splitmix32. */
  #next(): number {
    let z = this.#random = this.#random + 0x9e37_79b9 | 0;
    z = Math.imul(z ^ z >>> 16, 0x85eb_ca6b);
    z = Math.imul(z ^ z >>> 13, 0xc2b2_ae35);
    return (z ^ z >>> 16) >>> 2;
  }
}
