/**
 * What reactors keep of the descriptors that they watch.
 *
 * @module
 */

import { EPOLLIN, EPOLLOUT } from "./epoll.ts";

/** What a descriptor is watched for. */
export type Readiness = "readable" | "writable";

/** The events of epoll and poll that a readiness stands for. Errors and hang-ups always come too. */
export const readinessEvents: Readonly<Record<Readiness, number>> = {
  readable: EPOLLIN,
  writable: EPOLLOUT,
};

/**
 * A watched descriptor. The callback is called for as long as the descriptor is ready, so it reads
 * or writes, or pauses the watch. Disposing ends the watch; then the descriptor may be closed.
 */
export interface Watch extends Disposable {
  /** Calls the callback no more until {@linkcode Watch.resume}. Makes no system call. */
  pause(): void;
  /** Ends a pause. The callback is called soon if the descriptor is ready. */
  resume(): void;
}

/** What a reactor does for its watches. */
export interface Watcher {
  /** Asks the kernel for the events of a watch. */
  arm(watch: Registration): void;
  /** Ends a watch. */
  remove(watch: Registration): void;
}

/** A watch of a reactor. */
export class Registration implements Watch {
  isActive = true;
  isPaused = false;
  /** The kernel was asked for its events. */
  isArmed = false;
  readonly #watcher: Watcher;

  constructor(
    watcher: Watcher,
    readonly key: number,
    readonly fd: number,
    readonly events: number,
    readonly callback: () => void,
  ) {
    this.#watcher = watcher;
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
    if (this.isActive && !this.isArmed) this.#watcher.arm(this);
  }

  [Symbol.dispose](): void {
    if (!this.isActive) return;
    this.isActive = false;
    this.#watcher.remove(this);
  }
}

/** Keys are positive and below this, small integers to V8. */
export const MAX_WATCH_KEY = 0x4000_0000;

/** The watches of a reactor, by key. */
export class Watches {
  readonly #byKey = new Map<number, Registration>();
  #key = 0;

  /** How many there are. */
  get size(): number {
    return this.#byKey.size;
  }

  /** Adds and arms one. Keys are not reused soon: an event of a removed watch finds no other. */
  add(watcher: Watcher, fd: number, events: number, callback: () => void): Registration {
    do this.#key = (this.#key + 1) % MAX_WATCH_KEY || 1; while (this.#byKey.has(this.#key));
    const watch = new Registration(watcher, this.#key, fd, events, callback);
    watcher.arm(watch);
    this.#byKey.set(watch.key, watch);
    return watch;
  }

  /** The watch that has a key, if it was not removed. */
  get(key: number): Registration | undefined {
    return this.#byKey.get(key);
  }

  /** Whether a descriptor is watched. */
  has(fd: number): boolean {
    return this.#byKey.values().some((watch) => watch.fd === fd);
  }

  /** Forgets one. */
  remove(watch: Registration): void {
    this.#byKey.delete(watch.key);
  }
}
