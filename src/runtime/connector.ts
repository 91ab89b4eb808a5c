/**
 * Connecting to front-ends: they listen, the device comes to them.
 *
 * @module
 */

import { Errno, LinuxError, UnixConnection } from "../linux/mod.ts";
import { EndpointError, expectSocketPath } from "./socket_path.ts";

/** How long after the first failure it is tried again, in milliseconds. */
export const FIRST_RETRY_MS = 20;

/** The longest time between two tries, in milliseconds. */
export const LAST_RETRY_MS = 1000;

/** A connection that does not last as long counts as a failure, in milliseconds. */
const LASTING_MS = 1000;

/** Why nobody is there yet; anything else will not change by waiting. */
const PASSING: Readonly<Record<number, string>> = {
  [Errno.ENOENT]: "there is no socket yet",
  [Errno.ECONNREFUSED]: "nobody listens there yet",
  [Errno.EAGAIN]: "it has more connections waiting than it takes",
  [Errno.EACCES]: "no permission to connect",
};

/**
 * How long to wait after so many failures in a row: twice as long each time up to a limit, less up
 * to a half, at random, so that many devices that lost their front-end do not come back all at
 * once.
 *
 * @param random At least 0 and below 1.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { retryDelayMs } from "./connector.ts";
 *
 * assertEquals([1, 2, 3, 9].map((failures) => retryDelayMs(failures, 0)), [20, 40, 80, 1000]);
 * ```
 */
export function retryDelayMs(failures: number, random: number): number {
  return Math.min(FIRST_RETRY_MS * 2 ** (failures - 1), LAST_RETRY_MS) * (1 - random / 2);
}

/**
 * Connects to a front-end that listens on a path, and again when it is gone. While nobody listens
 * it tries again, later and later (see {@linkcode retryDelayMs}).
 */
export class Connector {
  readonly #path: string;
  readonly #log: (message: string) => void;
  #stopped = false;
  #failures = 0;
  #connectedAt: number | undefined;
  /** Ends the pause between two tries. */
  #wake: (() => void) | undefined;

  /**
   * @param path The path of the front-end's socket; nothing needs to be there.
   * @param log Takes that it waits, once each time, and that it has connected.
   * @throws {EndpointError} When it cannot be the path of a socket.
   */
  constructor(path: string, log: (message: string) => void) {
    expectSocketPath(path);
    this.#path = path;
    this.#log = log;
  }

  /**
   * The next connection; undefined once {@linkcode Connector.stop} was called.
   *
   * @throws {EndpointError} When waiting will not help.
   */
  async next(): Promise<UnixConnection | undefined> {
    if (this.#connectedAt !== undefined) {
      // Who closes each connection at once is not asked without a pause.
      const isLasting = performance.now() - this.#connectedAt >= LASTING_MS;
      this.#failures = isLasting ? 0 : this.#failures + 1;
      if (!isLasting) await this.#pause();
    }
    for (let hasSaid = false; !this.#stopped;) {
      try {
        const connection = UnixConnection.connect(this.#path);
        this.#connectedAt = performance.now();
        this.#log(`Connected to the front-end on ${this.#path}`);
        return connection;
      } catch (error) {
        const reason = whyNot(this.#path, error);
        if (!hasSaid) this.#log(`Waits for a front-end on ${this.#path}: ${reason}`);
        hasSaid = true;
      }
      this.#failures++;
      await this.#pause();
    }
    return undefined;
  }

  #pause(): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, retryDelayMs(this.#failures, Math.random()));
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Makes the pending (or next) {@linkcode Connector.next} resolve to undefined. */
  stop(): void {
    this.#stopped = true;
    this.#wake?.();
  }

  /** Ends it. */
  [Symbol.dispose](): void {
    this.stop();
  }
}

/** Why there is no connection; throws what waiting does not help against. */
function whyNot(path: string, error: unknown): string {
  if (!(error instanceof LinuxError)) throw error;
  const reason = PASSING[error.errno];
  if (reason !== undefined) return reason;
  throw new EndpointError(`Cannot connect to ${path}: ${error.message}`, { cause: error });
}
