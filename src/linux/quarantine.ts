/**
 * Calls that others can make sleep.
 *
 * Who sends a descriptor decides how long calls on it take. `close` waits for a
 * FUSE server to answer FLUSH, and for a socket with SO_LINGER to send what it
 * holds; a memory file is sealed when nobody writes to it; a message whose
 * descriptors there is no room for, or a socket that holds such messages, lets
 * go of the last hold on them. No thread that others need makes such a call: it
 * is made on one of Deno's threads, and waited for so long and no longer.
 *
 * @module
 */

import { isEventfd } from "./wait/eventfd.ts";
import type { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { canBeSealed, knowsSeals, sealForeign } from "./file/memory_file.ts";
import { readLink } from "./file/path.ts";

/**
 * How long such a call is waited for, in milliseconds. What waits at the end of a
 * process has to fit into the time that it has for that.
 */
export const FOREIGN_CALL_MS = 1000;

/** How many calls of a quarantine are under way at a time, beside those that are stuck. */
const MAX_CALLS = 2;

/**
 * How many calls may be stuck before nobody new is let in, and how many threads
 * they have at the most. Deno has 32 for all that takes long in a process.
 */
export const MAX_STUCK = 8;

/** How much of what the kernel calls a descriptor is told, in characters. */
const MAX_NAME_CHARACTERS = 80;

/** A call that was not done in time; it is left to itself. */
export class StuckError extends Error {
  override name = "StuckError";
}

/** A call, from when it is asked for to its end. */
interface Call {
  what: string;
  start(): void;
  isStarted: boolean;
  isStuck: boolean;
}

/** What is held up by others, for those that share one fate: the front-ends of a device. */
export class Quarantine {
  readonly #calls = new Set<Call>();
  /** The end of a call that somebody waits for. */
  #end: PromiseWithResolvers<void> | undefined;

  /** What is stuck now: what was to be done, and with what. */
  get stuck(): string[] {
    return [...this.#calls].filter(({ isStuck }) => isStuck).map(({ what }) => what);
  }

  /** Whether so much is stuck that there should be no more of it. */
  get isFull(): boolean {
    return this.stuck.length >= MAX_STUCK;
  }

  /** Resolves when it is not full. */
  async room(): Promise<void> {
    while (this.isFull) await this.#oneEnded();
  }

  /** Resolves when no call is under way. */
  async ended(): Promise<void> {
    while (this.#calls.size > 0) await this.#oneEnded();
  }

  #oneEnded(): Promise<void> {
    return (this.#end ??= Promise.withResolvers()).promise;
  }

  /**
   * Makes a call on another thread.
   *
   * @param what What is done, for people, as in "closing a socket"
   * @param make Makes the call; it has to be a nonblocking one
   * @param onLate Takes the result when it comes too late to be returned
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
    const timer = setTimeout(() => {
      call.isStuck = true;
      reject(
        new StuckError(
          `Expected ${what} to take less than ${
            FOREIGN_CALL_MS / 1000
          } s, still waiting: others hold it up (${this.stuck.length} such, at most ${MAX_STUCK})`,
        ),
      );
      this.#startNext();
    }, FOREIGN_CALL_MS);
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
   * Closes descriptors that others made: at once where that cannot sleep, else
   * elsewhere. They are not the caller's any more.
   *
   * @throws {StuckError} When one takes too long; it stays open till it does not.
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

/** Whether closing a descriptor waits for nobody: what it is, its file system is not asked. */
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
