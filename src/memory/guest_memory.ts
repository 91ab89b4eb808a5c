/**
 * A guest's memory in this process: one span, its regions mapped into it.
 *
 * @module
 */

import { bufferAt, LinuxError } from "../linux/mod.ts";
import { type KeptBytes, Span, tryMapping } from "../linux/mapping.ts";
import { Quarantine, sealAgainstShrinking } from "../linux/quarantine.ts";
import { type GuardedPlace, MemoryGuard } from "./guard/memory_fault.ts";
import {
  checkRegion,
  hex,
  isSealedMemory,
  nameOf,
  overlaps,
  RegionError,
  type RegionRequest,
} from "./region_check.ts";
import { type Region, RegionTable } from "./regions.ts";
import { type MemoryHandle, SCRATCH_BYTES } from "./span_view.ts";

/**
 * How many addresses a guest's span covers. A region whose guest addresses do
 * not fit is placed where there is room. Addresses cost nothing, but a process
 * has few: V8 scatters its heap over the lower 64 TiB, and Deno's own code
 * divides the rest. 16 guests of a switch have to fit there: of spans of 4 TiB
 * only 15 do.
 */
export const SPAN_BYTES: number = 2 ** 41;

/** Where guests write early, from the start of a region: real mode's tables, 1 MiB, a kernel. */
const GUEST_PLACES = [0, 2 ** 20, 2 ** 24];
const GUEST_PLACE_BYTES = 65_536;

/** The most bytes of guest memory that are copied for late code to read. */
const MAX_KEPT_BYTES = 67_108_864;

/** A part of the span. */
interface Extent {
  start: number;
  end: number;
}

/** A region and the part of the span where its pages are mapped. */
interface Placement extends Extent {
  region: Region;
  pageBytes: number;
  /** Watches over it, where its file can become shorter. */
  guard?: GuardedPlace;
  /** Its file became shorter: it is not the guest's any more, and stays to be removed. */
  isLost: boolean;
}

/** A placement that is checked and prepared, and not mapped yet. */
interface PlannedPlacement extends Placement {
  fd: number;
  fileOffset: number;
  /** Shows that it can be mapped. */
  trial: Disposable;
}

/** A change of memory that is checked and prepared. */
export interface MemoryPlan extends Disposable {
  /** All that was there before goes away. */
  readonly isReplacing: boolean;
  /** What comes. */
  readonly placements: PlannedPlacement[];
}

/** Guest memory whose file became shorter: it reads as zeros, and is no longer the guest's. */
export interface LostMemory {
  /** The first guest physical address of its region. */
  guestAddress: number;
  /** The size of its region in bytes. */
  bytes: number;
}

/**
 * Owns a span and the regions in it. Regions may only be removed while no
 * queue can touch them.
 */
export class GuestMemory implements Disposable {
  readonly #span = new Span(SPAN_BYTES + SCRATCH_BYTES);
  readonly #scratch = new SharedArrayBuffer(4);
  #placements: Placement[] = [];
  /** Where regions were that late code may still touch. */
  readonly #left = new Set<Extent>();
  #table = new RegionTable();
  #guard: MemoryGuard | undefined;
  readonly #quarantine: Quarantine;
  /** Called when memory is lost while it is mapped, after the thread that touched it went on. */
  onLost: ((lost: LostMemory) => void) | undefined;

  /** @param quarantine Runs calls that other holders of a file can hold up. */
  constructor(quarantine: Quarantine = new Quarantine()) {
    this.#quarantine = quarantine;
  }

  /** What another thread needs to see the same memory. */
  get handle(): MemoryHandle {
    return { base: this.#span.base, bytes: this.#span.bytes, scratch: this.#scratch };
  }

  /** The regions in force; those that were lost are not among them. */
  get regions(): RegionTable {
    return this.#table;
  }

  /** Whether bytes of the span lie in a region and are all zero. Slow: not for each request. */
  isZero(index: number, bytes: number): boolean {
    const isInside = this.#table.regions.some((region) =>
      index >= region.index && index + bytes <= region.index + region.bytes
    );
    if (!isInside) return false;
    return new Uint8Array(bufferAt(this.#span.base + index, bytes)).every((byte) => byte === 0);
  }

  /** Whether memory is zero wherever firmware and kernels begin: no guest has run. Slow too. */
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
   * Maps a region, whose file was given to {@linkcode GuestMemory.prepare}. The descriptor stays
   * the caller's and may be closed at once.
   *
   * @throws {RegionError} As {@linkcode GuestMemory.plan}; nothing has changed then.
   */
  add(request: RegionRequest, fd: number): void {
    using plan = this.plan([request], [fd], false);
    this.commit(plan);
  }

  /**
   * Puts regions in the place of all others.
   *
   * @throws {RegionError} As {@linkcode GuestMemory.plan}; nothing has changed then.
   */
  replace(requests: readonly RegionRequest[], fds: readonly number[]): void {
    using plan = this.plan(requests, fds, true);
    this.commit(plan);
  }

  /**
   * Checks and gets everything that regions need, and changes nothing.
   * {@linkcode GuestMemory.commit} follows, or the plan is disposed of. The
   * descriptors have to stay open till then.
   *
   * @param isReplacing They come in the place of all others, and not beside them
   * @throws {RegionError} When a region is empty, overlaps another one, does not fit, or its file
   * is too short or not prepared.
   */
  plan(
    requests: readonly RegionRequest[],
    fds: readonly number[],
    isReplacing: boolean,
  ): MemoryPlan {
    const others: Placement[] = isReplacing ? [] : [...this.#placements];
    using made = new DisposableStack();
    const placements = requests.map((request, i) => {
      const placement = this.#planOne(request, fds[i], others, made);
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

  #planOne(
    request: RegionRequest,
    fd: number,
    others: readonly Placement[],
    made: DisposableStack,
  ): PlannedPlacement {
    const checked = checkRegion(request, fd, others.map(({ region }) => region));
    const { region, fileOffset, slack, mappedBytes, pageBytes } = checked;
    const trial = made.use(tryMapping(mappedBytes, fd, fileOffset));
    const wanted = region.guestAddress - slack;
    const start = this.#place(wanted, mappedBytes, pageBytes, nameOf(region), others);
    const placement: PlannedPlacement = {
      region: { ...region, index: start + slack },
      ...{ start, end: start + mappedBytes, pageBytes, isLost: false, fd, fileOffset, trial },
    };
    if (!checked.isSealed) {
      if (this.#guard === undefined) {
        throw new TypeError("Expected a file that was prepared, got one that can become shorter");
      }
      const mapping = { fd, fileOffset, pageBytes };
      placement.guard = made.use(this.#guard.prepare(mapping, () => this.#lose(placement)));
    }
    return placement;
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
        // What stays in the plan is disposed of with it.
        this.#placements.push(...plan.placements.splice(0, 1));
      }
    } finally {
      this.#publish();
    }
  }

  /** Takes a region out of the table; its pages stay mapped until {@linkcode GuestMemory.dropLost}. */
  #lose(placement: Placement): void {
    if (placement.isLost) return;
    placement.isLost = true;
    this.#publish();
    this.onLost?.(placement.region);
  }

  /**
   * Unmaps lost regions, in whose place are zeros of this process. No queue may touch them any
   * more. The regions still have to be removed.
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
    pageBytes: number,
    name: string,
    others: readonly Extent[],
  ): number {
    const taken = [...others, ...this.#left];
    const isFree = (start: number) =>
      start >= 0 && start + bytes <= SPAN_BYTES &&
      !taken.some((other) => overlaps(start, bytes, other.start, other.end - other.start));
    if (wanted % pageBytes === 0 && isFree(wanted)) return wanted;
    const ends = [SPAN_BYTES, ...taken.map((other) => other.start)];
    for (const end of ends.sort((a, b) => b - a)) {
      const start = Math.floor((end - bytes) / pageBytes) * pageBytes;
      if (isFree(start)) return start;
    }
    throw new RegionError(
      `Expected room for region ${name} in ${hex(SPAN_BYTES)} addresses, got none`,
    );
  }

  /**
   * Removes the region that has this guest address, user address and size.
   *
   * @throws {RegionError} When there is no such region.
   */
  remove({ guestAddress, userAddress, size }: RegionRequest): void {
    const at = this.#placements.findIndex(({ region }) =>
      region.guestAddress === Number(guestAddress) &&
      region.userAddress === Number(userAddress) && region.bytes === Number(size)
    );
    if (at < 0) {
      throw new RegionError(
        `Expected a region that was added, got ${hex(guestAddress)}+${hex(size)}`,
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
   * Moves all regions to other places of the span, while no ring runs, and maps zeros of this
   * process where they were: late code that uses old places touches those, and not the guest. A
   * region for which no other place can be found is lost.
   *
   * @param kept What stays readable at its old place, up to 64 MiB
   * @returns Frees the old places when it is disposed of, once nothing can access them.
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

  /** Maps a region elsewhere too; where that fails it is lost. */
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
    const present = this.#placements.filter(({ isLost }) => !isLost);
    this.#table = new RegionTable(present.map(({ region }) => region));
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
