/** Random numbers that a seed repeats. */

/** A generator: Marsaglia's xorshift with 32 bits. */
export class Random {
  #state: number;

  /** Starts from a seed. */
  constructor(seed: number) {
    this.#state = mix(seed) || 1;
  }

  u32(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** A number from 0 to `end` - 1. */
  below(end: number): number {
    return this.u32() % end;
  }

  /** A number from `first` to `last`. */
  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  /** True `times` out of `of` times. */
  chance(times: number, of: number): boolean {
    return this.below(of) < times;
  }

  pick<T>(things: readonly T[]): T {
    return things[this.below(things.length)];
  }
}

/** Spreads the bits of a number: MurmurHash3's finalizer. */
export function mix(x: number): number {
  x = Math.imul(x ^ x >>> 16, 0x85ebca6b);
  x = Math.imul(x ^ x >>> 13, 0xc2b2ae35);
  return (x ^ x >>> 16) >>> 0;
}
