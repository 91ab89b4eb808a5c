/**
 * Delays the queues of a thread as the limits of a disk demand.
 *
 * @module
 */

import type { QueueHandle, Readiness, Watch } from "../../../mod.ts";
import {
  createTimer,
  drainEventfd,
  elapsed,
  type Fd,
  microseconds,
  setTimer,
} from "../../../src/linux/mod.ts";
import type { TokenPool } from "./token_pool.ts";

/** What a limiter is given. */
export interface LimiterHost {
  readonly pool: TokenPool;
  /** The queues of the thread. */
  readonly queues: readonly QueueHandle[];
  watch(fd: number, readiness: Readiness, callback: () => void): Watch;
}

/** The limiter of a thread. A queue without tokens leaves its requests in the ring. */
export class Limiter implements Disposable {
  readonly #host: LimiterHost;
  readonly #timer: Fd = createTimer();
  readonly #watch: Watch;
  /** The time from `#armedAt` on to which the timer is set; -1 when it is not. */
  #armedUs = -1;
  #armedAt = 0;

  /** @throws {LinuxError} When there is no descriptor for its timer. */
  constructor(host: LimiterHost) {
    this.#host = host;
    this.#watch = host.watch(this.#timer.number, "readable", () => {
      drainEventfd(this.#timer.number);
      this.resume();
    });
  }

  /** Whether a request may pass now; if not, its queue is resumed when it is to be asked again. */
  admits(queue: number, bytes: number): boolean {
    const { pool } = this.#host;
    if (pool.spend(queue, bytes)) return true;
    const us = pool.deal(queue);
    if (us === 0) return pool.spend(queue, bytes);
    const now = microseconds();
    if (this.#armedUs < 0 || this.#armedUs - elapsed(this.#armedAt, now) > us) {
      this.#armedUs = us;
      this.#armedAt = now;
      setTimer(this.#timer.number, us);
    }
    return false;
  }

  /** Resumes all queues. */
  resume(): void {
    this.#armedUs = -1;
    for (const queue of this.#host.queues) queue.resume();
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#timer.close();
  }
}
