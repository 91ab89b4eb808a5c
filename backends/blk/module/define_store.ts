/**
 * The contract of a store in TypeScript.
 *
 * @module
 */

import {
  type DeviceNotice,
  expectNames,
  type Options,
  type OptionValues,
  type Readiness,
  type Watch,
} from "../../../mod.ts";
import type { ThreadIo } from "../../../src/linux/mod.ts";
import type { Lifetime } from "../lifetime.ts";
import type { StoreRequest } from "../store.ts";

/**
 * What became of a request: nothing or 0 when it is done, an errno when it failed, `LATER` when
 * {@linkcode StoreContext.done} will tell, or a promise of one of the first two. Each request may be
 * answered in another way. An error that it throws, or rejects a promise with, is EIO for the guest,
 * and printed; so is an answer that is none of these.
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
  /**
   * What changes when its content does, such as an ETag: an overlay on another content is refused.
   *
   * @default {nothing tells, and the size has to do}
   */
  readonly identity?: string;
  /** Functions of the store that this disk has no use for: its server lacks what they need. */
  readonly without?: readonly (
    | "write"
    | "flush"
    | "discard"
    | "writeZeroes"
    | "secureErase"
    | "lifetime"
  )[];
  /** Sets its size; no request lies behind the new end. Without it, the size cannot be set. */
  resize?(bytes: number): void | Promise<void>;
  /** Returns what it adds to the record: JSON. */
  report?(): Record<string, unknown>;
  /** Ends, after the queue thread. It has its own time limit. */
  close?(): void | Promise<void>;
}

/** What a store is opened with, on the main thread. */
export interface StoreOpening {
  /** The disk as it was named: the path of a module, a URI. */
  readonly name: string;
  /** Whether the disk is only to be read. */
  readonly readOnly: boolean;
  /** `raw` where `--format=raw` says that the disk is served as it is, whatever it begins with. */
  readonly format?: "raw";
  /** Prints a line for the person who runs the device. */
  log(message: string): void;
  /** Its size has changed by itself; the driver is told. Not before `open` is done. */
  resized(bytes: number): void;
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
  /** Opens it, on the main thread. An error is shown to the person who runs the device. */
  open(options: OptionValues<O>, opening: StoreOpening): StoreFacts | Promise<StoreFacts>;
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
  /** Erases a range beyond recovery: reads return anything afterwards. Without it, no guest can. */
  secureErase?(request: StoreRequest, state: S): StoreAnswer;
  /** Returns how worn its storage is. Without it, the guest cannot ask. */
  lifetime?(state: S): Lifetime | Promise<Lifetime>;
  /** All requests of a batch were made: starts the collected ones. */
  submit?(state: S): void;
  /**
   * A guest's stop has waited for 30 s: fails what can be failed (ECANCELED). Requests that are not
   * done soon are given up, and their memory is taken away.
   */
  cancel?(state: S): void;
  /** The queue thread ends; nothing is in flight. */
  close?(state: S): void;
}

/** The members of a definition; the compiler keeps the list complete. */
const MEMBERS: Readonly<Record<keyof StoreDefinition, true>> = {
  options: true,
  open: true,
  attach: true,
  read: true,
  write: true,
  flush: true,
  discard: true,
  writeZeroes: true,
  secureErase: true,
  lifetime: true,
  submit: true,
  cancel: true,
  close: true,
};

/**
 * Defines a store, the default export of a module that `vhostd blk FILE.ts` takes. What the disk can
 * do follows from which functions there are.
 *
 * @throws {TypeError} When there is no `open` or `read`.
 * @throws {Error} When there is anything else that a store does not have, such as a misspelt name.
 *
 * @example A disk whose sectors are computed: each holds its own number, as a little-endian u32
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { defineStore } from "@vhostd/vhostd/store";
 *
 * const numbers = defineStore({
 *   open: () => ({ bytes: 2 ** 30 }),
 *   read({ data, dataOffset, offset, bytes }) {
 *     data.fill(0, dataOffset, bytes);
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
  // A misspelt flush() would make no disk durable, and say nothing.
  expectNames("A store", Object.keys(definition), Object.keys(MEMBERS));
  return Object.freeze(definition);
}
