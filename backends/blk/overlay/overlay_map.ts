/**
 * Which blocks an overlay has, shared by all queue threads and the control half.
 *
 * Live blocks are in the file, and their bits in its live map. Durable ones have their bits in the
 * durable map too. Blocks that change from the base's to the overlay's are busy meanwhile: one
 * request at a time may do that with a block, as it copies what it does not write.
 *
 * Bits of both maps are only ever added while the disk is served. So threads write words of a map
 * at once from this memory without losing bits of each other: the kernel takes them one after the
 * other, each as it is then.
 *
 * @module
 */

import { addressOf, Errno, errno, IoVectors, writeVectors } from "../../../src/linux/mod.ts";
import { SharedBits } from "../shared_bits.ts";
import { MAP_PAGE_BYTES, OVERLAY_BLOCK_BYTES } from "./format.ts";

/** Blocks per page of a map. */
const PAGE_BLOCKS = MAP_PAGE_BYTES * 8;
const PAGE_WORDS = MAP_PAGE_BYTES / 4;

// Places, in words.
/** Counts changes of the live blocks; and how many of them are known to be durable. */
const CHANGES = 0, DURABLE = 1, PAGES = 2;
/** The number of live blocks: a large map takes long to count. */
const LIVE = 3;
const COUNTERS = 4;

/** Pages of a map with live blocks that are not durable yet, as they were at one moment. */
export interface MapSnapshot {
  /** The number of changes before it. */
  readonly changes: number;
  readonly pages: readonly { readonly page: number; readonly changes: number }[];
  /** The live blocks of each page. */
  readonly words: readonly Int32Array<ArrayBuffer>[];
}

/** The maps of one overlay; each thread has an object of its own over the same memory. */
export class OverlayMap {
  /** What another thread makes its own object of. */
  readonly memory: SharedArrayBuffer;
  readonly live: SharedBits;
  readonly durable: SharedBits;
  readonly busy: SharedBits;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #pages: number;
  readonly #vectors = new IoVectors();
  readonly #liveAddress: number;
  readonly #durableAddress: number;

  /** Makes empty maps of this many bytes each, or joins those in a memory. */
  constructor(mapBytes: number | SharedArrayBuffer) {
    this.memory = typeof mapBytes === "number"
      ? new SharedArrayBuffer(
        (COUNTERS + 2 * mapBytes / MAP_PAGE_BYTES) * 4 + 3 * mapBytes,
      )
      : mapBytes;
    if (typeof mapBytes === "number") {
      new Int32Array(this.memory)[PAGES] = mapBytes / MAP_PAGE_BYTES;
    }
    const pages = this.#pages = new Int32Array(this.memory)[PAGES];
    this.#words = new Int32Array(this.memory, 0, COUNTERS + 2 * pages);
    const [live, durable, busy] = [0, 1, 2].map((i) =>
      new SharedBits(
        this.memory,
        this.#words.byteLength + i * pages * MAP_PAGE_BYTES,
        pages * PAGE_BLOCKS,
      )
    );
    this.live = live;
    this.durable = durable;
    this.busy = busy;
    this.#liveAddress = addressOf(live.words as BufferSource & typeof live.words);
    this.#durableAddress = addressOf(durable.words as BufferSource & typeof durable.words);
  }

  /** The number of live blocks. */
  get liveCount(): number {
    return Atomics.load(this.#words, LIVE) >>> 0;
  }

  /** Takes words of the live map as they are in the file, from a word on. */
  load(words: Int32Array, at: number): void {
    this.live.words.set(words, at);
    let count = 0;
    for (let i = 0; i < words.length; i++) {
      for (let word = words[i]; word !== 0; word &= word - 1) count++;
    }
    Atomics.add(this.#words, LIVE, count);
  }

  /** Whether there are live blocks that are not durable. */
  get hasNew(): boolean {
    return Atomics.load(this.#words, CHANGES) !== Atomics.load(this.#words, DURABLE);
  }

  /**
   * Makes blocks live whose data is in the file. Where that fails, those that were live still are.
   *
   * @param mapOffset Where the live map is in the file.
   * @returns 0, or the errno with which they could not be written.
   */
  allocate(first: number, last: number, fd: number, mapOffset: number): number {
    const { live } = this;
    for (let start = live.find(false, first, last); start <= last;) {
      const next = live.find(true, start, last), end = next - 1;
      live.add(start, end);
      const code = this.#write(this.#liveAddress, start >>> 5, end >>> 5, fd, mapOffset);
      if (code !== 0) {
        live.remove(start, end);
        return code;
      }
      Atomics.add(this.#words, LIVE, next - start);
      this.noteChange(start, end);
      start = next > last ? next : live.find(false, next, last);
    }
    return 0;
  }

  /** Notes that some of these blocks are live and not durable. */
  noteChange(first: number, last: number): void {
    const words = this.#words;
    for (let page = pageOf(first); page <= pageOf(last); page++) {
      Atomics.add(words, COUNTERS + page, 1);
    }
    Atomics.add(words, CHANGES, 1);
  }

  /** Notes for each page of the maps whether it has live blocks that are not durable. */
  noteDifferences(): void {
    const { live, durable } = this;
    for (let page = 0; page < this.#pages; page++) {
      for (let at = page * PAGE_WORDS; at < (page + 1) * PAGE_WORDS; at++) {
        if (live.words[at] === durable.words[at]) continue;
        this.noteChange(page * PAGE_BLOCKS, page * PAGE_BLOCKS);
        break;
      }
    }
  }

  /** Takes what is to become durable. */
  snapshot(): MapSnapshot {
    const words = this.#words;
    const changes = Atomics.load(words, CHANGES);
    const pages = [];
    const live = [];
    for (let page = 0; page < this.#pages; page++) {
      const changes = Atomics.load(words, COUNTERS + page);
      if (changes === Atomics.load(words, COUNTERS + this.#pages + page)) continue;
      pages.push({ page, changes });
      live.push(
        new Int32Array(this.live.words.subarray(page * PAGE_WORDS, (page + 1) * PAGE_WORDS)),
      );
    }
    return { changes, pages, words: live };
  }

  /**
   * Writes the durable map, after the data of a snapshot was made durable.
   *
   * @param mapOffset Where the durable map is in the file.
   * @returns 0, or the errno with which it could not be written.
   */
  writeDurable({ pages, words }: MapSnapshot, fd: number, mapOffset: number): number {
    for (const [i, { page }] of pages.entries()) {
      const at = page * PAGE_WORDS;
      words[i].forEach((word, j) => {
        if (word !== 0) Atomics.or(this.durable.words, at + j, word);
      });
      const code = this.#write(this.#durableAddress, at, at + PAGE_WORDS - 1, fd, mapOffset);
      if (code !== 0) return code;
    }
    return 0;
  }

  /** Notes that a snapshot is durable, with its map. */
  noteDurable({ changes, pages }: MapSnapshot): void {
    for (const { page, changes } of pages) this.#raise(COUNTERS + this.#pages + page, changes);
    this.#raise(DURABLE, changes);
  }

  /** Sets a counter unless it is beyond that: another thread may have seen later changes. */
  #raise(place: number, value: number): void {
    const words = this.#words;
    for (;;) {
      const now = Atomics.load(words, place);
      if ((value - now | 0) <= 0 || Atomics.compareExchange(words, place, now, value) === now) {
        return;
      }
    }
  }

  /** Writes words of a map to the file. */
  #write(address: number, first: number, last: number, fd: number, mapOffset: number): number {
    const vectors = this.#vectors;
    const end = (last + 1) * 4;
    for (let at = first * 4; at < end;) {
      vectors.count = 0;
      vectors.push(address + at, end - at);
      const written = writeVectors(fd, vectors, mapOffset + at);
      if (written > 0) at += written;
      else if (written === 0 || errno() !== Errno.EINTR) return written === 0 ? Errno.EIO : errno();
    }
    return 0;
  }
}

function pageOf(block: number): number {
  return Math.floor(block / PAGE_BLOCKS);
}

/** The block of a byte of the disk. */
export function blockOf(offset: number): number {
  return Math.floor(offset / OVERLAY_BLOCK_BYTES);
}
