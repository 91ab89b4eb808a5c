/**
 * Which guest addresses exist, and where they are in the span.
 *
 * @module
 */

/**
 * The most regions a table holds: the memory slots that a back-end offers. The kernel's vhost has as
 * many, and QEMU uses them for a guest with 256 DIMMs.
 */
export const MAX_REGIONS = 509;

/** A region of guest memory in the span. */
export interface Region {
  /** Its first guest physical address. */
  guestAddress: number;
  /** Its size in bytes. */
  bytes: number;
  /** Its first address in the front-end's own address space. */
  userAddress: number;
  /** The index of its first byte in the span. */
  index: number;
}

/**
 * A table of regions that translates addresses to indexes of the span. It is
 * replaced, never changed, so every queue thread holds a consistent one.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { RegionTable } from "./regions.ts";
 *
 * const table = new RegionTable([
 *   { guestAddress: 0x1000, bytes: 0x1000, userAddress: 0x7f00_0000_0000, index: 0x1000 },
 * ]);
 * assertEquals(table.translate(0x1800, 0x800), 0x1800);
 * assertEquals(table.translate(0x1800, 0x801), -1);
 * assertEquals(table.translateUser(0x7f00_0000_0010, 16), 0x1010);
 * ```
 */
export class RegionTable {
  /** The regions in the order of their guest addresses. */
  readonly regions: readonly Readonly<Region>[];
  readonly #start: Float64Array;
  readonly #end: Float64Array;
  readonly #delta: Float64Array;
  #hit = 0;

  /** Makes a table; regions may not overlap. */
  constructor(regions: readonly Region[] = []) {
    this.regions = [...regions].sort((a, b) => a.guestAddress - b.guestAddress);
    this.#start = Float64Array.from(this.regions, (region) => region.guestAddress);
    this.#end = Float64Array.from(this.regions, (region) => region.guestAddress + region.bytes);
    this.#delta = Float64Array.from(this.regions, (region) => region.index - region.guestAddress);
  }

  /**
   * The index of a guest physical address, or -1 when the range is not wholly
   * inside one region.
   */
  translate(gpa: number, bytes: number): number {
    const hit = this.#hit;
    // A range without bytes is inside as well, so its address has to be.
    if (
      gpa >= this.#start[hit] && gpa < this.#end[hit] && gpa + bytes <= this.#end[hit]
    ) return gpa + this.#delta[hit];
    const found = this.#find(gpa);
    return found >= 0 && gpa + bytes <= this.#end[found] ? gpa + this.#delta[found] : -1;
  }

  /**
   * Translates the guest physical address of a descriptor, whose lower and upper halves are
   * `words[at]` and the next, to the index of its `bytes` bytes: `into[slot]`. An address passed as
   * a number would be 16 bytes of garbage wherever V8 does not inline the call.
   *
   * @returns Whether the range is wholly inside one region.
   */
  place(
    words: Uint32Array,
    at: number,
    bytes: number,
    into: Float64Array,
    slot: number,
  ): boolean {
    const gpa = words[at] + words[at + 1] * 2 ** 32;
    const hit = this.#hit;
    const isHit = gpa >= this.#start[hit] && gpa < this.#end[hit] &&
      gpa + bytes <= this.#end[hit];
    return (into[slot] = isHit ? gpa + this.#delta[hit] : this.translate(gpa, bytes)) >= 0;
  }

  /** How many bytes follow a guest physical address in its region; 0 where there is none. */
  contiguous(gpa: number): number {
    const found = this.#find(gpa);
    return found < 0 ? 0 : this.#end[found] - gpa;
  }

  /** The region that has an address, or -1: the last one that does not begin behind it. */
  #find(gpa: number): number {
    const start = this.#start;
    let low = 0, high = start.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (start[middle] <= gpa) low = middle + 1;
      else high = middle;
    }
    return low > 0 && gpa < this.#end[low - 1] ? this.#hit = low - 1 : -1;
  }

  /**
   * The index of an address of the front-end's own address space (ring
   * addresses come so), or -1 when the range is not wholly inside one region.
   */
  translateUser(userAddress: number, bytes: number): number {
    for (const region of this.regions) {
      const offset = userAddress - region.userAddress;
      if (offset >= 0 && offset + bytes <= region.bytes) return region.index + offset;
    }
    return -1;
  }
}

/** Guest memory as a thread sees it. */
export interface MemoryView {
  /** The span as bytes; only what lies in a region may be touched. */
  readonly u8: Uint8Array<ArrayBuffer>;
  /** The address of index 0 in this process, for system calls. */
  readonly base: number;
  /** The regions in force; replaced whole when they change. */
  regions: RegionTable;
}
