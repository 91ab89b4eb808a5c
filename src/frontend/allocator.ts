interface Hole {
  start: number;
  end: number;
}

/**
 * Hands out parts of a range of addresses, the first that fits, and takes them back. It touches no
 * memory.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { Allocator } from "@vhostd/vhostd/frontend";
 *
 * const allocator = new Allocator(0x1000, 0x1000);
 * const odd = allocator.alloc(3);
 * assertEquals(odd, 0x1000);
 * assertEquals(allocator.alloc(4096), undefined);
 * allocator.free(odd!);
 * assertEquals(allocator.alloc(4096), 0x1000);
 * ```
 */
export class Allocator {
  /** What is free, in the order of addresses, no two of them adjacent. */
  readonly #holes: Hole[];
  /** The end of each part that is handed out, by its start. */
  readonly #parts = new Map<number, number>();

  /**
   * Everything is free at first.
   *
   * @param start The first address
   * @param bytes The size of the range in bytes
   */
  constructor(start: number, bytes: number) {
    this.#holes = [{ start, end: start + bytes }];
  }

  /** How many parts are handed out. */
  get size(): number {
    return this.#parts.size;
  }

  /**
   * Takes a part.
   *
   * @param bytes Its size, at least 1
   * @param align What its address is a multiple of
   * @returns Its address, or undefined where there is no room
   */
  alloc(bytes: number, align = 16): number | undefined {
    if (!(bytes >= 1 && align >= 1)) {
      throw new RangeError(
        `Expected a size and an alignment of at least 1, got ${bytes}, ${align}`,
      );
    }
    for (let i = 0; i < this.#holes.length; i++) {
      const { start, end } = this.#holes[i];
      const at = Math.ceil(start / align) * align;
      if (at + bytes > end) continue;
      const rest = [{ start, end: at }, { start: at + bytes, end }];
      this.#holes.splice(i, 1, ...rest.filter((hole) => hole.start < hole.end));
      this.#parts.set(at, at + bytes);
      return at;
    }
    return undefined;
  }

  /**
   * Gives a part back.
   *
   * @param at The address that {@linkcode Allocator.alloc} returned
   * @throws {RangeError} If no part starts there
   */
  free(at: number): void {
    const end = this.#parts.get(at);
    if (end === undefined) {
      throw new RangeError(`Expected an address that was allocated, got 0x${at.toString(16)}`);
    }
    this.#parts.delete(at);
    const holes = this.#holes;
    let i = 0;
    while (i < holes.length && holes[i].start < at) i++;
    holes.splice(i, 0, { start: at, end });
    if (i + 1 < holes.length && holes[i + 1].start === end) {
      holes[i].end = holes[i + 1].end;
      holes.splice(i + 1, 1);
    }
    if (i > 0 && holes[i - 1].end === at) {
      holes[i - 1].end = holes[i].end;
      holes.splice(i, 1);
    }
  }
}
