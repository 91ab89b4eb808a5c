/**
 * One wait per thread: callbacks for file descriptors that become ready.
 *
 * @module
 */

import { Epoll, EPOLLET, EPOLLIN } from "./epoll.ts";
import { createEventfd, drainEventfd, signalEventfd } from "./eventfd.ts";

/** A descriptor that a {@linkcode Reactor} watches; disposing ends it. */
export interface Watch extends Disposable {
  /** The mask that was ready when the callback was called. */
  readonly ready: number;
}

/** How many glances there are to a look. */
const GLANCES_PER_LOOK = 256;

/** The one wait of a queue thread, however it is done. */
export interface ThreadReactor extends Disposable {
  /** Calls `callback` whenever `fd` is ready, until the watch is disposed of. */
  watch(fd: number, callback: () => void, events?: number): Watch;
  /**
   * Calls `callback` each time an eventfd is signalled, until the watch is
   * disposed of. Nobody needs to read the eventfd.
   */
  watchSignals(fd: number, callback: () => void): Watch;
  /** Calls `callback` once after the current batch of events. */
  defer(callback: () => void): void;
  /** Waits once, blocking this thread, and calls what is ready. */
  turn(): void;
  /** Takes what is there without waiting, as often as it is cheap: for a thread that polls. */
  glance(): void;
  /** Waits once, without blocking the event loop, and calls what is ready. */
  turnAsync(): Promise<void>;
}

class Registration implements Watch {
  ready = 0;
  #reactor: Reactor;
  readonly fd: number;
  readonly key: number;
  readonly callback: () => void;
  active = true;

  constructor(reactor: Reactor, fd: number, key: number, callback: () => void) {
    this.#reactor = reactor;
    this.fd = fd;
    this.key = key;
    this.callback = callback;
  }

  [Symbol.dispose](): void {
    if (!this.active) return;
    this.active = false;
    this.#reactor.remove(this);
  }
}

/**
 * Waits for many descriptors at once and calls what was registered for them.
 *
 * The main thread's reactor never blocks the event loop and runs while
 * something is watched. A queue thread drives one by itself with
 * {@linkcode Reactor.turn}.
 */
export class Reactor implements ThreadReactor {
  #epoll = new Epoll();
  #wake = createEventfd();
  #watches = new Map<number, Registration>();
  #nextKey = 1;
  #loop: Promise<void> | undefined;
  #deferred: (() => void)[] = [];
  #glances = 0;

  /** Creates a reactor; nothing runs yet. */
  constructor() {
    this.#epoll.add(this.#wake.number, EPOLLIN, 0);
  }

  /** How many descriptors are watched. */
  get size(): number {
    return this.#watches.size;
  }

  /**
   * Calls `callback` whenever `fd` is ready, until the watch is disposed of.
   * The descriptor stays the caller's and must stay open so long.
   */
  watch(fd: number, callback: () => void, events: number = EPOLLIN): Watch {
    // Keys are never used twice while 2^32 watches last, so that an event that
    // is already in the batch cannot reach the successor of a removed watch.
    do this.#nextKey = (this.#nextKey + 1) >>> 0 || 1; while (
      this.#watches.has(this.#nextKey)
    );
    const watch = new Registration(this, fd, this.#nextKey, callback);
    this.#epoll.add(fd, events, watch.key);
    this.#watches.set(watch.key, watch);
    return watch;
  }

  watchSignals(fd: number, callback: () => void): Watch {
    // Edge-triggered, each signal is an event although the counter stays.
    return this.watch(fd, callback, EPOLLIN | EPOLLET);
  }

  /** Ends a watch. */
  remove(watch: Watch): void {
    const registration = watch as Registration;
    if (!this.#watches.delete(registration.key)) return;
    this.#epoll.remove(registration.fd);
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
    // Every look is a system call here, so most are left out.
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
      if (key === 0) {
        drainEventfd(this.#wake.number);
        continue;
      }
      const watch = this.#watches.get(key);
      if (watch === undefined) continue;
      watch.ready = this.#epoll.events(i);
      watch.callback();
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

/**
 * Watches a descriptor on this thread's own event loop. The process stays
 * alive while anything is watched.
 */
export function watch(
  fd: number,
  callback: () => void,
  events: number = EPOLLIN,
): Watch {
  shared ??= new Reactor();
  const result = shared.watch(fd, callback, events);
  void shared.run();
  return result;
}

/** As {@linkcode watch}, for an eventfd that nobody reads: each signal calls `callback`. */
export function watchSignals(fd: number, callback: () => void): Watch {
  return watch(fd, callback, EPOLLIN | EPOLLET);
}

/** Resolves when nothing is watched on this thread's event loop any more. */
export async function watchesEnded(): Promise<void> {
  await shared?.run();
}

/** Resolves when `fd` is ready for `events`. */
export function ready(fd: number, events: number = EPOLLIN): Promise<void> {
  return new Promise((resolve) => {
    const once = watch(fd, () => {
      once[Symbol.dispose]();
      resolve();
    }, events);
  });
}
