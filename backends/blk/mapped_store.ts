/**
 * A store in a file that is in memory anyway (tmpfs, a memory file). It is mapped, so that a
 * request is a copy and no system call.
 *
 * A mapping has two dangers that a system call has not: reading a page that the file does not have
 * allocates it, and a page that cannot be had raises SIGBUS instead of returning an errno. So only
 * pages that are there are touched (see {@linkcode MappedPages}), and all others go by system
 * calls. The pages stay because no other process can remove them: a memory file is private, and a
 * lease on a file makes an open of it wait until its pages are no longer touched. After that, requests
 * go by system calls until the lease can be taken again.
 *
 * @module
 */

import type { VectorSink } from "../../mod.ts";
import {
  copyMemory,
  enterPages,
  fileBytes,
  giveLeaseBack,
  isInMemory,
  isLeaseWhole,
  LinuxError,
  Mapping,
  onLeaseBreak,
  residentPages,
  takeLease,
} from "../../src/linux/mod.ts";
import { CHUNK_PAGES, MAPPED_PAGE_BYTES, MappedPages } from "./mapped_pages.ts";
import type { FileHandle, MapHandle, Store, StoreHost, StoreRequest } from "./store.ts";

/** The largest file that is mapped, in bytes: the state of its pages takes 32 MiB. */
const MOST_BYTES = 2 ** 40;

/** How long to wait before the lease is requested again, in milliseconds. */
const RETAKE_MS = 1000;

/** Stops copying and returns the lease if another program waits for the file. */
function yieldFile(fd: number, pages: MappedPages): void {
  if (pages.isOpen && !isLeaseWhole(fd)) pages.close(() => giveLeaseBack(fd));
}

/** A file that is mapped as long as it is open. */
export class MappedFile implements Disposable {
  /** From what queue threads attach to it. */
  readonly handle: MapHandle;
  readonly #pages: MappedPages;
  readonly #mapping: Mapping;
  readonly #lease = new DisposableStack();

  private constructor(fd: number, bytes: number, isShared: boolean, start: number) {
    this.#mapping = new Mapping(fd, bytes, start);
    const pages = this.#pages = new MappedPages(Math.ceil(bytes / MAPPED_PAGE_BYTES));
    this.handle = {
      address: this.#mapping.address,
      pages: pages.memory,
      leasedFd: isShared ? fd : -1,
    };
    if (!isShared) return pages.open(), this;
    const take = () => {
      if (!pages.isOpen) pages.open(() => takeLease(fd));
    };
    this.#lease.use(onLeaseBreak(() => yieldFile(fd, pages)));
    const retake = setInterval(take, RETAKE_MS);
    Deno.unrefTimer(retake);
    this.#lease.defer(() => clearInterval(retake));
    this.#lease.defer(() => pages.close(() => giveLeaseBack(fd)));
    take();
  }

  /**
   * Maps a file that is in memory.
   *
   * @param isShared Whether others can open it too.
   * @param start Where it begins in the file: a multiple of a page.
   * @returns Nothing where it is on a disk, or cannot be mapped.
   */
  static open(fd: number, bytes: number, isShared: boolean, start = 0): MappedFile | undefined {
    if (bytes === 0 || bytes > MOST_BYTES || !isInMemory(fd)) return undefined;
    try {
      return new MappedFile(fd, bytes, isShared, start);
    } catch (error) {
      // Out of addresses, or of mappings: it goes without.
      if (error instanceof LinuxError) return undefined;
      throw error;
    }
  }

  /** Whether requests are copies just now. */
  get isOpen(): boolean {
    return this.#pages.isOpen;
  }

  /** Calls `resize`, which changes the size of the file, while no thread touches its pages. */
  resize(resize: () => void): void {
    // Where it is closed, others have the file, and it stays theirs.
    const wasOpen = this.#pages.isOpen;
    this.#pages.close();
    try {
      resize();
    } finally {
      if (wasOpen) this.#pages.open();
    }
  }

  /** Unmaps it; no queue thread may use it any more. */
  [Symbol.dispose](): void {
    this.#lease.dispose();
    this.#mapping[Symbol.dispose]();
  }
}

const pagesOfChunk = new Uint8Array(new ArrayBuffer(4096), 0, CHUNK_PAGES);

/** Copies pieces of guest memory, one after the other, to or from a mapped file. */
class Copier implements VectorSink {
  /** The direction: to the file. */
  isWrite = false;
  /** The address in the file where the next piece is. */
  file = 0;

  push(address: number, bytes: number): boolean {
    if (this.isWrite) copyMemory(this.file, address, bytes);
    else copyMemory(address, this.file, bytes);
    this.file += bytes;
    return true;
  }
}

/** Carries out requests by copying; `inline` does the others. */
export class MappedStore implements Store {
  readonly #inline: Store;
  readonly #pages: MappedPages;
  readonly #fd: number;
  /** Where in the file the disk begins. */
  readonly #start: number;
  /** The address of the file's first byte. */
  readonly #file: number;
  /** The address of index 0 of guest memory. */
  readonly #base: number;
  readonly #copier = new Copier();
  readonly #leasedFd: number;
  /** The lease was looked at since the last batch of requests. */
  #isLeaseKnown = false;

  /** Attaches to a mapped file. */
  constructor({ fd, start }: FileHandle, map: MapHandle, { memory }: StoreHost, inline: Store) {
    this.#inline = inline;
    this.#fd = fd;
    this.#start = start;
    this.#pages = new MappedPages(map.pages);
    this.#file = map.address;
    this.#base = memory.base;
    this.#leasedFd = map.leasedFd;
  }

  read(request: StoreRequest): ReturnType<Store["read"]> {
    if (!this.#enter(request)) return this.#inline.read(request);
    this.#copy(request, false);
    return 0;
  }

  write(request: StoreRequest): ReturnType<Store["write"]> {
    if (!this.#enter(request)) return this.#writeNew(request);
    this.#copy(request, true);
    return 0;
  }

  /** Copies the data of a request, and ends to touch its pages. */
  #copy({ data, dataOffset, offset, bytes }: StoreRequest, isWrite: boolean): void {
    const copier = this.#copier;
    copier.isWrite = isWrite;
    copier.file = this.#file + offset;
    data.gather(copier, this.#base, dataOffset, bytes);
    this.#pages.leave();
  }

  /** Begins to touch the pages of a request, if all of them are there. */
  #enter({ offset, bytes }: StoreRequest): boolean {
    if (bytes === 0) return false;
    if (!this.#isLeaseKnown) this.#lookAtLease();
    const first = Math.floor(offset / MAPPED_PAGE_BYTES);
    const last = Math.floor((offset + bytes - 1) / MAPPED_PAGE_BYTES);
    if (this.#pages.enter(first, last)) return true;
    return this.#lookUp(first, last) && this.#pages.enter(first, last);
  }

  /**
   * Checks once per batch whether another program waits for the file. The main thread may be
   * blocked, and a lease that is not returned ends after 45 s.
   */
  #lookAtLease(): void {
    this.#isLeaseKnown = true;
    if (this.#leasedFd >= 0) yieldFile(this.#leasedFd, this.#pages);
  }

  submit(): void {
    this.#isLeaseKnown = false;
  }

  /** Looks up pages with unknown state; returns whether there were any. */
  #lookUp(first: number, last: number): boolean {
    const pages = this.#pages;
    if (!pages.isOpen || last >= pages.count) return false;
    let isNew = false;
    for (let at = first - first % CHUNK_PAGES; at <= last; at += CHUNK_PAGES) {
      if (pages.isKnown(at / CHUNK_PAGES)) continue;
      pages.locked(() => this.#lookUpChunk(at));
      isNew = true;
    }
    return isNew;
  }

  #lookUpChunk(start: number): void {
    const pages = this.#pages;
    const end = Math.min(start + CHUNK_PAGES, this.#wholePages());
    if (end <= start) return pages.setKnown(start / CHUNK_PAGES);
    const address = this.#file + start * MAPPED_PAGE_BYTES;
    residentPages(address, (end - start) * MAPPED_PAGE_BYTES, pagesOfChunk);
    let from = start;
    for (let page = start; page <= end; page++) {
      if (page < end && (pagesOfChunk[page - start] & 1) !== 0) continue;
      if (page > from) {
        const at = this.#file + from * MAPPED_PAGE_BYTES;
        enterPages(at, (page - from) * MAPPED_PAGE_BYTES);
        pages.add(from, page - 1);
      }
      from = page + 1;
    }
    pages.setKnown(start / CHUNK_PAGES);
  }

  /**
   * The number of whole pages in the file. A write behind the file's end into its last page would
   * reach the page and not the file.
   */
  #wholePages(): number {
    const bytes = fileBytes(this.#fd) - this.#start;
    return Math.min(Math.floor(bytes / MAPPED_PAGE_BYTES), this.#pages.count);
  }

  /** Writes by a system call, after which the pages are there. */
  #writeNew(request: StoreRequest): ReturnType<Store["write"]> {
    if (!this.#pages.isOpen || request.bytes === 0) return this.#inline.write(request);
    return this.#pages.locked(() => {
      const result = this.#inline.write(request);
      if (result === 0) {
        const { offset, bytes } = request;
        this.#pages.add(
          Math.floor(offset / MAPPED_PAGE_BYTES),
          Math.min(Math.floor((offset + bytes - 1) / MAPPED_PAGE_BYTES), this.#wholePages() - 1),
        );
      }
      return result;
    });
  }

  flush(request: StoreRequest): ReturnType<Store["flush"]> {
    return this.#inline.flush(request);
  }

  discard(request: StoreRequest): ReturnType<Store["discard"]> {
    return this.#without(request, () => this.#inline.discard(request));
  }

  writeZeroes(request: StoreRequest, unmap: boolean): ReturnType<Store["writeZeroes"]> {
    return this.#without(request, () => this.#inline.writeZeroes(request, unmap));
  }

  /** Removes pages, then does something that may free them. */
  #without<T>({ offset, bytes }: StoreRequest, action: () => T): T {
    const pages = this.#pages;
    if (!pages.isOpen || bytes === 0) return action();
    return pages.locked(() => {
      pages.remove(
        Math.floor(offset / MAPPED_PAGE_BYTES),
        Math.floor((offset + bytes - 1) / MAPPED_PAGE_BYTES),
      );
      return action();
    });
  }

  close(): void {
    this.#inline.close?.();
  }
}
