/**
 * A thread's one wait, by io_uring: descriptors that become ready and
 * operations that complete arrive together, and what is to be submitted goes
 * with the same system call.
 *
 * @module
 */

import { Epoll, EPOLLIN } from "./epoll.ts";
import { createEventfd, drainEventfd, signalEventfd } from "./eventfd.ts";
import type { Fd } from "../fd.ts";
import { IORING_CQE_F_MORE, IoUring } from "./io_uring.ts";
import type { ThreadReactor, Watch } from "./reactor.ts";

/** How many operations can be prepared between two waits; more are submitted on the way. */
const ENTRIES = 256;

/** Data of operations has this bit; that of watches does not. */
const OPERATION = 0x8000_0000;

/** io_uring of a queue thread, as a device uses it. */
export interface ThreadIo {
  /** Where operations are prepared. They are submitted with the thread's next wait. */
  readonly ring: IoUring;
  /**
   * Says who gets completions; there is one user per thread.
   *
   * @param completed Called with the number of an operation and its result (a
   * negative error number when it failed).
   * @param batchEnded Called after the completions that came together.
   */
  serve(completed: (operation: number, result: number) => void, batchEnded: () => void): void;
  /** The data of an operation that the user numbers `operation`, below 2^31. */
  data(operation: number): number;
}

class UringWatch implements Watch {
  ready = 0;
  isActive = true;
  readonly #reactor: UringReactor;

  constructor(
    reactor: UringReactor,
    readonly key: number,
    readonly fd: number,
    readonly events: number,
    readonly isMultishot: boolean,
    readonly callback: () => void,
  ) {
    this.#reactor = reactor;
  }

  [Symbol.dispose](): void {
    if (!this.isActive) return;
    this.isActive = false;
    this.#reactor.remove(this);
  }
}

/** Waits by io_uring; for a thread of its own. */
export class UringReactor implements ThreadReactor, ThreadIo {
  readonly ring: IoUring = new IoUring({ entries: ENTRIES });
  readonly #watches = new Map<number, UringWatch>();
  #nextKey = 0;
  #deferred: (() => void)[] = [];
  #epoll: Epoll | undefined;
  /** Ends a wait that leaves the event loop its turn. */
  #wake: Fd | undefined;
  #isWaiting = false;
  #completed: (operation: number, result: number) => void = () => {};
  #batchEnded: () => void = () => {};
  #operationsCompleted = false;
  /** The largest number of an operation that there was. */
  #lastOperation = -1;
  readonly #complete = (data: number, result: number, flags: number): void => {
    if (data >= OPERATION) {
      this.#operationsCompleted = true;
      this.#completed(data - OPERATION, result);
    } else {
      this.#notice(data, result, flags);
    }
  };

  serve(completed: (operation: number, result: number) => void, batchEnded: () => void): void {
    this.#completed = completed;
    this.#batchEnded = batchEnded;
  }

  data(operation: number): number {
    if (operation > this.#lastOperation) this.#lastOperation = operation;
    // Prepared by a promise or a timer of the device, it has to be submitted too.
    if (this.#isWaiting) this.#wakeUp();
    return operation + OPERATION;
  }

  #wakeUp(): void {
    signalEventfd(this.#wake!.number);
  }

  /** Asks the kernel to give up every operation of the user; they complete, most of them with ECANCELED. */
  cancelOperations(): void {
    for (let operation = 0; operation <= this.#lastOperation; operation++) {
      this.#makeRoom();
      // Of those that are not in flight it knows none. Key 0 is no watch's.
      this.ring.cancel(operation + OPERATION, 0);
    }
  }

  watch(fd: number, callback: () => void, events: number = EPOLLIN): Watch {
    return this.#watch(fd, callback, events, false);
  }

  watchSignals(fd: number, callback: () => void): Watch {
    return this.#watch(fd, callback, EPOLLIN, true);
  }

  #watch(fd: number, callback: () => void, events: number, isMultishot: boolean): Watch {
    do this.#nextKey = (this.#nextKey + 1) % OPERATION || 1; while (
      this.#watches.has(this.#nextKey)
    );
    const watch = new UringWatch(this, this.#nextKey, fd, events, isMultishot, callback);
    this.#watches.set(watch.key, watch);
    this.#poll(watch);
    return watch;
  }

  #poll(watch: UringWatch): void {
    this.#makeRoom();
    this.ring.poll(watch.fd, watch.events, watch.key, watch.isMultishot);
  }

  #makeRoom(): void {
    while (this.ring.room === 0) this.ring.enter(false);
  }

  /** Ends a watch. */
  remove(watch: UringWatch): void {
    this.#watches.delete(watch.key);
    this.#makeRoom();
    this.ring.pollRemove(watch.key, 0);
  }

  #notice(key: number, result: number, flags: number): void {
    const watch = this.#watches.get(key);
    if (watch === undefined) return;
    watch.ready = Math.max(result, 0);
    watch.callback();
    // A watch that fires once is set up again, which fires at once if the
    // descriptor is still ready; one that fires for ever may have been ended
    // by the kernel.
    if (watch.isActive && (flags & IORING_CQE_F_MORE) === 0 && result >= 0) this.#poll(watch);
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback);
    if (this.#isWaiting) this.#wakeUp();
  }

  turn(): void {
    this.ring.enter(this.#deferred.length === 0);
    this.#dispatch();
  }

  glance(): void {
    if (this.ring.isIdle && this.#deferred.length === 0) return;
    this.ring.enter(false);
    this.#dispatch();
  }

  async turnAsync(): Promise<void> {
    this.#epoll ??= this.#makeAsync();
    this.ring.enter(false);
    if (!this.ring.hasCompletions && this.#deferred.length === 0) {
      this.#isWaiting = true;
      try {
        await this.#epoll.waitAsync(-1);
      } finally {
        this.#isWaiting = false;
      }
    }
    this.#dispatch();
  }

  #makeAsync(): Epoll {
    const { number } = this.#wake = createEventfd();
    this.watch(number, () => drainEventfd(number));
    const epoll = new Epoll();
    epoll.add(this.ring.fd, EPOLLIN, 0);
    return epoll;
  }

  #dispatch(): void {
    this.ring.complete(this.#complete);
    if (this.#operationsCompleted) {
      this.#operationsCompleted = false;
      this.#batchEnded();
    }
    if (this.#deferred.length === 0) return;
    const deferred = this.#deferred;
    this.#deferred = [];
    for (const callback of deferred) callback();
  }

  [Symbol.dispose](): void {
    this.#epoll?.[Symbol.dispose]();
    this.#wake?.close();
    this.ring[Symbol.dispose]();
  }
}
