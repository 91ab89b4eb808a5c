/**
 * What the two halves of an NBD store share: places for connections. The main thread connects, as
 * looking up a name or waiting for a server may take long, and puts the handle in an empty place.
 * The queue thread takes it and owns it from then on; when the connection is lost, it closes the
 * handle and empties the place.
 *
 * @module
 */

import { createEventfd, type Fd, signalEventfd } from "../../../src/linux/mod.ts";
import type { NbdHandle } from "./libnbd.ts";

/** The states of a place. */
const EMPTY = 0, OFFERED = 1, TAKEN = 2;

/** What another thread makes its own link from. */
export interface LinkHandle {
  readonly memory: SharedArrayBuffer;
  /** Eventfds of the main thread's: signals to the queue thread, and to the main thread. */
  readonly toQueue: number;
  readonly toMain: number;
}

/** Places for connections. */
export class Link implements Disposable {
  readonly handle: LinkHandle;
  /** The number of places. */
  readonly count: number;
  readonly #states: Int32Array<SharedArrayBuffer>;
  /** Addresses of handles. */
  readonly #addresses: Float64Array<SharedArrayBuffer>;
  readonly #fds: readonly Fd[];

  /** Makes a number of places, or opens those of another thread. */
  constructor(from: number | LinkHandle) {
    this.#fds = typeof from === "number" ? [createEventfd(), createEventfd()] : [];
    this.handle = typeof from === "number"
      ? {
        memory: new SharedArrayBuffer(from * 16),
        toQueue: this.#fds[0].number,
        toMain: this.#fds[1].number,
      }
      : from;
    const { memory } = this.handle;
    this.count = memory.byteLength / 16;
    this.#addresses = new Float64Array(memory, 0, this.count);
    this.#states = new Int32Array(memory, this.count * 8, this.count);
  }

  /** An empty place; -1 when there is none. */
  get empty(): number {
    for (let i = 0; i < this.count; i++) if (Atomics.load(this.#states, i) === EMPTY) return i;
    return -1;
  }

  /** Puts a handle in an empty place. */
  offer(place: number, handle: NbdHandle): void {
    this.#addresses[place] = Number(Deno.UnsafePointer.value(handle));
    Atomics.store(this.#states, place, OFFERED);
    signalEventfd(this.handle.toQueue);
  }

  /** Takes the handle that a place offers, if it does. */
  take(place: number): NbdHandle | undefined {
    if (Atomics.compareExchange(this.#states, place, OFFERED, TAKEN) !== OFFERED) return undefined;
    return Deno.UnsafePointer.create(BigInt(this.#addresses[place]))!;
  }

  /** Empties a place whose handle was closed. */
  vacate(place: number): void {
    Atomics.store(this.#states, place, EMPTY);
    signalEventfd(this.handle.toMain);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds) fd.close();
  }
}
