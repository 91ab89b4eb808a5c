/**
 * A thread's one wait, by io_uring: descriptors that become ready and
 * operations that complete arrive together, and what is to be submitted goes
 * with the same system call.
 *
 * @module
 */

import { Epoll, EPOLLET, EPOLLIN } from "./epoll.ts";
import { createEventfd, drainEventfd, signalEventfd } from "./eventfd.ts";
import type { Fd } from "../fd.ts";
import { IORING_CQE_F_MORE, IoUring } from "./io_uring.ts";
import type { ThreadReactor } from "./reactor.ts";
import {
  type Readiness,
  readinessEvents,
  type Registration,
  type Watch,
  type Watcher,
  Watches,
} from "./watch.ts";

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

/** Waits by io_uring; for a thread of its own. */
export class UringReactor implements ThreadReactor, ThreadIo, Watcher {
  readonly ring: IoUring = new IoUring({ entries: ENTRIES });
  readonly #watches = new Watches();
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
      this.#prepare();
      // Of those that are not in flight it knows none. Key 0 is no watch's.
      this.ring.cancel(operation + OPERATION, 0);
    }
  }

  watch(fd: number, readiness: Readiness, callback: () => void): Watch {
    return this.#watches.add(this, fd, readinessEvents[readiness], callback);
  }

  watchSignals(fd: number, callback: () => void): Disposable {
    return this.#watches.add(this, fd, EPOLLIN | EPOLLET, callback);
  }

  /** @internal */
  arm(watch: Registration): void {
    this.#prepare();
    watch.isArmed = true;
    // Multishot, a poll reports each signal, although the counter stays.
    const isMultishot = (watch.events & EPOLLET) !== 0;
    this.ring.poll(watch.fd, watch.events & ~EPOLLET, watch.key, isMultishot);
  }

  /** @internal */
  remove(watch: Registration): void {
    this.#watches.remove(watch);
    if (!watch.isArmed) return;
    this.#prepare();
    this.ring.pollRemove(watch.key, 0);
  }

  /** Makes room for an operation. Prepared by a promise or a timer, it has to be submitted too. */
  #prepare(): void {
    while (this.ring.room === 0) this.ring.enter(false);
    if (this.#isWaiting) this.#wakeUp();
  }

  #notice(key: number, result: number, flags: number): void {
    const watch = this.#watches.get(key);
    if (watch === undefined) return;
    // A poll that fires once is armed again after the callback, and fires at once if the
    // descriptor is still ready. The kernel may also end a multishot one.
    if ((flags & IORING_CQE_F_MORE) === 0) watch.isArmed = false;
    if (watch.isPaused) return;
    watch.callback();
    if (watch.isActive && !watch.isPaused && !watch.isArmed && result >= 0) this.arm(watch);
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
    this.watch(number, "readable", () => drainEventfd(number));
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
