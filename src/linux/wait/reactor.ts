/**
 * One wait per thread: callbacks for file descriptors that become ready.
 *
 * @module
 */

import { Epoll, EPOLLET, EPOLLIN } from "./epoll.ts";
import { createEventfd, drainEventfd, signalEventfd } from "./eventfd.ts";
import { duplicateFd, type Fd } from "../fd.ts";
import {
  type Readiness,
  readinessEvents,
  type Registration,
  type Watch,
  type Watcher,
  Watches,
} from "./watch.ts";

/** Calls of {@linkcode Reactor.glance} per system call. */
const GLANCES_PER_LOOK = 256;

/** The key of the reactor's own eventfd; no watch has it. */
const WAKE_KEY = 0;

/** The one wait of a queue thread, by epoll or io_uring. */
export interface ThreadReactor extends Disposable {
  /**
   * Calls `callback` whenever `fd` is ready, until the watch is disposed of. The
   * descriptor stays the caller's and must stay open so long.
   */
  watch(fd: number, readiness: Readiness, callback: () => void): Watch;
  /**
   * Calls `callback` each time an eventfd is signalled, until the watch is
   * disposed of. The eventfd need not be read.
   */
  watchSignals(fd: number, callback: () => void): Disposable;
  /** Calls `callback` once after the current batch of events. */
  defer(callback: () => void): void;
  /** Waits once, blocking this thread, and runs the callbacks of ready watches. */
  turn(): void;
  /** Runs the callbacks of ready watches without waiting. Cheap, for polling: epoll looks rarely. */
  glance(): void;
  /**
   * Waits once, without blocking the event loop, and runs the callbacks of ready watches. If
   * something is ready already, the event loop may not get a turn.
   */
  turnAsync(): Promise<void>;
}

/**
 * Waits by epoll.
 *
 * The main thread's reactor never blocks the event loop and runs while
 * something is watched. A queue thread drives one by itself with
 * {@linkcode Reactor.turn}.
 */
export class Reactor implements ThreadReactor, Watcher {
  readonly #epoll = new Epoll();
  readonly #wake = createEventfd();
  readonly #watches = new Watches();
  /** A second descriptor of a file that is watched twice: epoll takes each number once. */
  readonly #seconds = new Map<Registration, Fd>();
  #loop: Promise<void> | undefined;
  #deferred: (() => void)[] = [];
  #glances = 0;

  /** Creates a reactor; nothing runs yet. */
  constructor() {
    this.#epoll.add(this.#wake.number, EPOLLIN, WAKE_KEY);
  }

  watch(fd: number, readiness: Readiness, callback: () => void): Watch {
    return this.#watch(fd, readinessEvents[readiness], callback);
  }

  watchSignals(fd: number, callback: () => void): Disposable {
    // Edge-triggered, each signal is an event although the counter stays.
    return this.#watch(fd, EPOLLIN | EPOLLET, callback);
  }

  #watch(fd: number, events: number, callback: () => void): Watch {
    if (!this.#watches.has(fd)) return this.#watches.add(this, fd, events, callback);
    const second = duplicateFd(fd);
    const watch = this.#watches.add(this, second.number, events, callback);
    this.#seconds.set(watch, second);
    return watch;
  }

  /** @internal */
  arm(watch: Registration): void {
    this.#epoll.add(watch.fd, watch.events, watch.key);
    watch.isArmed = true;
  }

  #disarm(watch: Registration): void {
    if (watch.isArmed) this.#epoll.remove(watch.fd);
    watch.isArmed = false;
  }

  /** @internal */
  remove(watch: Registration): void {
    this.#disarm(watch);
    this.#watches.remove(watch);
    this.#seconds.get(watch)?.close();
    this.#seconds.delete(watch);
    if (this.#watches.size === 0) signalEventfd(this.#wake.number);
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback);
    signalEventfd(this.#wake.number);
  }

  turn(): void {
    this.#dispatch(this.#epoll.wait(-1));
  }

  glance(): void {
    // A look is a system call here, so most are left out.
    if (++this.#glances % GLANCES_PER_LOOK === 0) this.#dispatch(this.#epoll.wait(0));
  }

  async turnAsync(): Promise<void> {
    this.#dispatch(await this.#epoll.waitAsync(-1));
  }

  /** Runs while something is watched, without blocking the event loop. */
  run(): Promise<void> {
    if (this.#watches.size === 0) return this.#loop ?? Promise.resolve();
    return this.#loop ??= this.#run();
  }

  async #run(): Promise<void> {
    try {
      while (this.#watches.size > 0) await this.turnAsync();
    } finally {
      this.#loop = undefined;
    }
  }

  #dispatch(count: number): void {
    for (let i = 0; i < count; i++) {
      const key = this.#epoll.key(i);
      if (key === WAKE_KEY) {
        drainEventfd(this.#wake.number);
        continue;
      }
      const watch = this.#watches.get(key);
      if (watch === undefined) continue;
      if (watch.isPaused) this.#disarm(watch);
      else watch.callback();
    }
    const deferred = this.#deferred;
    if (deferred.length === 0) return;
    this.#deferred = [];
    for (const callback of deferred) callback();
  }

  /** Closes the reactor's own descriptors; nothing may be watched any more. */
  [Symbol.dispose](): void {
    this.#epoll[Symbol.dispose]();
    this.#wake.close();
  }
}

let shared: Reactor | undefined;

function ownReactor(): Reactor {
  return shared ??= new Reactor();
}

/**
 * Watches a descriptor on this thread's own event loop: calls `callback` whenever `fd` is ready,
 * until the watch is disposed of. The descriptor stays the caller's and must stay open so long.
 * The process stays alive while anything is watched.
 */
export function watch(fd: number, readiness: Readiness, callback: () => void): Watch {
  const result = ownReactor().watch(fd, readiness, callback);
  void ownReactor().run();
  return result;
}

/** As {@linkcode watch}, for an eventfd that is never read: each signal calls `callback`. */
export function watchSignals(fd: number, callback: () => void): Disposable {
  const result = ownReactor().watchSignals(fd, callback);
  void ownReactor().run();
  return result;
}

/** Resolves when nothing is watched on this thread's event loop any more. */
export async function watchesEnded(): Promise<void> {
  await shared?.run();
}

/** Resolves when `fd` is ready. */
export function ready(fd: number, readiness: Readiness = "readable"): Promise<void> {
  return new Promise((resolve) => {
    const once = watch(fd, readiness, () => {
      once[Symbol.dispose]();
      resolve();
    });
  });
}
