/**
 * A store on the main thread, for programs: one operation at a time, by a buffer.
 *
 * @module
 */

import { LATER, Parts, shown } from "../../../mod.ts";
import { addressOf, errnoName, pinnedBuffer, watch } from "../../../src/linux/mod.ts";
import type { Store, StoreHandle, StoreRequest } from "../store.ts";
import { attachStore } from "../stores.ts";

/** The most bytes of an operation. */
export const PIECE_BYTES = 2 ** 20;

/** What a store may take for itself. */
const SCRATCH_BYTES = 2 ** 20;

/** Reads and writes a store by a buffer. */
export class LocalDisk implements Disposable {
  /** What was read, or is to be written. */
  readonly buffer: Uint8Array<ArrayBuffer>;
  readonly #name: string;
  readonly #store: Store;
  readonly #data: Parts;
  readonly #results: { done?: (result: number) => void };

  private constructor(
    name: string,
    store: Store,
    u8: Uint8Array<ArrayBuffer>,
    results: { done?: (result: number) => void },
  ) {
    this.#name = name;
    this.#store = store;
    this.buffer = u8.subarray(0, PIECE_BYTES);
    this.#data = new Parts(u8);
    this.#data.push(0, PIECE_BYTES);
    this.#results = results;
  }

  /** Attaches to a store, which `name` is for messages. */
  static async attach(name: string, handle: StoreHandle): Promise<LocalDisk> {
    const u8 = new Uint8Array(pinnedBuffer(PIECE_BYTES + SCRATCH_BYTES));
    const results: { done?: (result: number) => void } = {};
    const store = await attachStore(handle, {
      memory: { u8, base: addressOf(u8), scratch: () => PIECE_BYTES },
      ...{ io: undefined, watch, keep: (promise) => promise, flush() {} },
      notice: ({ what, why }) => console.error(shown(`${name}: ${what}: ${why}`)),
      done: (_request, result) => results.done!(result),
    });
    return new LocalDisk(name, store, u8, results);
  }

  /** Reads a range into the buffer; behind `end` are zeroes. */
  async read(offset: number, bytes: number, end = Infinity): Promise<void> {
    const there = Math.max(0, Math.min(bytes, end - offset));
    this.buffer.fill(0, there, bytes);
    if (there > 0) await this.#perform("read", offset, there, (at) => this.#store.read(at));
  }

  /** Writes what the buffer has from `from` on. */
  async write(offset: number, bytes: number, from = 0): Promise<void> {
    await this.#perform("written", offset, bytes, (at) => this.#store.write(at), from);
  }

  async writeZeroes(offset: number, bytes: number): Promise<void> {
    await this.#perform("written", offset, bytes, (at) => this.#store.writeZeroes(at, true));
  }

  async flush(): Promise<void> {
    await this.#perform("flushed", 0, 0, (at) => this.#store.flush(at));
  }

  async #perform(
    what: string,
    offset: number,
    bytes: number,
    carryOut: (request: StoreRequest) => number | Promise<number>,
    dataOffset = 0,
  ): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<number>();
    this.#results.done = resolve;
    let result = await carryOut({ data: this.#data, dataOffset, offset, bytes });
    this.#store.submit?.();
    if (result === LATER) result = await promise;
    if (result !== 0) throw new Error(`${this.#name} cannot be ${what}: ${errnoName(result)}`);
  }

  [Symbol.dispose](): void {
    this.#store.close?.();
  }
}
