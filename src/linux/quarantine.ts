/**
 * Calls that other processes can hold up.
 *
 * The sender of a descriptor decides how long calls on it take. `close` waits for a
 * FUSE server to answer FLUSH, and for a socket with SO_LINGER to send what it
 * holds; sealing a memory file waits until no process writes to it; receiving a message
 * without room for its descriptors, or closing a socket that holds such messages, may close
 * the last descriptor of a file. Such calls are made on Deno's own threads, with a time limit.
 *
 * @module
 */

import { isEventfd } from "./wait/eventfd.ts";
import type { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { canBeSealed, knowsSeals, sealForeign } from "./file/memory_file.ts";
import { readLink } from "./file/path.ts";

/**
 * Time limit of such a call, in milliseconds. An ending process may have to wait for some of them.
 * The limit is longer on a machine so busy that even a call that nothing blocks has not ended.
 */
const FOREIGN_CALL_MS = 1000;

/** The most calls of a quarantine that run at a time, beside those that are stuck. */
const MAX_CALLS = 2;

/**
 * The most calls that may be stuck: with so many, no new connection is taken. Each occupies one of
 * the 32 threads that Deno has for blocking calls.
 */
export const MAX_STUCK = 8;

/** The longest name of a descriptor in messages, in characters. */
const MAX_NAME_CHARACTERS = 80;

/** A call that did not end in time. It continues, but is no longer waited for. */
export class StuckError extends Error {
  override name = "StuckError";
}

/** A call that waits for a thread, or runs. */
interface Call {
  what: string;
  start(): void;
  isStarted: boolean;
  isStuck: boolean;
}

/** The calls that the front-ends of one device can hold up. */
export class Quarantine {
  readonly #calls = new Set<Call>();
  /** Resolves at the end of the next call. */
  #end: PromiseWithResolvers<void> | undefined;

  /** What each stuck call does, for people. */
  get stuck(): string[] {
    return [...this.#calls].filter(({ isStuck }) => isStuck).map(({ what }) => what);
  }

  /** Whether the most calls are stuck that may be. */
  get isFull(): boolean {
    return this.stuck.length >= MAX_STUCK;
  }

  /** Resolves when it is not full. */
  async room(): Promise<void> {
    while (this.isFull) await this.#oneEnded();
  }

  /** Resolves when no call runs or waits for a thread. */
  async ended(): Promise<void> {
    while (this.#calls.size > 0) await this.#oneEnded();
  }

  #oneEnded(): Promise<void> {
    return (this.#end ??= Promise.withResolvers()).promise;
  }

  /**
   * Makes a call on another thread.
   *
   * @param what What it does, for people, as in "closing a socket"
   * @param make Makes the call, which has to be a nonblocking one
   * @param onLate Called with the result when it comes too late to be returned
   * @throws {StuckError} When it takes longer than {@linkcode FOREIGN_CALL_MS}.
   */
  async call<T>(what: string, make: () => Promise<T>, onLate?: (result: T) => void): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const call: Call = {
      what,
      isStarted: false,
      isStuck: false,
      start: () => {
        call.isStarted = true;
        make().then((result) => call.isStuck ? onLate?.(result) : resolve(result))
          .catch(reject)
          .finally(() => this.#leave(call));
      },
    };
    this.#calls.add(call);
    const late = async () => {
      await libc.close_async(-1);
      if (!this.#calls.has(call)) return;
      call.isStuck = true;
      reject(
        new StuckError(
          `Expected ${what} to take less than ${
            FOREIGN_CALL_MS / 1000
          } s, still waiting: others hold it up (${this.stuck.length} such, at most ${MAX_STUCK})`,
        ),
      );
      this.#startNext();
    };
    const timer = setTimeout(late, FOREIGN_CALL_MS);
    this.#startNext();
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  #startNext(): void {
    let threads = 0;
    let active = 0;
    for (const call of this.#calls) {
      if (!call.isStarted) {
        if (active >= MAX_CALLS || threads >= MAX_CALLS + MAX_STUCK) return;
        call.start();
      }
      threads++;
      if (!call.isStuck) active++;
    }
  }

  #leave(call: Call): void {
    this.#calls.delete(call);
    this.#startNext();
    this.#end?.resolve();
    this.#end = undefined;
  }

  /**
   * Closes descriptors of other processes: at once where that cannot wait, else on
   * another thread. They are not the caller's any more.
   *
   * @throws {StuckError} When one takes too long; its closing continues.
   */
  async letGo(fds: readonly Fd[]): Promise<void> {
    let closing: Promise<unknown>[] | undefined;
    for (const fd of fds) {
      if (!fd.isOpen) continue;
      if (isHarmless(fd.number)) fd.close();
      else (closing ??= []).push(this.#close(fd));
    }
    if (closing === undefined) return;
    const ends = await Promise.allSettled(closing);
    const failed = ends.find((end) => end.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  #close(fd: Fd): Promise<number> {
    const name = readLink(`/proc/self/fd/${fd.number}`).slice(0, MAX_NAME_CHARACTERS);
    const number = fd.release();
    return this.call(`closing ${name}`, () => libc.close_async(number));
  }
}

/** Whether closing a descriptor waits for no other process. Its file system is not asked. */
function isHarmless(fd: number): boolean {
  return isEventfd(fd) || knowsSeals(fd);
}

/**
 * Seals a memfd against becoming shorter, unless it is sealed already. Files of tmpfs, hugetlbfs
 * and disks cannot be sealed, and stay as they are. Linux waits until no process has the memfd
 * mapped for writing, which its owner can delay.
 *
 * @throws {StuckError} When it takes too long.
 */
export async function sealAgainstShrinking(fd: number, quarantine: Quarantine): Promise<void> {
  if (canBeSealed(fd)) await quarantine.call("sealing a memory file", () => sealForeign(fd));
}
