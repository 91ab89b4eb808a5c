/**
 * Connects to a front-end that listens.
 *
 * @module
 */

import {
  EndpointError,
  Errno,
  expectSocketPath,
  LinuxError,
  UnixConnection,
} from "../linux/mod.ts";

/** Pause after the first failure, in milliseconds. */
const FIRST_RETRY_MS = 20;

/** The longest pause between two attempts, in milliseconds. */
export const LAST_RETRY_MS = 1000;

/** A connection that ends sooner counts as a failure, in milliseconds. */
const LASTING_MS = 1000;

/** Reasons that pass with time, by errno; waiting does not help against others. */
const PASSING: Readonly<Record<number, string>> = {
  [Errno.ENOENT]: "there is no socket yet",
  [Errno.ECONNREFUSED]: "it has no listener yet",
  [Errno.EAGAIN]: "its backlog is full",
  [Errno.EACCES]: "no permission to connect",
};

/**
 * Pause after a number of failures in a row: doubled each time up to a limit, and shortened by a
 * random part of up to a half, so that many devices do not reconnect all at once.
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
 * Connects to a front-end that listens on a path, and again when it is gone. Retries with growing
 * pauses while nothing listens (see {@linkcode retryDelayMs}).
 */
export class Connector {
  /** The path to connect to. */
  readonly path: string;
  readonly #log: (message: string) => void;
  #stopped = false;
  #failures = 0;
  #connectedAt: number | undefined;
  /** Ends the pause between two attempts. */
  #wake: (() => void) | undefined;

  /**
   * @param path The path of the front-end's socket, which need not exist yet.
   * @param log Takes a message when it starts to wait and when it has connected.
   * @throws {EndpointError} When the path is not possible for a socket.
   */
  constructor(path: string, log: (message: string) => void) {
    expectSocketPath(path);
    this.path = path;
    this.#log = log;
  }

  /**
   * The next connection; undefined once {@linkcode Connector.stop} was called.
   *
   * @throws {EndpointError} When waiting will not help.
   */
  async next(): Promise<UnixConnection | undefined> {
    if (this.#connectedAt !== undefined) {
      // Pause for a front-end that closes each connection at once
      const isLasting = performance.now() - this.#connectedAt >= LASTING_MS;
      this.#failures = isLasting ? 0 : this.#failures + 1;
      if (!isLasting) await this.#pause();
    }
    for (let hasSaid = false; !this.#stopped;) {
      try {
        const connection = UnixConnection.connect(this.path);
        this.#connectedAt = performance.now();
        this.#log(`Connected to the front-end on ${this.path}`);
        return connection;
      } catch (error) {
        const reason = whyNot(this.path, error);
        if (!hasSaid) this.#log(`Waits for a front-end on ${this.path}: ${reason}`);
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

  /** The same as {@linkcode Connector.stop}. */
  [Symbol.dispose](): void {
    this.stop();
  }
}

/** The reason for a failed attempt; throws if waiting does not help. */
function whyNot(path: string, error: unknown): string {
  if (!(error instanceof LinuxError)) throw error;
  const reason = PASSING[error.errno];
  if (reason !== undefined) return reason;
  throw new EndpointError(`Cannot connect to ${path}: ${error.message}`, { cause: error });
}
