/**
 * The contract of a store in TypeScript.
 *
 * @module
 */

import type { DeviceNotice, Options, OptionValues, Readiness, Watch } from "../../../mod.ts";
import type { ThreadIo } from "../../../src/linux/mod.ts";
import type { StoreRequest } from "../store.ts";

/**
 * What became of a request: nothing or 0 when it is done, an errno when it failed, `LATER` when
 * {@linkcode StoreContext.done} will tell, or a promise of one of the first two. A store that does
 * not answer at once answers always by promises or always by `done`. An error that it throws, or
 * rejects a promise with, is EIO for the guest, and printed.
 */
export type StoreAnswer = number | void | Promise<number | void>;

/** A store that was opened. */
export interface StoreFacts {
  /** Its size in bytes: a multiple of the block size. */
  readonly bytes: number;
  /**
   * The size of its blocks in bytes, a power of 2: requests of a driver are multiples of it.
   *
   * @default {512}
   */
  readonly blockBytes?: number;
  /** What {@linkcode StoreContext.shared} is: it is copied to the queue thread (structured clone). */
  readonly shared?: unknown;
  /** Sets its size; no request lies behind the new end. Without it, the size stays. */
  resize?(bytes: number): void;
  /** Returns what it adds to the record: JSON. */
  report?(): Record<string, unknown>;
  /** Ends, after the queue thread. */
  close?(): void;
}

/** What a store has on the queue thread. */
export interface StoreContext<O extends Options = Options> {
  /** The values of the store's options. */
  readonly options: OptionValues<O>;
  /** What `open` returned as `shared`. */
  readonly shared: unknown;
  /** Guest memory: indexes of parts are indexes into `u8`, and offsets from the address `base`. */
  readonly memory: { readonly u8: Uint8Array<ArrayBuffer>; readonly base: number };
  /** The thread's io_uring, where it has one. */
  readonly io: ThreadIo | undefined;
  /** A request that was answered with `LATER` is done (0), or failed (an errno). */
  done(request: StoreRequest, result: number): void;
  /** Publishes what was done; once after several calls of `done`. */
  flush(): void;
  /** Calls `callback` whenever a descriptor is ready, until the watch is disposed of. */
  watch(fd: number, readiness: Readiness, callback: () => void): Watch;
  /** Runs the thread's event loop, and so timers and Deno's own I/O, while a promise is pending. */
  keep<T>(promise: Promise<T>): Promise<T>;
  /** Prints a fault: the first of each kind is a line, further ones are counted. */
  notice(notice: DeviceNotice): void;
}

/** A store: see {@linkcode defineStore}. */
export interface StoreDefinition<O extends Options = Options, S = StoreContext<O>> {
  /** Options that `--store-options=NAME=VALUE,…` sets. */
  readonly options?: O;
  /**
   * Opens it, on the main thread. An error is shown to the person who runs the device.
   *
   * @param log Prints a line for that person.
   */
  open(
    options: OptionValues<O>,
    log: (message: string) => void,
  ): StoreFacts | Promise<StoreFacts>;
  /**
   * Makes its state on the queue thread, which the functions below get. All queues of the disk run
   * on this one thread.
   *
   * @default {the context itself}
   */
  attach?(context: StoreContext<O>): S | Promise<S>;
  /** Fills `bytes` bytes of guest memory, in place from `dataOffset` of `data` on. */
  read(request: StoreRequest, state: S): StoreAnswer;
  /** Stores them. Without this function the disk is read-only. */
  write?(request: StoreRequest, state: S): StoreAnswer;
  /**
   * Makes everything durable whose write was answered before. Without this function nothing is
   * durable, flushes do nothing, and the guest cannot choose between write-back and write-through.
   */
  flush?(request: StoreRequest, state: S): StoreAnswer;
  /** Forgets a range: reads return anything afterwards. Without it, the guest does not discard. */
  discard?(request: StoreRequest, state: S): StoreAnswer;
  /**
   * Makes a range read as zeroes; with `unmap` its space may be given back. Without it, the guest
   * writes zeroes.
   */
  writeZeroes?(request: StoreRequest, unmap: boolean, state: S): StoreAnswer;
  /** All requests of a batch were made: starts the collected ones. */
  submit?(state: S): void;
  /** The queue thread ends; nothing is in flight. */
  close?(state: S): void;
}

/**
 * Defines a store, the default export of a module that `vhostd blk FILE.ts` takes. What the disk can
 * do follows from which functions there are.
 *
 * @throws {TypeError} When there is no `open` or `read`.
 *
 * @example A disk whose sectors are computed: each holds its own number, as a little-endian u32
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { defineStore } from "@vhostd/vhostd/store";
 *
 * const numbers = defineStore({
 *   open: () => ({ bytes: 2 ** 30 }),
 *   read({ data, dataOffset, offset, bytes }) {
 *     data.fill(0, dataOffset, dataOffset + bytes);
 *     for (let at = 0; at < bytes; at += 512) {
 *       data.setU32(dataOffset + at, (offset + at) / 512);
 *     }
 *   },
 * });
 * assertEquals(numbers.write, undefined); // it is read-only
 * ```
 */
export function defineStore<
  // deno-lint-ignore ban-types
  const O extends Options = {},
  S = StoreContext<O>,
>(definition: StoreDefinition<O, S>): StoreDefinition<O, S> {
  for (const name of ["open", "read"] as const) {
    if (typeof definition[name] !== "function") {
      throw new TypeError(`Expected a store with a function ${name}()`);
    }
  }
  return Object.freeze(definition);
}
