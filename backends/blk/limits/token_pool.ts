/**
 * Token buckets that the queue threads of a disk share: one of requests, one of bytes.
 *
 * Tokens come with time, up to a burst. A queue spends tokens of its own, which costs a few loads and
 * stores. When it has none left, its thread deals out what has come since the last time: equal shares
 * to the queues that use theirs up. So a queue with few requests gets what it needs, and others share
 * the rest equally. A request passes when its queue has any tokens, and may cost more than those: the
 * queue then owes the difference, so a request that is larger than the burst passes too.
 *
 * @module
 */

import { elapsed, microseconds } from "../../../src/linux/mod.ts";

/** The limits that there are. */
export const LIMITS = ["iops", "bandwidth"] as const;

/** A limit. */
export interface Limit {
  /** Requests, or bytes. */
  readonly perSecond: number;
  /** How many may pass at once after a pause. */
  readonly burst: number;
}

/** The limits of a disk; those that are left out are off. */
export type Limits = { readonly [K in typeof LIMITS[number]]?: Limit };

/** The shortest wait: a thread does not wake up for each request. */
const MIN_WAIT_US = 1000;

/** The longest wait of a queue before it looks again: others may have stopped using their share. */
const MAX_WAIT_US = 50_000;

const LOCK = 0, DEALT_AT = 1, WORDS = 2;
const RATE = 0, BURST = 1, LEFT = 2, FLOATS = 3;

/** The tokens of one kind. */
class Bucket {
  /** The tokens that each queue was given; the thread that deals writes them. */
  readonly granted: Float64Array<SharedArrayBuffer>;
  /** The tokens that each queue has used; its own thread writes them. */
  readonly used: Float64Array<SharedArrayBuffer>;
  readonly #own: Float64Array<SharedArrayBuffer>;

  constructor(memory: SharedArrayBuffer, at: number, queues: number) {
    this.#own = new Float64Array(memory, at, FLOATS);
    this.granted = new Float64Array(memory, at + 8 * FLOATS, queues);
    this.used = new Float64Array(memory, at + 8 * (FLOATS + queues), queues);
  }

  static bytes(queues: number): number {
    return 8 * (FLOATS + 2 * queues);
  }

  get isOn(): boolean {
    return this.#own[RATE] > 0;
  }

  set(limit: Limit | undefined): void {
    this.#own[RATE] = (limit?.perSecond ?? 0) / 1e6;
    this.#own[BURST] = limit?.burst ?? 0;
    this.#own[LEFT] = 0;
    if (limit === undefined) this.granted.fill(Infinity);
    else this.granted.set(this.used);
  }

  /** How many tokens a queue takes: all queues together take half of a burst in advance. */
  room(queue: number): number {
    const { granted, used } = this;
    const ahead = Math.max(this.#own[BURST] / (2 * granted.length), 1);
    return ahead + used[queue] - granted[queue];
  }

  /**
   * Deals out what has come in `passed` microseconds.
   *
   * @returns How long it takes until `queue` has tokens, in microseconds.
   */
  deal(passed: number, active: Int32Array, queue: number): number {
    const own = this.#own, { granted, used } = this;
    let left = own[LEFT] + passed * own[RATE];
    let takers = 0, isAnyFull = true;
    // What some have no room for is for the others.
    while (left > 0 && isAnyFull) {
      takers = 0;
      for (let i = 0; i < active.length; i++) if (active[i] !== 0 && this.room(i) > 0) takers++;
      const share = left / takers;
      isAnyFull = false;
      for (let i = 0; i < active.length; i++) {
        if (active[i] === 0) continue;
        const room = this.room(i);
        if (room <= 0) continue;
        if (room <= share) isAnyFull = true;
        const given = Math.min(room, share);
        granted[i] += given;
        left -= given;
      }
    }
    let most = own[BURST];
    for (let i = 0; i < granted.length; i++) most -= Math.max(granted[i] - used[i], 0);
    own[LEFT] = Math.max(Math.min(left, most), 0);
    const missing = used[queue] - granted[queue];
    return missing < 0 ? 0 : Math.ceil(missing * Math.max(takers, 1) / own[RATE]) + 1;
  }
}

/** The buckets of a disk, as a thread sees them. */
export class TokenPool {
  /** The memory: what another thread makes its own object from. */
  readonly memory: SharedArrayBuffer;
  readonly #clock: () => number;
  readonly #words: Int32Array<SharedArrayBuffer>;
  /** Queues that use up what they get. */
  readonly #active: Int32Array<SharedArrayBuffer>;
  /** How often each queue had to wait. */
  readonly #waits: Int32Array<SharedArrayBuffer>;
  readonly #requests: Bucket;
  readonly #bytes: Bucket;

  /**
   * Makes a pool for a number of queues, or opens a view of its memory.
   *
   * @param clock The time in microseconds, modulo 2^30.
   */
  constructor(queues: number, memory?: SharedArrayBuffer, clock = microseconds) {
    this.#clock = clock;
    const bucketBytes = Bucket.bytes(queues), rest = 2 * bucketBytes;
    this.memory = memory ?? new SharedArrayBuffer(rest + 4 * (WORDS + 2 * queues));
    this.#requests = new Bucket(this.memory, 0, queues);
    this.#bytes = new Bucket(this.memory, bucketBytes, queues);
    this.#words = new Int32Array(this.memory, rest, WORDS);
    this.#active = new Int32Array(this.memory, rest + 4 * WORDS, queues);
    this.#waits = new Int32Array(this.memory, rest + 4 * (WORDS + queues), queues);
  }

  /** Whether there is a limit. */
  get isOn(): boolean {
    return this.#requests.isOn || this.#bytes.isOn;
  }

  /** How often queues had to wait. */
  get waits(): number {
    return this.#waits.reduce((sum, waits) => sum + (waits >>> 0), 0);
  }

  /**
   * Puts limits in force: tokens come from now on, and no queue owes any.
   *
   * @returns Whether it was done; not while a thread deals.
   */
  set({ iops, bandwidth }: Limits): boolean {
    if (!this.#lock()) return false;
    this.#requests.set(iops);
    this.#bytes.set(bandwidth);
    this.#active.fill(0);
    this.#words[DEALT_AT] = this.#clock();
    this.#unlock();
    return true;
  }

  /** Spends a queue's tokens for a request; returns whether it had any. */
  spend(queue: number, bytes: number): boolean {
    const requests = this.#requests, ofBytes = this.#bytes;
    if (
      requests.granted[queue] <= requests.used[queue] ||
      ofBytes.granted[queue] <= ofBytes.used[queue]
    ) return false;
    requests.used[queue]++;
    ofBytes.used[queue] += bytes;
    return true;
  }

  /**
   * Deals out the tokens that have come, after a queue had none.
   *
   * @returns How long the queue is to wait, in microseconds; 0 when it has tokens now.
   */
  deal(queue: number): number {
    let us = MIN_WAIT_US;
    // Where another thread is dealing, the queue looks again later.
    if (this.#lock()) {
      // With the lock: no thread comes with an earlier time than the last one's.
      const now = this.#clock();
      const passed = elapsed(this.#words[DEALT_AT], now);
      this.#words[DEALT_AT] = now;
      this.#active[queue] = 1;
      us = 0;
      if (this.#requests.isOn) us = this.#requests.deal(passed, this.#active, queue);
      if (this.#bytes.isOn) us = Math.max(us, this.#bytes.deal(passed, this.#active, queue));
      this.#retire();
      this.#unlock();
    }
    if (us === 0) return 0;
    this.#waits[queue]++;
    return Math.min(Math.max(us, MIN_WAIT_US), MAX_WAIT_US);
  }

  /** Leaves out the queues that have all they take, until they ask again. */
  #retire(): void {
    const active = this.#active;
    for (let i = 0; i < active.length; i++) {
      const isFull = (!this.#requests.isOn || this.#requests.room(i) <= 0) &&
        (!this.#bytes.isOn || this.#bytes.room(i) <= 0);
      if (isFull) active[i] = 0;
    }
  }

  /** No waiting: a thread that has the lock may have lost its processor. */
  #lock(): boolean {
    return Atomics.compareExchange(this.#words, LOCK, 0, 1) === 0;
  }

  #unlock(): void {
    Atomics.store(this.#words, LOCK, 0);
  }
}
