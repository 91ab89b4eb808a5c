/**
 * Readiness of many file descriptors in one wait.
 *
 * @module
 */

import { check, Errno, LinuxError } from "../errors.ts";
import { Fd } from "../fd.ts";
import { errno, libc, pinnedBuffer } from "../libc.ts";

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;

/** Readable. */
export const EPOLLIN = 0x1;
/** Writable. */
export const EPOLLOUT = 0x4;
/** Report an event once, not for as long as it is ready. */
export const EPOLLET = 0x8000_0000;

const MAX_EVENTS = 64;
// struct epoll_event is packed on x86-64 and aligned elsewhere (epoll_ctl(2)).
const PACKED = Deno.build.arch === "x86_64";
const EVENT_WORDS = PACKED ? 3 : 4;
const DATA_WORD = PACKED ? 1 : 2;

/** An epoll instance. Each descriptor is added with a 32-bit key, which its events have. */
export class Epoll implements Disposable {
  #fd: Fd;
  #change = new Uint32Array(pinnedBuffer(16), 0, EVENT_WORDS);
  #events = new Uint32Array(pinnedBuffer(MAX_EVENTS * EVENT_WORDS * 4));
  #eventsAt = Deno.UnsafePointer.of(this.#events);

  /** Creates an instance. */
  constructor() {
    this.#fd = new Fd(check(libc.epoll_create1(EPOLL_CLOEXEC), "epoll_create1"));
  }

  /** Watches a descriptor for `events` (a mask of `EPOLLIN` and so on). */
  add(fd: number, events: number, key: number): void {
    this.#change[0] = events;
    this.#change[DATA_WORD] = key;
    check(libc.epoll_ctl(this.#fd.number, EPOLL_CTL_ADD, fd, this.#change), "epoll_ctl");
  }

  /** Ends the watch of a descriptor. */
  remove(fd: number): void {
    libc.epoll_ctl(this.#fd.number, EPOLL_CTL_DEL, fd, this.#change);
  }

  /**
   * Blocks this thread until something is ready.
   *
   * @param timeoutMs The longest wait; -1 for ever.
   * @returns How many events {@linkcode Epoll.key} and {@linkcode Epoll.events} hold.
   */
  wait(timeoutMs: number): number {
    const count = libc.epoll_wait(this.#fd.number, this.#eventsAt, MAX_EVENTS, timeoutMs);
    if (count >= 0) return count;
    const code = errno();
    if (code === Errno.EINTR) return 0;
    throw new LinuxError("epoll_wait", code);
  }

  /** Waits as {@linkcode Epoll.wait} does, while this thread's event loop runs. */
  async waitAsync(timeoutMs: number): Promise<number> {
    const { number } = this.#fd;
    // errno is the other thread's: an error shows in the next wait.
    return Math.max(0, await libc.epoll_wait_async(number, this.#eventsAt, MAX_EVENTS, timeoutMs));
  }

  /** The key of event `i` of the last wait. */
  key(i: number): number {
    return this.#events[i * EVENT_WORDS + DATA_WORD];
  }

  /** The mask of event `i` of the last wait. */
  events(i: number): number {
    return this.#events[i * EVENT_WORDS];
  }

  /** Closes the instance. */
  [Symbol.dispose](): void {
    this.#fd.close();
  }
}
