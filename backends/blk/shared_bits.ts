/**
 * Bits in memory that threads share.
 *
 * @module
 */

/** A row of bits, by number from 0 to below 2^32. Each thread has an object of its own. */
export class SharedBits {
  /** The bits, 32 to a word, from the lowest on. */
  readonly words: Int32Array<SharedArrayBuffer>;

  /** Opens the `count` bits that begin at a byte of a memory. */
  constructor(memory: SharedArrayBuffer, byteOffset: number, count: number) {
    this.words = new Int32Array(memory, byteOffset, Math.ceil(count / 32));
  }

  /** Whether a bit is set. */
  has(bit: number): boolean {
    return (Atomics.load(this.words, bit >>> 5) & 1 << (bit & 31)) !== 0;
  }

  /** Whether all bits from `first` to `last` are set. */
  hasAll(first: number, last: number): boolean {
    const { words } = this;
    const end = last >>> 5;
    for (let word = first >>> 5; word <= end; word++) {
      const mask = maskOf(word, first, last);
      if ((Atomics.load(words, word) & mask) !== mask) return false;
    }
    return true;
  }

  /** Whether any of them is set. */
  hasAny(first: number, last: number): boolean {
    const { words } = this;
    const end = last >>> 5;
    for (let word = first >>> 5; word <= end; word++) {
      if ((Atomics.load(words, word) & maskOf(word, first, last)) !== 0) return true;
    }
    return false;
  }

  /** Sets them. */
  add(first: number, last: number): void {
    for (let word = first >>> 5; word <= last >>> 5; word++) {
      Atomics.or(this.words, word, maskOf(word, first, last));
    }
  }

  /** Sets them if none is set; returns whether it did. */
  addIfNone(first: number, last: number): boolean {
    for (let word = first >>> 5; word <= last >>> 5; word++) {
      const mask = maskOf(word, first, last);
      const others = Atomics.or(this.words, word, mask) & mask;
      if (others === 0) continue;
      Atomics.and(this.words, word, ~(mask & ~others));
      if (word > first >>> 5) this.remove(first, word * 32 - 1);
      return false;
    }
    return true;
  }

  /** Clears them. */
  remove(first: number, last: number): void {
    for (let word = first >>> 5; word <= last >>> 5; word++) {
      Atomics.and(this.words, word, ~maskOf(word, first, last));
    }
  }

  /** The first bit from `first` to `last` that is set, or not set; `last + 1` if there is none. */
  find(isSet: boolean, first: number, last: number): number {
    for (let word = first >>> 5; word <= last >>> 5; word++) {
      const bits = Atomics.load(this.words, word);
      const found = (isSet ? bits : ~bits) & maskOf(word, first, last);
      if (found !== 0) return word * 32 + 31 - Math.clz32(found & -found);
    }
    return last + 1;
  }
}

/** The bits of a word that are from `first` to `last`. */
function maskOf(word: number, first: number, last: number): number {
  const from = word === first >>> 5 ? -1 << (first & 31) : -1;
  const to = word === last >>> 5 ? -1 >>> (31 - (last & 31)) : -1;
  return from & to;
}
