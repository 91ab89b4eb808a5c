/**
 * A guest's memory in this process: one span, its regions mapped into it.
 *
 * @module
 */

import { bufferAt, LinuxError, PAGE_BYTES } from "../linux/mod.ts";
import {
  inspectMemoryFile,
  isLocalFile,
  isSealedAgainstShrinking,
} from "../linux/file/memory_file.ts";
import { type KeptBytes, Span, tryMapping } from "../linux/mapping.ts";
import { Quarantine, sealAgainstShrinking } from "../linux/quarantine.ts";
import { type GuardedPlace, MemoryGuard } from "./guard/memory_fault.ts";
import { MAX_REGIONS, type MemoryView, type Region, RegionTable } from "./regions.ts";

/**
 * How many addresses a guest's span covers. A region whose guest addresses do
 * not fit is placed where there is room. Addresses cost nothing: the 47 bits of
 * a process hold 32 such spans.
 */
export const SPAN_BYTES: number = 2 ** 42;

/** Where guests write early, from the start of a region: real mode's tables, 1 MiB, a kernel. */
const GUEST_PLACES = [0, 2 ** 20, 2 ** 24];
const GUEST_PLACE_BYTES = 65_536;

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

/** A part of the span. */
interface Extent {
  start: number;
  end: number;
}

interface Placement extends Extent {
  region: Region;
  /** The part of the span that is mapped is the region, rounded out to these. */
  pageBytes: number;
  /** Watches over it, where its file can become shorter. */
  guard?: GuardedPlace;
  /** Its file became shorter: it is nobody's memory any more, and stays to be removed. */
  isLost: boolean;
}

/** A placement that can be mapped, with all that this takes but the mapping itself. */
interface PlannedPlacement extends Placement {
  fd: number;
  fileOffset: number;
  /** Shows that it can be. */
  trial: Disposable;
}

/** A change of memory for which everything is there. */
export interface MemoryPlan extends Disposable {
  /** All that was there before goes away. */
  readonly isReplacing: boolean;
  /** What comes. */
  readonly placements: PlannedPlacement[];
}

/** The most bytes of guest memory that are copied for late code to read. */
const MAX_KEPT_BYTES = 67_108_864;

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

/**
 * The memory as a thread sees it. The view of all of the span is made when it is
 * first needed: V8 counts every byte of it as garbage to come, and collects for
 * each few kilobytes that are allocated while there is one. A thread that
 * allocates can give it up while there is no guest.
 */
export class SpanView implements MemoryView {
  readonly #handle: MemoryHandle;
  #u8: Uint8Array<ArrayBuffer> | undefined;
  /** The regions in force; replaced whole when they change. */
  regions: RegionTable;

  /** @param handle The memory, of whichever thread */
  constructor(handle: MemoryHandle, regions: RegionTable = new RegionTable()) {
    this.#handle = handle;
    this.regions = regions;
  }

  /** The address of index 0. */
  get base(): number {
    return this.#handle.base;
  }

  /** The span as bytes. */
  get u8(): Uint8Array<ArrayBuffer> {
    return this.#u8 ??= new Uint8Array(bufferAt(this.#handle.base, this.#handle.bytes));
  }

  /** Gives the view up; another one is made when it is needed. */
  release(): void {
    this.#u8 = undefined;
  }
}

/** Makes a thread's view of a span. The span must outlive every use of it. */
export function viewMemory(handle: MemoryHandle, regions?: RegionTable): SpanView {
  return new SpanView(handle, regions);
}

/**
 * Owns a span and the regions in it. Regions may only be removed while no
 * queue can touch them.
 */
export class GuestMemory implements Disposable {
  #span = new Span(SPAN_BYTES);
  #placements: Placement[] = [];
  /** Where regions were that late code may still touch. */
  readonly #left = new Set<Extent>();
  #table = new RegionTable();
  #guard: MemoryGuard | undefined;
  readonly #quarantine: Quarantine;
  /** Told when memory is lost while it is mapped, after whoever touched it went on. */
  onLost: ((lost: LostMemory) => void) | undefined;

  /** @param quarantine For what its files' other holders can hold up. */
  constructor(quarantine: Quarantine = new Quarantine()) {
    this.#quarantine = quarantine;
  }

  /** What another thread needs to see the same memory. */
  get handle(): MemoryHandle {
    return { base: this.#span.base, bytes: this.#span.bytes };
  }

  /** The regions in force; those that were lost are not among them. */
  get regions(): RegionTable {
    return this.#table;
  }

  /** Whether bytes of the span lie in a region and are all zero: for a look now and then. */
  isZero(index: number, bytes: number): boolean {
    const isInside = this.#table.regions.some((region) =>
      index >= region.index && index + bytes <= region.index + region.bytes
    );
    if (!isInside) return false;
    return new Uint8Array(bufferAt(this.#span.base + index, bytes)).every((byte) => byte === 0);
  }

  /**
   * Whether memory is zero wherever a guest that has begun to run has written:
   * where it starts, and where firmware and kernels are. For a look now and then.
   */
  get isUntouched(): boolean {
    return this.#table.regions.every(({ index, bytes }) =>
      GUEST_PLACES.every((place) =>
        place >= bytes || this.isZero(index + place, Math.min(GUEST_PLACE_BYTES, bytes - place))
      )
    );
  }

  /**
   * Makes files ready to be guest memory: seals those that can be, and starts a
   * guard for those whose pages can go away while they are mapped.
   *
   * @throws {StuckError} When others hold up the sealing.
   */
  async prepare(fds: readonly number[]): Promise<void> {
    for (const fd of fds) await sealAgainstShrinking(fd, this.#quarantine);
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
    using plan = this.plan([request], [fd], false);
    this.commit(plan);
  }

  /**
   * Puts regions in the place of all that there are.
   *
   * @throws {RegionError} As {@linkcode GuestMemory.add}; what was there before
   * is there still then.
   */
  replace(requests: readonly RegionRequest[], fds: readonly number[]): void {
    using plan = this.plan(requests, fds, true);
    this.commit(plan);
  }

  /**
   * Checks and gets everything that regions need, and changes nothing; what
   * follows is {@linkcode GuestMemory.commit}, or the plan is disposed of. The
   * descriptors have to stay open till then.
   *
   * @param isReplacing They come in the place of all that there are, and not beside them
   * @throws {RegionError} As {@linkcode GuestMemory.add}.
   */
  plan(
    requests: readonly RegionRequest[],
    fds: readonly number[],
    isReplacing: boolean,
  ): MemoryPlan {
    const others: Placement[] = isReplacing ? [] : [...this.#placements];
    using made = new DisposableStack();
    const placements = requests.map((request, i) => {
      const fd = fds[i];
      const checked = checkRegion(request, fd, others.map(({ region }) => region));
      const { fileOffset, pageBytes, isSealed, ...region } = checked;
      const { slack, mapped } = pagesOf(checked);
      const from = fileOffset - slack;
      const trial = made.use(tryMapping(mapped, fd, from));
      const start = this.#place(
        region.guestAddress - slack,
        mapped,
        pageBytes,
        nameOf(region),
        others,
      );
      const placement: PlannedPlacement = {
        ...{ region: { ...region, index: start + slack }, start, end: start + mapped },
        ...{ fd, fileOffset: from, trial, pageBytes, isLost: false },
      };
      if (!isSealed) placement.guard = made.use(this.#guarded(placement, pageBytes));
      others.push(placement);
      return placement;
    });
    made.move();
    return {
      isReplacing,
      placements,
      [Symbol.dispose]() {
        for (const { trial, guard } of placements.splice(0)) {
          trial[Symbol.dispose]();
          guard?.[Symbol.dispose]();
        }
      },
    };
  }

  #guarded(placement: PlannedPlacement, pageBytes: number): GuardedPlace {
    if (this.#guard === undefined) {
      throw new TypeError("Expected a file that was prepared, got one that can become shorter");
    }
    const { fd, fileOffset } = placement;
    return this.#guard.prepare({ fd, fileOffset, pageBytes }, () => this.#lose(placement));
  }

  /**
   * Makes a planned change. When regions are replaced, no queue may touch them.
   *
   * @throws {LinuxError} When the kernel does not map what it mapped a moment ago; what could not
   * be mapped is not there then.
   */
  commit(plan: MemoryPlan): void {
    if (plan.isReplacing) this.#unmapAll();
    try {
      while (plan.placements.length > 0) {
        const [placement] = plan.placements;
        const { trial, fd, fileOffset, start, end, guard } = placement;
        trial[Symbol.dispose]();
        this.#span.map(start, end - start, fd, fileOffset);
        guard?.begin(this.#span.base + start, end - start);
        // What is left in the plan goes with it.
        this.#placements.push(...plan.placements.splice(0, 1));
      }
    } finally {
      this.#publish();
    }
  }

  /** Takes a region out of the table; what is mapped there stays until {@linkcode GuestMemory.dropLost}. */
  #lose(placement: Placement): void {
    if (placement.isLost) return;
    placement.isLost = true;
    this.#publish();
    this.onLost?.(placement.region);
  }

  /**
   * Gives up what is mapped in the place of lost regions, which is memory of
   * this process. No queue may touch it any more. The regions are there still
   * to be removed.
   */
  dropLost(): void {
    for (const placement of this.#placements) {
      if (placement.isLost) this.#unmap(placement);
    }
  }

  #unmap(placement: Placement): void {
    placement.guard?.[Symbol.dispose]();
    placement.guard = undefined;
    const { start, end } = placement;
    // One that was lost before memory was withdrawn has no place any more.
    if (start < end) this.#span.unmap(start, end - start);
  }

  #unmapAll(): void {
    for (const removed of this.#placements.splice(0)) this.#unmap(removed);
  }

  /** Where a mapping goes: at its guest address, or else the highest gap that holds it. */
  #place(
    wanted: number,
    bytes: number,
    page: number,
    name: string,
    others: readonly Extent[],
  ): number {
    const taken = [...others, ...this.#left];
    const free = (start: number) =>
      start >= 0 && start + bytes <= this.#span.bytes &&
      !taken.some((other) => overlaps(start, bytes, other.start, other.end - other.start));
    if (wanted % page === 0 && free(wanted)) return wanted;
    const ends = [this.#span.bytes, ...taken.map((other) => other.start)];
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
    this.#unmapAll();
    this.#publish();
  }

  /**
   * Moves all regions to other places of the span, while no ring runs, and puts
   * memory that is nobody's where they were: whoever still has old places finds
   * it there, and reaches the guest's no more.
   *
   * @param kept What stays readable at its old place, as far as it is no more than 64 MiB
   * @returns What gives the old places up, once nobody can touch them. A region that no other place
   * can be found for is lost.
   */
  withdraw(kept: readonly KeptBytes[]): Disposable {
    let room = MAX_KEPT_BYTES;
    const copied = kept.filter(({ bytes }) => (room -= bytes) >= 0);
    // New places are apart from all old ones.
    const left = this.#placements.map(({ start, end }): Extent => ({ start, end }));
    for (const extent of left) this.#left.add(extent);
    for (const placement of this.#placements) {
      const { start, end } = placement;
      if (!placement.isLost) this.#move(placement);
      if (placement.isLost) placement.start = placement.end = 0;
      const isHere = ({ index }: KeptBytes) => index >= start && index < end;
      if (start < end) this.#span.detach(start, end - start, copied.filter(isHere));
    }
    this.#publish();
    return {
      [Symbol.dispose]: () => {
        for (const extent of left) {
          const { start, end } = extent;
          // It stays mapped until another region is put there: a fault would end the process.
          if (this.#left.delete(extent) && start < end) this.#span.clear(start, end - start);
        }
      },
    };
  }

  /** Shows a region elsewhere too; where that cannot be it is lost. */
  #move(placement: Placement): void {
    const { region, start, end, pageBytes, guard } = placement;
    const bytes = end - start;
    try {
      const to = this.#place(-1, bytes, pageBytes, nameOf(region), this.#placements);
      this.#span.duplicate(start, to, bytes);
      guard?.begin(this.#span.base + to, bytes);
      placement.region = { ...region, index: region.index - start + to };
      placement.start = to;
      placement.end = to + bytes;
    } catch (error) {
      if (!(error instanceof RegionError || error instanceof LinuxError)) throw error;
      guard?.[Symbol.dispose]();
      placement.guard = undefined;
      this.#lose(placement);
    }
  }

  #publish(): void {
    const there = this.#placements.filter(({ isLost }) => !isLost);
    this.#table = new RegionTable(there.map(({ region }) => region));
  }

  /** Gives everything back. No view may be touched afterwards, on any thread. */
  [Symbol.dispose](): void {
    this.clear();
    this.#guard?.[Symbol.dispose]();
    this.#guard = undefined;
    // Late code may outlive the device: then its addresses do too.
    if (this.#left.size === 0) this.#span[Symbol.dispose]();
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
  // What its size is when it is sealed, it stays.
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
  return { guestAddress, bytes, userAddress, fileOffset, pageBytes, isSealed };
}

/**
 * Whether the pages of a file are there to stay: it is sealed, and is no huge
 * page file, which can be out of pages where the front-end gave some back.
 */
function isSealedMemory(fd: number): boolean {
  return isSealedAgainstShrinking(fd) && inspectMemoryFile(fd).blockBytes <= PAGE_BYTES;
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
