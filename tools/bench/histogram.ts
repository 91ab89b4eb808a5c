/** Latencies, counted in buckets that are 3 % wide at the most. */

/** Buckets per power of two. */
const STEPS_BITS = 5;
const STEPS = 1 << STEPS_BITS;
const BUCKETS = (32 - STEPS_BITS + 1) * STEPS;

/** What a histogram is kept in; may be shared between threads. */
export const HISTOGRAM_BYTES = BUCKETS * Uint32Array.BYTES_PER_ELEMENT;

/**
 * Counts of numbers from 0 to 2^32 - 1: exactly below 32, from there on in buckets of one 32nd of
 * their power of two. Adding one allocates nothing.
 */
export class Histogram {
  readonly #counts: Uint32Array<ArrayBufferLike>;

  /** Counts in a buffer of {@linkcode HISTOGRAM_BYTES}; what it has is kept. */
  constructor(buffer: ArrayBufferLike = new ArrayBuffer(HISTOGRAM_BYTES)) {
    this.#counts = new Uint32Array(buffer, 0, BUCKETS);
  }

  add(value: number): void {
    const exponent = 31 - Math.clz32(value | (STEPS - 1)) - (STEPS_BITS - 1);
    const at = exponent === 0
      ? value
      : (exponent << STEPS_BITS) + ((value >>> (exponent - 1)) & (STEPS - 1));
    this.#counts[at]++;
  }

  merge(other: Histogram): void {
    for (let i = 0; i < BUCKETS; i++) this.#counts[i] += other.#counts[i];
  }

  clear(): void {
    this.#counts.fill(0);
  }

  get count(): number {
    return this.#counts.reduce((sum, count) => sum + count, 0);
  }

  /** The number that a part (0 to 1) of all numbers does not exceed; `NaN` where there are none. */
  quantile(part: number): number {
    const wanted = Math.max(1, Math.ceil(this.count * part));
    let seen = 0;
    for (let i = 0; i < BUCKETS; i++) {
      seen += this.#counts[i];
      if (seen >= wanted) return middleOf(i);
    }
    return NaN;
  }
}

function middleOf(bucket: number): number {
  const exponent = bucket >> STEPS_BITS;
  if (exponent === 0) return bucket;
  const width = 2 ** (exponent - 1);
  return (STEPS + (bucket & (STEPS - 1))) * width + (width - 1) / 2;
}
