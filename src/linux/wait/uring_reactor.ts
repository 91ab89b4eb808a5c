/**
 * A thread's one wait, by io_uring: descriptors that become ready and
 * operations that complete arrive together, and what is to be submitted goes
 * with the same system call.
 *
 * @module
 */

import { elapsed, microseconds } from "../clock.ts";
import { Epoll, EPOLLET, EPOLLIN } from "./epoll.ts";
import { createEventfd, drainEventfd, signalEventfd } from "./eventfd.ts";
import type { Fd } from "../fd.ts";
import { IORING_CQE_F_MORE, IoUring } from "./io_uring.ts";
import type { ThreadReactor } from "./reactor.ts";
import {
  MAX_WATCH_KEY,
  type Readiness,
  readinessEvents,
  type Registration,
  type Watch,
  type Watcher,
  Watches,
} from "./watch.ts";

/** How many operations can be prepared between two waits; more are submitted on the way. */
const ENTRIES = 256;

/** Pause between turns of the event loop while something is always ready, in microseconds. */
const LOOP_PERIOD_US = 2_000;

/** Data of operations without a waiter: no watch has this key. */
const NOBODY = 0;

/** Data of operations has this bit, then 14 bits for the user; that of watches is below. */
const OPERATION = MAX_WATCH_KEY;
const USER_SHIFT = 16, MAX_USERS = 1 << 14, OPERATION_MASK = 0xffff;

/** io_uring of a queue thread, as a device uses it. */
export interface ThreadIo {
  /** Where operations are prepared. They are submitted with the thread's next wait. */
  readonly ring: IoUring;
  /** Adds a user of the ring; it stays as long as the thread. */
  serve(callbacks: IoCallbacks): IoUser;
}

/** What a user of a thread's io_uring is told. */
export interface IoCallbacks {
  /**
   * Called for each completion.
   *
   * @param operation The number that the user gave the operation
   * @param result A negative error number when it failed
   * @param flags As {@linkcode IORING_CQE_F_MORE}
   */
  completed(operation: number, result: number, flags: number): void;
  /** Called after the completions that came together. */
  batchEnded?(): void;
}

/** A user of a thread's io_uring, which numbers its operations from 0 to 65,535. */
export interface IoUser {
  /** The data to prepare an operation with, which gives it its number. */
  data(operation: number): number;
  /** Asks the kernel to give up an operation. It completes anyway, with ECANCELED if it was given up. */
  cancel(operation: number): void;
}

class User implements IoUser {
  hasCompletions = false;
  /** The largest number of an operation that there was. */
  #last = -1;
  readonly #reactor: UringReactor;
  readonly #base: number;
  readonly callbacks: IoCallbacks;

  constructor(reactor: UringReactor, index: number, callbacks: IoCallbacks) {
    this.#reactor = reactor;
    this.#base = OPERATION + (index << USER_SHIFT);
    this.callbacks = callbacks;
  }

  data(operation: number): number {
    if (operation > this.#last) this.#last = operation;
    // Prepared by a promise or a timer of the device, it has to be submitted too.
    this.#reactor.wakeUp();
    return this.#base + operation;
  }

  cancel(operation: number): void {
    // Where it is not in flight, the kernel finds none.
    this.#reactor.cancel(this.#base + operation);
  }

  cancelAll(): void {
    for (let operation = 0; operation <= this.#last; operation++) this.cancel(operation);
  }
}

/** Waits by io_uring; for a thread of its own. */
export class UringReactor implements ThreadReactor, ThreadIo, Watcher {
  readonly ring: IoUring = new IoUring(ENTRIES);
  readonly #watches = new Watches();
  #deferred: (() => void)[] = [];
  #epoll: Epoll | undefined;
  /** Ends a wait that leaves the event loop its turn. */
  #wake: Fd | undefined;
  #isWaiting = false;
  /** When the event loop had its turn last, in microseconds. */
  #loopTurned = 0;
  readonly #users: User[] = [];
  readonly #complete = (data: number, result: number, flags: number): void => {
    if (data < OPERATION) return this.#notice(data, result, flags);
    const user = this.#users[(data - OPERATION) >>> USER_SHIFT];
    user.hasCompletions = true;
    user.callbacks.completed(data & OPERATION_MASK, result, flags);
  };

  serve(callbacks: IoCallbacks): IoUser {
    if (this.#users.length === MAX_USERS) {
      throw new RangeError(`Expected at most ${MAX_USERS} users of io_uring, got one more`);
    }
    const user = new User(this, this.#users.length, callbacks);
    this.#users.push(user);
    return user;
  }

  /**
   * Ends a wait that was begun before an operation was prepared, so that it is submitted.
   *
   * @internal
   */
  wakeUp(): void {
    if (this.#isWaiting) signalEventfd(this.#wake!.number);
  }

  /** @internal */
  cancel(data: number): void {
    this.#prepare();
    this.ring.cancel(data, NOBODY);
  }

  /** Asks the kernel to give up every operation of the users; they complete, most of them with ECANCELED. */
  cancelOperations(): void {
    for (const user of this.#users) user.cancelAll();
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
    this.ring.pollRemove(watch.key, NOBODY);
  }

  /** Makes room for an operation, and has it submitted. */
  #prepare(): void {
    while (this.ring.room === 0) this.ring.enter(false);
    this.wakeUp();
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
    this.wakeUp();
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
    const isReady = this.ring.hasCompletions || this.#deferred.length > 0;
    if (!isReady || elapsed(this.#loopTurned, microseconds()) >= LOOP_PERIOD_US) {
      this.#isWaiting = true;
      try {
        await this.#epoll.waitAsync(isReady ? 0 : -1);
      } finally {
        this.#isWaiting = false;
      }
      this.#loopTurned = microseconds();
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
    for (let i = 0; i < this.#users.length; i++) {
      const user = this.#users[i];
      if (!user.hasCompletions) continue;
      user.hasCompletions = false;
      user.callbacks.batchEnded?.();
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
