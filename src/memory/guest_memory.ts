/**
 * A guest's memory in this process: one span, its regions mapped into it.
 *
 * @module
 */

import {
  bufferAt,
  duplicateFd,
  inspectMemoryFile,
  isLocalFile,
  MemoryGuard,
  PAGE_BYTES,
  residentPages,
  sealAgainstShrinking,
  Span,
  tryMapping,
} from "../linux/mod.ts";
import { MAX_REGIONS, type MemoryView, type Region, RegionTable } from "./regions.ts";

/**
 * How many addresses a guest's span covers. A region whose guest addresses do
 * not fit is placed where there is room. Addresses cost nothing: the 47 bits of
 * a process hold 32 such spans.
 */
export const SPAN_BYTES: number = 2 ** 42;

/** A region as the front-end announces it. */
export interface RegionRequest {
  /** Its first guest physical address. */
  guestAddress: bigint;
  /** Its size in bytes. */
  size: bigint;
  /** Its first address in the front-end's own address space. */
  userAddress: bigint;
  /** Where it starts in the file that came with it. */
  mmapOffset: bigint;
}

/** A region that cannot be mapped or removed as asked. */
export class RegionError extends Error {
  override name = "RegionError";
}

interface Placement {
  region: Region;
  /** The part of the span that is mapped: the region, rounded out to pages. */
  start: number;
  end: number;
  /** Watches over it, where its file can become shorter. */
  guard?: Disposable;
}

/** Guest memory whose file became shorter: it is zeros from now on, and the guest's no more. */
export interface LostMemory {
  /** The first guest physical address of its region. */
  guestAddress: number;
  /** The size of its region in bytes. */
  bytes: number;
}

/** What another thread needs to see the same memory. */
export interface MemoryHandle {
  /** The address of the span. */
  base: number;
  /** Its size. */
  bytes: number;
}

/** Makes a thread's view of a span. The span must outlive every use of it. */
export function viewMemory(handle: MemoryHandle, regions = new RegionTable()): MemoryView {
  return { u8: new Uint8Array(bufferAt(handle.base, handle.bytes)), base: handle.base, regions };
}

/**
 * Owns a span and the regions in it. Regions may only be removed while no
 * queue can touch them.
 */
export class GuestMemory implements Disposable {
  #span = new Span(SPAN_BYTES);
  #placements: Placement[] = [];
  #table = new RegionTable();
  #guard: MemoryGuard | undefined;
  /** Told when memory is lost while it is mapped, after whoever touched it went on. */
  onLost: ((lost: LostMemory) => void) | undefined;

  /** What another thread needs to see the same memory. */
  get handle(): MemoryHandle {
    return { base: this.#span.base, bytes: this.#span.bytes };
  }

  /** The regions in force. */
  get regions(): RegionTable {
    return this.#table;
  }

  /** Whether the page at an index of the span is there: somebody has written or read it before. */
  isResident(index: number): boolean {
    const page = new Uint8Array(1);
    residentPages(this.#span.base + Math.floor(index / PAGE_BYTES) * PAGE_BYTES, PAGE_BYTES, page);
    return (page[0] & 1) !== 0;
  }

  /** Makes ready for files whose pages can go away while they are mapped: starts a guard for them. */
  async prepare(fds: readonly number[]): Promise<void> {
    if (this.#guard === undefined && !fds.every(isSealedMemory)) {
      this.#guard = await MemoryGuard.acquire();
    }
  }

  /**
   * Maps a region, whose file was given to {@linkcode GuestMemory.prepare}. The descriptor stays the caller's and may be closed at once.
   *
   * @throws {RegionError} When the region is empty, overlaps another one, does
   * not fit, or its file is too short; nothing has changed then.
   */
  add(request: RegionRequest, fd: number): void {
    this.#map(this.#check(request, fd, this.#placements.map(({ region }) => region)), fd);
    this.#publish();
  }

  /**
   * Puts regions in the place of all that there are.
   *
   * @throws {RegionError} As {@linkcode GuestMemory.add}; what was there before
   * is there still then.
   */
  replace(requests: readonly RegionRequest[], fds: readonly number[]): void {
    const checked: CheckedRegion[] = [];
    for (const [i, request] of requests.entries()) {
      checked.push(this.#check(request, fds[i], checked));
    }
    this.clear();
    checked.forEach((region, i) => this.#map(region, fds[i]));
    this.#publish();
  }

  /** As {@linkcode checkRegion}; and what is not sealed can be guarded. */
  #check(
    request: RegionRequest,
    fd: number,
    others: readonly Omit<Region, "index">[],
  ): CheckedRegion {
    const checked = checkRegion(request, fd, others);
    if (!checked.isSealed && this.#guard === undefined) {
      throw new TypeError("Expected a file that was prepared, got one that can become shorter");
    }
    return checked;
  }

  #map(checked: CheckedRegion, fd: number): void {
    const { fileOffset, pageBytes, isSealed, ...region } = checked;
    const { slack, mapped } = pagesOf(checked);
    const start = this.#place(region.guestAddress - slack, mapped, pageBytes, nameOf(region));
    this.#span.map(start, mapped, fd, fileOffset - slack);
    const placement: Placement = {
      region: { ...region, index: start + slack },
      start,
      end: start + mapped,
    };
    try {
      if (!isSealed) placement.guard = this.#guarded(placement, fd, fileOffset - slack, pageBytes);
    } catch (error) {
      this.#span.unmap(start, mapped);
      throw error;
    }
    this.#placements.push(placement);
  }

  #guarded(
    { region, start, end }: Placement,
    fd: number,
    fileOffset: number,
    pageBytes: number,
  ): Disposable {
    const own = duplicateFd(fd);
    try {
      return this.#guard!.guard(
        { address: this.#span.base + start, bytes: end - start, fd: own, fileOffset, pageBytes },
        () => this.onLost?.(region),
      );
    } catch (error) {
      own.close();
      throw error;
    }
  }

  #unmap({ start, end, guard }: Placement): void {
    guard?.[Symbol.dispose]();
    this.#span.unmap(start, end - start);
  }

  /** Where a mapping goes: at its guest address, or else the highest gap that holds it. */
  #place(wanted: number, bytes: number, page: number, name: string): number {
    const free = (start: number) =>
      start >= 0 && start + bytes <= this.#span.bytes &&
      !this.#placements.some((other) =>
        overlaps(start, bytes, other.start, other.end - other.start)
      );
    if (wanted % page === 0 && free(wanted)) return wanted;
    const ends = [this.#span.bytes, ...this.#placements.map((other) => other.start)];
    for (const end of ends.sort((a, b) => b - a)) {
      const start = Math.floor((end - bytes) / page) * page;
      if (free(start)) return start;
    }
    throw new RegionError(
      `Expected room for region ${name} in ${hex(this.#span.bytes)} addresses, got none`,
    );
  }

  /**
   * Removes the region that has this guest address, user address and size.
   *
   * @throws {RegionError} When there is no such region.
   */
  remove(request: RegionRequest): void {
    const at = this.#placements.findIndex(({ region }) =>
      region.guestAddress === Number(request.guestAddress) &&
      region.userAddress === Number(request.userAddress) &&
      region.bytes === Number(request.size)
    );
    if (at < 0) {
      throw new RegionError(
        `Expected a region that was added, got 0x${request.guestAddress.toString(16)}+0x${
          request.size.toString(16)
        }`,
      );
    }
    for (const removed of this.#placements.splice(at, 1)) this.#unmap(removed);
    this.#publish();
  }

  /** Removes every region. */
  clear(): void {
    for (const removed of this.#placements.splice(0)) this.#unmap(removed);
    this.#publish();
  }

  #publish(): void {
    this.#table = new RegionTable(this.#placements.map(({ region }) => region));
  }

  /** Gives everything back. No view may be touched afterwards, on any thread. */
  [Symbol.dispose](): void {
    this.clear();
    this.#guard?.[Symbol.dispose]();
    this.#guard = undefined;
    this.#span[Symbol.dispose]();
  }
}

/** A region that can be mapped. */
interface CheckedRegion extends Omit<Region, "index"> {
  fileOffset: number;
  /** The unit in which its file is mapped. */
  pageBytes: number;
  /** Its pages cannot go away. */
  isSealed: boolean;
}

/** What is mapped for a region: its pages, and how far into the first one it begins. */
function pagesOf({ fileOffset, bytes, pageBytes }: CheckedRegion): {
  slack: number;
  mapped: number;
} {
  const slack = fileOffset % pageBytes;
  return { slack, mapped: Math.ceil((slack + bytes) / pageBytes) * pageBytes };
}

/** Checks what a front-end says of a region, whole, beside the regions that there are. */
function checkRegion(
  request: RegionRequest,
  fd: number,
  others: readonly Omit<Region, "index">[],
): CheckedRegion {
  const guestAddress = toNumber(request.guestAddress, "guest address");
  const bytes = toNumber(request.size, "size");
  const userAddress = toNumber(request.userAddress, "user address");
  const fileOffset = toNumber(request.mmapOffset, "mmap offset");
  const name = nameOf({ guestAddress, bytes });
  if (bytes === 0) throw new RegionError(`Expected a region with a size, got ${name}`);
  if (others.length >= MAX_REGIONS) {
    throw new RegionError(`Expected at most ${MAX_REGIONS} memory regions, got one more: ${name}`);
  }
  for (const other of others) {
    if (
      overlaps(guestAddress, bytes, other.guestAddress, other.bytes) ||
      overlaps(userAddress, bytes, other.userAddress, other.bytes)
    ) {
      throw new RegionError(`Expected regions apart, got ${name} over ${nameOf(other)}`);
    }
  }
  if (!isLocalFile(fd)) {
    throw new RegionError(
      `Expected the file of region ${name} in memory or on a disk, got one of another process`,
    );
  }
  // Sealed first: what its size is then, it stays.
  const isSealed = isSealedMemory(fd);
  const file = inspectMemoryFile(fd);
  if (file.kind !== "file") {
    throw new RegionError(`Expected a memory file for region ${name}, got another kind of file`);
  }
  if (file.bytes < fileOffset + bytes) {
    throw new RegionError(
      `Expected a memory file of at least ${
        fileOffset + bytes
      } bytes for region ${name}, got ${file.bytes}`,
    );
  }
  // A huge page file (its block size is the page size) maps in huge pages only.
  const pageBytes = Math.max(PAGE_BYTES, file.blockBytes);
  const checked = { guestAddress, bytes, userAddress, fileOffset, pageBytes, isSealed };
  const { slack, mapped } = pagesOf(checked);
  tryMapping(mapped, fd, fileOffset - slack);
  return checked;
}

/**
 * Whether the pages of a file are there to stay: it is sealed, and is no huge
 * page file, which can be out of pages where the front-end gave some back.
 */
function isSealedMemory(fd: number): boolean {
  return sealAgainstShrinking(fd) && inspectMemoryFile(fd).blockBytes <= PAGE_BYTES;
}

function nameOf({ guestAddress, bytes }: Pick<Region, "guestAddress" | "bytes">): string {
  return `${hex(guestAddress)}+${hex(bytes)}`;
}

function overlaps(a: number, aBytes: number, b: number, bBytes: number): boolean {
  return a < b + bBytes && b < a + aBytes;
}

function toNumber(value: bigint, what: string): number {
  if (value > 0x1f_ffff_ffff_ffffn / 2n) {
    throw new RegionError(`Expected a region's ${what} below 2^52, got 0x${value.toString(16)}`);
  }
  return Number(value);
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
