import { bufferAt, createMemfd, type Fd, Mapping } from "../linux/mod.ts";
import type { MemoryRegion } from "../vhost_user/mod.ts";
import { Allocator } from "./allocator.ts";

/**
 * Where memory begins unless told otherwise: above 32 bits, so that a device that loses the upper
 * half of an address is found out.
 */
const DEFAULT_GUEST_ADDRESS = 2 ** 32;

/** A region of shared memory to make. */
export interface SharedRegionOptions {
  /** Its size in bytes; need not be a multiple of a page. */
  bytes: number;
  /**
   * Its first guest physical address.
   *
   * @default {behind the regions that there are, the first at 4 GiB}
   */
  guestAddress?: number;
  /**
   * Its first address in the front-end's own address space, as the back-end is told. Ring addresses
   * are made of it.
   *
   * @default {where it is mapped here}
   */
  userAddress?: number;
  /**
   * Where it begins in its file, in bytes.
   *
   * @default {0}
   */
  mmapOffset?: number;
}

/** Numbers with which any thread of this process can see a region. */
export interface SharedRegionHandle {
  /** Its first guest physical address. */
  guestAddress: number;
  /** Its size in bytes. */
  bytes: number;
  /** Its first address in the front-end's own address space, as the back-end is told. */
  userAddress: number;
  /** Where it is mapped in this process. */
  address: number;
}

/** Memory that a driver shares with its device, by guest physical address. It owns nothing. */
export class DriverMemory {
  #regions: readonly { handle: SharedRegionHandle; buffer: ArrayBuffer }[];

  /** Views regions that this process has mapped. */
  constructor(handle: readonly SharedRegionHandle[]) {
    this.#regions = handle.map((region) => ({
      handle: region,
      buffer: bufferAt(region.address, region.bytes),
    }));
  }

  /** What another thread needs to see the same memory; see {@linkcode viewSharedMemory}. */
  get handle(): SharedRegionHandle[] {
    return this.#regions.map(({ handle }) => handle);
  }

  /**
   * The buffer that holds a guest physical address, and where in it.
   *
   * @throws {RangeError} If the range is not wholly in one region
   */
  locate(gpa: number, bytes: number): { buffer: ArrayBuffer; offset: number } {
    const { buffer, offset } = this.#find(gpa, bytes);
    return { buffer, offset };
  }

  /**
   * A view of `bytes` bytes at a guest physical address. It is the memory itself, not a copy, and
   * ends with its owner.
   *
   * @throws {RangeError} If the range is not wholly in one region
   */
  at(gpa: number, bytes: number): Uint8Array<ArrayBuffer> {
    const { buffer, offset } = this.#find(gpa, bytes);
    return new Uint8Array(buffer, offset, bytes);
  }

  /**
   * The front-end's own address for a guest physical address, as SET_VRING_ADDR wants it.
   *
   * @throws {RangeError} If it is in no region
   */
  userAddress(gpa: number): number {
    const { handle, offset } = this.#find(gpa, 1);
    return handle.userAddress + offset;
  }

  /**
   * Replaces the regions.
   *
   * @internal
   */
  protected setRegions(regions: readonly SharedRegion[]): void {
    this.#regions = regions.map(({ handle, u8 }) => ({ handle, buffer: u8.buffer }));
  }

  #find(gpa: number, bytes: number) {
    for (const { handle, buffer } of this.#regions) {
      const offset = gpa - handle.guestAddress;
      if (offset >= 0 && offset + bytes <= handle.bytes) return { handle, buffer, offset };
    }
    throw new RangeError(
      `Expected an address inside of one region, got 0x${gpa.toString(16)}+0x${bytes.toString(16)}`,
    );
  }
}

/**
 * Another thread's view of a {@linkcode SharedMemory}, which must outlive it: touching memory that
 * is gone ends the process.
 *
 * @param handle The memory's `handle`, from the thread that owns it
 */
export function viewSharedMemory(handle: SharedRegionHandle[]): DriverMemory {
  return new DriverMemory(handle);
}

/** A region of a {@linkcode SharedMemory}. */
export class SharedRegion implements Disposable {
  /** Its numbers, for other threads. */
  readonly handle: SharedRegionHandle;
  /** As the back-end is told about it. */
  readonly message: MemoryRegion;
  /** All of it. */
  readonly u8: Uint8Array<ArrayBuffer>;
  /** Its memory file; stays the region's. */
  readonly fd: Fd;
  readonly #mapping: Mapping;

  /** Makes a memory file and maps it. */
  constructor(options: SharedRegionOptions & { guestAddress: number }) {
    const { bytes, guestAddress, mmapOffset = 0 } = options;
    if (!(Number.isSafeInteger(bytes) && bytes > 0)) {
      throw new RangeError(`Expected a region of at least 1 byte, got ${bytes}`);
    }
    this.fd = createMemfd("vhostd-frontend", mmapOffset + bytes);
    try {
      // From the file's start, so that any offset will do.
      this.#mapping = new Mapping(this.fd.number, mmapOffset + bytes);
    } catch (error) {
      this.fd.close();
      throw error;
    }
    const address = this.#mapping.address + mmapOffset;
    const { userAddress = address } = options;
    this.handle = { guestAddress, bytes, userAddress, address };
    this.u8 = new Uint8Array(bufferAt(address, bytes));
    this.message = {
      guestAddress: BigInt(guestAddress),
      size: BigInt(bytes),
      userAddress: BigInt(userAddress),
      mmapOffset: BigInt(mmapOffset),
    };
  }

  /** Unmaps and closes it. No view may be touched afterwards. */
  [Symbol.dispose](): void {
    this.#mapping[Symbol.dispose]();
    this.fd.close();
  }
}

/**
 * A driver's memory: memory files that are mapped here and that a back-end is given, and an
 * allocator for them. Rings and buffers live in it.
 *
 * Views of it are the memory itself. After disposal, touching one ends the process.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { SharedMemory } from "@vhostd/vhostd/frontend";
 *
 * using memory = new SharedMemory([{ bytes: 4096 }, { bytes: 8192, guestAddress: 0x1000 }]);
 * const gpa = memory.alloc(512, 512);
 * memory.at(gpa, 512).fill(7);
 * assertEquals(memory.at(gpa + 511, 1)[0], 7);
 * assertEquals(memory.regions[1].message.guestAddress, 0x1000n);
 * ```
 */
export class SharedMemory extends DriverMemory implements Disposable {
  readonly #all: { region: SharedRegion; allocator: Allocator }[] = [];
  #holders = 0;
  #disposed = false;

  /**
   * Makes memory files and maps them.
   *
   * @param regions Its regions; a number is one region of this number of bytes
   * @throws {RangeError} If regions overlap or have no size
   */
  constructor(regions: number | readonly SharedRegionOptions[]) {
    super([]);
    try {
      for (const options of typeof regions === "number" ? [{ bytes: regions }] : regions) {
        this.addRegion(options);
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Its regions, in the order in which they were added. */
  get regions(): readonly SharedRegion[] {
    return this.#all.map(({ region }) => region);
  }

  /**
   * Adds a region. The back-end is for the caller to tell.
   *
   * @throws {RangeError} If it overlaps another one or has no size
   */
  addRegion(options: SharedRegionOptions): SharedRegion {
    const behind = Math.max(
      DEFAULT_GUEST_ADDRESS,
      ...this.handle.map((region) => region.guestAddress + region.bytes),
    );
    const { guestAddress = Math.ceil(behind / 4096) * 4096, bytes } = options;
    for (const other of this.handle) {
      if (
        guestAddress < other.guestAddress + other.bytes && other.guestAddress < guestAddress + bytes
      ) {
        throw new RangeError(
          `Expected regions apart, got 0x${guestAddress.toString(16)}+0x${bytes.toString(16)}`,
        );
      }
    }
    const region = new SharedRegion({ ...options, guestAddress });
    this.#all.push({ region, allocator: new Allocator(guestAddress, bytes) });
    this.setRegions(this.regions);
    return region;
  }

  /**
   * Unmaps a region and forgets it. No view of it may be touched afterwards.
   *
   * @throws {RangeError} If it is not of this memory, or something is allocated in it
   */
  removeRegion(region: SharedRegion): void {
    const at = this.#all.findIndex((entry) => entry.region === region);
    if (at < 0) throw new RangeError("Expected a region of this memory, got another one");
    const { allocator } = this.#all[at];
    if (allocator.size > 0) {
      throw new RangeError(`Expected a region without allocations, got one with ${allocator.size}`);
    }
    this.#all.splice(at, 1);
    this.setRegions(this.regions);
    region[Symbol.dispose]();
  }

  /**
   * Allocates memory, from the first region that has room. It is not cleared.
   *
   * @param bytes Its size
   * @param align What its guest physical address is a multiple of
   * @param region Where it has to be; anywhere by default
   * @returns Its guest physical address
   * @throws {RangeError} If there is no room
   */
  alloc(bytes: number, align = 16, region?: SharedRegion): number {
    for (const entry of this.#all) {
      if (region !== undefined && entry.region !== region) continue;
      const gpa = entry.allocator.alloc(bytes, align);
      if (gpa !== undefined) return gpa;
    }
    throw new RangeError(`Expected room for ${bytes} bytes in the shared memory, got none`);
  }

  /**
   * Gives memory back.
   *
   * @param gpa The address that {@linkcode SharedMemory.alloc} returned
   * @throws {RangeError} If nothing was allocated there
   */
  free(gpa: number): void {
    const entry = this.#all.find(({ region: { handle } }) =>
      gpa >= handle.guestAddress && gpa < handle.guestAddress + handle.bytes
    );
    if (entry === undefined) {
      throw new RangeError(`Expected an address inside of a region, got 0x${gpa.toString(16)}`);
    }
    entry.allocator.free(gpa);
  }

  /** How many allocations have not been given back. */
  get allocations(): number {
    return this.#all.reduce((sum, { allocator }) => sum + allocator.size, 0);
  }

  /**
   * Keeps the memory mapped, also beyond its disposal, until what is returned is disposed of. A
   * {@linkcode DriverQueue} does that for its ring.
   */
  hold(): Disposable {
    let held = true;
    this.#holders++;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        this.#holders--;
        if (this.#disposed) this[Symbol.dispose]();
      },
    };
  }

  /** Unmaps and closes everything, once nothing holds it. No view may be touched afterwards. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    if (this.#holders > 0) return;
    this.setRegions([]);
    for (const { region } of this.#all.splice(0)) region[Symbol.dispose]();
  }
}
