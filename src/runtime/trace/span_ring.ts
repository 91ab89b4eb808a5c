/**
 * Spans on their way from a queue thread to the control plane: a ring in shared memory with one
 * writer and one reader. What has no room is lost, and counted.
 *
 * @module
 */

import { FLOATS as SPAN_FLOATS } from "./span.ts";

/** The number of spans that it has room for, a power of 2. */
const SPANS = 8192;

const HEAD_BYTES = 64;

// Places of the head, as 32-bit integers
const WRITTEN = 0;
const READ = 1;
const LOST = 2;

/** The memory of a ring. */
export function spanRingMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(HEAD_BYTES + SPANS * SPAN_FLOATS * 8);
}

/** One side of a ring. */
export class SpanRing {
  readonly #head: Int32Array<SharedArrayBuffer>;
  readonly #floats: Float64Array<SharedArrayBuffer>;

  /** Opens a view of {@linkcode spanRingMemory}. */
  constructor(memory: SharedArrayBuffer) {
    this.#head = new Int32Array(memory, 0, 3);
    this.#floats = new Float64Array(memory, HEAD_BYTES);
  }

  /** Adds a span, whose floats are in `spans` from `from` on. */
  add(spans: Float64Array, from: number): void {
    const head = this.#head, written = head[WRITTEN];
    if ((written - Atomics.load(head, READ) | 0) >= SPANS) return this.lose();
    const floats = this.#floats, at = (written & SPANS - 1) * SPAN_FLOATS;
    for (let i = 0; i < SPAN_FLOATS; i++) floats[at + i] = spans[from + i];
    Atomics.store(head, WRITTEN, written + 1 | 0);
  }

  /** Counts a span that has no room. */
  lose(): void {
    this.#head[LOST]++;
  }

  /** The number of spans that had no room, modulo 2^32. */
  get lost(): number {
    return this.#head[LOST] >>> 0;
  }

  /** Takes up to `most` of the spans that were added: a copy of their floats. */
  take(most = SPANS): Float64Array {
    const head = this.#head, read = head[READ];
    // The writer may be a thread that was given up, so its count is limited to the size
    const count = Math.min(Math.max(Atomics.load(head, WRITTEN) - read | 0, 0), SPANS, most);
    const taken = new Float64Array(count * SPAN_FLOATS);
    const first = read & SPANS - 1, before = Math.min(count, SPANS - first);
    taken.set(this.#floats.subarray(first * SPAN_FLOATS, (first + before) * SPAN_FLOATS));
    taken.set(this.#floats.subarray(0, (count - before) * SPAN_FLOATS), before * SPAN_FLOATS);
    Atomics.store(head, READ, read + count | 0);
    return taken;
  }
}
