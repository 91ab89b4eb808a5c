/**
 * The pages of a mapped image that may be touched, shared by all queue threads and the control
 * half.
 *
 * Touching a page that the file does not have allocates it, and where that fails (or the file ends
 * before it) the process gets SIGBUS. So a page is touched only while it is known to be there, and
 * it is removed only while no thread touches any page.
 *
 * @module
 */

import { SharedBits } from "./shared_bits.ts";

/** The unit in which pages are known, in bytes. */
export const MAPPED_PAGE_BYTES = 4096;

/** The number of pages that are looked up at a time. */
export const CHUNK_PAGES = 512;

/** The most threads that touch pages: one for each of 256 queues, and the control plane. */
const MAX_THREADS = 257;

/** How long a thread may take for one request, or hold the lock. */
const PATIENCE_MS = 30_000;

// Places, in words of 32 bits.
const IS_OPEN = 0;
const LOCK = 1;
const THREADS = 2;
const COUNT = 3;
const TOUCHING = 4; // by thread
const CHUNKS = TOUCHING + MAX_THREADS; // a bit for each chunk: its pages were looked up

/** The pages of an image; each thread has an object of its own over the same memory. */
export class MappedPages {
  /** What another thread makes its own object of. */
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;
  /** A bit for each page: it is there. */
  readonly #pages: SharedBits;
  readonly #touching: number;
  /** How many pages there are. */
  readonly count: number;

  /**
   * Makes the state of `pages` pages, which may not be accessed yet, or joins one.
   *
   * @throws {RangeError} When there are too many threads.
   */
  constructor(pages: number | SharedArrayBuffer) {
    const memory = typeof pages === "number" ? new SharedArrayBuffer(memoryBytes(pages)) : pages;
    this.memory = memory;
    this.#words = new Int32Array(memory);
    if (typeof pages === "number") this.#words[COUNT] = pages;
    this.count = this.#words[COUNT];
    const chunks = chunksOf(memory.byteLength);
    this.#pages = new SharedBits(memory, (CHUNKS + chunks) * 4, this.count);
    const thread = Atomics.add(this.#words, THREADS, 1);
    if (thread >= MAX_THREADS) {
      throw new RangeError(`Expected at most ${MAX_THREADS} threads, got one more`);
    }
    this.#touching = TOUCHING + thread;
  }

  /** Whether pages may be touched at all. */
  get isOpen(): boolean {
    return Atomics.load(this.#words, IS_OPEN) === 1;
  }

  /**
   * Begins to touch pages: until {@linkcode MappedPages.leave}, those from `first` to `last` stay
   * there.
   *
   * @returns Whether they may be touched; if not, nothing has begun.
   */
  enter(first: number, last: number): boolean {
    const words = this.#words;
    // A thread that removes pages first publishes that and then checks whether a page is touched;
    // here it is the other way round. Both go through Atomics.
    Atomics.store(words, this.#touching, 1);
    if (Atomics.load(words, IS_OPEN) === 1 && this.#has(first, last)) return true;
    Atomics.store(words, this.#touching, 0);
    return false;
  }

  /** Ends what {@linkcode MappedPages.enter} began. */
  leave(): void {
    Atomics.store(this.#words, this.#touching, 0);
  }

  #has(first: number, last: number): boolean {
    return last < this.count && this.#pages.hasAll(first, last);
  }

  /** Whether the pages of a chunk were looked up. */
  isKnown(chunk: number): boolean {
    return (Atomics.load(this.#words, CHUNKS + (chunk >>> 5)) & 1 << (chunk & 31)) !== 0;
  }

  /**
   * Notes that the pages of a chunk were looked up; only with the lock. Like
   * {@linkcode MappedPages.add}, it does nothing while pages are closed, as the result may be
   * outdated when they open again.
   */
  setKnown(chunk: number): void {
    if (!this.isOpen) return;
    Atomics.or(this.#words, CHUNKS + (chunk >>> 5), 1 << (chunk & 31));
  }

  /** Notes that pages are there; only with the lock. */
  add(first: number, last: number): void {
    if (this.isOpen) this.#pages.add(first, Math.min(last, this.count - 1));
  }

  /** Forbids pages and waits until no thread touches any; only with the lock. */
  remove(first: number, last: number): void {
    this.#pages.remove(first, Math.min(last, this.count - 1));
    this.#awaitUntouched();
  }

  /**
   * Allows pages to be touched, with none known yet, if `isAllowed` agrees; it is called with the
   * lock.
   */
  open(isAllowed: () => boolean = () => true): void {
    this.locked(() => {
      if (!this.isOpen && isAllowed()) Atomics.store(this.#words, IS_OPEN, 1);
    });
  }

  /**
   * Forbids all pages, waits until no thread touches any, and forgets them; `then` is called with
   * the lock.
   */
  close(then: () => void = () => {}): void {
    this.locked(() => {
      if (!this.isOpen) return;
      Atomics.store(this.#words, IS_OPEN, 0);
      this.#awaitUntouched();
      // Here, so that it costs nothing where it never happens.
      this.#words.fill(0, CHUNKS);
      then();
    });
  }

  /**
   * Does something under the lock: whatever adds or removes pages, together with recording it.
   *
   * @throws {Error} When another thread does not release the lock.
   */
  locked<T>(action: () => T): T {
    const words = this.#words;
    const deadline = Date.now() + PATIENCE_MS;
    while (Atomics.compareExchange(words, LOCK, 0, 1) !== 0) {
      if (Atomics.wait(words, LOCK, 1, PATIENCE_MS) === "timed-out" || Date.now() > deadline) {
        throw new Error("Expected the lock of a mapped image within 30 s, another thread keeps it");
      }
    }
    try {
      return action();
    } finally {
      Atomics.store(words, LOCK, 0);
      Atomics.notify(words, LOCK, 1);
    }
  }

  #awaitUntouched(): void {
    const words = this.#words;
    const threads = Math.min(Atomics.load(words, THREADS), MAX_THREADS);
    const deadline = Date.now() + PATIENCE_MS;
    for (let at = TOUCHING; at < TOUCHING + threads; at++) {
      // A thread touches for microseconds, unless it lost its processor.
      for (let looks = 0; Atomics.load(words, at) !== 0; looks++) {
        if (looks > 1000) Atomics.wait(words, at, 1, 1);
        if (Date.now() > deadline) {
          throw new Error("Expected a request on a mapped image to end within 30 s");
        }
      }
    }
  }
}

function memoryBytes(pages: number): number {
  return (CHUNKS + Math.ceil(pages / CHUNK_PAGES / 32) + Math.ceil(pages / 32)) * 4;
}

/** How many words for chunks there are in so much memory. */
function chunksOf(bytes: number): number {
  // A word for chunks stands for as many pages as CHUNK_PAGES words for pages.
  return Math.ceil((bytes / 4 - CHUNKS) / (CHUNK_PAGES + 1));
}
