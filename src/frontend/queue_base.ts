import { createEventfd, drainEventfd, type Fd, signalEventfd } from "../linux/mod.ts";
import { Epoll, EPOLLIN } from "../linux/wait/epoll.ts";
import { ringBytes } from "../virtqueue/mod.ts";
import type { ChainSlots } from "./chain_slots.ts";
import type { AddOptions, BufferPart, DriverRing } from "./driver_ring.ts";
import { FrontendError } from "./frontend_error.ts";
import type { DriverMemory, SharedMemory } from "./shared_memory.ts";
import { DEFAULT_TIMEOUT_MS, readable } from "./wait.ts";

/** The size of a descriptor, of either layout. */
export const DESCRIPTOR_BYTES = 16;

const CACHE_LINE_BYTES = 64;

/** How a driver's queue is made. */
export interface DriverQueueOptions {
  /**
   * The number of descriptors: up to 32768, and of a split ring a power of two.
   *
   * @default {256}
   */
  size?: number;
  /**
   * VIRTIO_F_EVENT_IDX was negotiated.
   *
   * @default {true}
   */
  eventIndex?: boolean;
  /**
   * VIRTIO_F_IN_ORDER was negotiated.
   *
   * @default {false}
   */
  inOrder?: boolean;
  /**
   * How many parts an indirect chain has at the most; 0 if
   * VIRTIO_F_INDIRECT_DESC was not negotiated. Each descriptor has a table of
   * its own of so many entries of 16 bytes.
   *
   * @default {32}
   */
  indirectParts?: number;
}

/** Where the parts of a ring are. */
export interface RingPlaces {
  /** The number of descriptors. */
  size: number;
  /** Guest physical address of the descriptor table (descriptor ring). */
  descriptorGpa: number;
  /** Guest physical address of the available ring (driver event suppression). */
  availableGpa: number;
  /** Guest physical address of the used ring (device event suppression). */
  usedGpa: number;
}

/** Numbers with which another thread can drive a queue; see {@linkcode openDriverQueue}. */
export interface DriverQueueHandle extends RingPlaces {
  /** VIRTIO_F_RING_PACKED was negotiated. */
  packed: boolean;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  eventIndex: boolean;
  /** VIRTIO_F_IN_ORDER was negotiated. */
  inOrder: boolean;
  /** Where a packed ring stands, as SET_VRING_BASE has it; a split ring has that in its memory. */
  base: number;
  /** How many parts an indirect chain has at the most. */
  indirectParts: number;
  /** Guest physical address of the indirect tables, one for each descriptor. */
  tablesGpa: number;
  /** The eventfd that notifies the device. */
  kickFd: number;
  /** The eventfd by which the device notifies the driver. */
  callFd: number;
  /** The eventfd by which the device says that the queue is broken. */
  errFd: number;
}

/**
 * What a driver's queues of both layouts have in common: everything but the
 * ring itself. Every object is for one thread; another thread of this process
 * takes the queue over with {@linkcode openDriverQueue} while nothing is in
 * flight.
 */
export abstract class DriverQueueBase implements DriverRing, Disposable {
  readonly size: number;
  written = 0;
  readonly #slots: ChainSlots;
  readonly #fixed: Readonly<DriverQueueHandle>;
  readonly #owned: Disposable[] = [];
  #epoll: Epoll | undefined;

  /** Begins with the numbers of a ring and its slots, all free. */
  constructor(handle: DriverQueueHandle, slots: ChainSlots) {
    this.size = handle.size;
    this.#fixed = handle;
    this.#slots = slots;
  }

  /** How many descriptors are free. */
  get free(): number {
    return this.#slots.free;
  }

  /** How many chains are in the ring and not polled back. */
  get inFlight(): number {
    return this.#slots.inFlight;
  }

  /** What another thread needs to drive this queue from where it stands. */
  get handle(): Readonly<DriverQueueHandle> {
    return { ...this.#fixed, base: this.resumeBase };
  }

  abstract readonly resumeBase: number;

  abstract begin(count: number, indirect?: boolean): boolean;
  abstract descriptor(gpa: number, bytes: number, writable: boolean): void;
  abstract end(): number;
  abstract publish(): boolean;
  abstract poll(): number;
  abstract arm(): boolean;
  abstract disarm(): void;
  abstract requeue(): void;
  abstract reset(base?: number): void;

  add(
    readable: readonly BufferPart[],
    writable: readonly BufferPart[],
    { indirect = false }: AddOptions = {},
  ): number {
    if (!this.begin(readable.length + writable.length, indirect)) return -1;
    for (const { gpa, bytes } of readable) this.descriptor(gpa, bytes, false);
    for (const { gpa, bytes } of writable) this.descriptor(gpa, bytes, true);
    return this.end();
  }

  kick(): void {
    signalEventfd(this.#fixed.kickFd);
  }

  /**
   * Publishes, and notifies the device if it wants that.
   *
   * @returns Whether it was notified
   */
  submit(): boolean {
    const wanted = this.publish();
    if (wanted) this.kick();
    return wanted;
  }

  /**
   * Waits for a completion without blocking the event loop.
   *
   * @param timeoutMs How long at the most
   * @returns Whether there is one
   */
  async ready(timeoutMs: number = DEFAULT_TIMEOUT_MS): Promise<boolean> {
    const { callFd } = this.#fixed;
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      if (this.arm()) return true;
      const left = deadline - performance.now();
      if (left <= 0 || !await readable(callFd, left)) return this.arm();
      drainEventfd(callFd);
    }
  }

  /**
   * Waits for a completion and blocks this thread meanwhile.
   *
   * @param timeoutMs How long at the most; -1 for ever
   * @returns Whether there is one
   */
  wait(timeoutMs: number = DEFAULT_TIMEOUT_MS): boolean {
    const { callFd } = this.#fixed;
    if (this.#epoll === undefined) {
      this.#epoll = new Epoll();
      this.#epoll.add(callFd, EPOLLIN, 0);
    }
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      if (this.arm()) return true;
      const left = timeoutMs < 0 ? -1 : Math.max(0, Math.ceil(deadline - performance.now()));
      if (left === 0) return false;
      this.#epoll.wait(left);
      drainEventfd(callFd);
    }
  }

  /**
   * Leaves memory and eventfds to this object, to give back at its end.
   *
   * @internal
   */
  own(parts: Iterable<Disposable>): void {
    this.#owned.push(...parts);
  }

  /** Gives the ring's memory and eventfds back, if this object made them. */
  [Symbol.dispose](): void {
    this.#epoll?.[Symbol.dispose]();
    this.#epoll = undefined;
    for (const part of this.#owned.splice(0)) part[Symbol.dispose]();
  }
}

/**
 * Makes a ring in shared memory, and its eventfds; they are the queue's.
 *
 * @throws {RangeError} If the size is wrong or the memory has no room
 */
export function makeQueue<T extends DriverQueueBase>(
  memory: SharedMemory,
  options: DriverQueueOptions & { packed: boolean },
  make: (handle: DriverQueueHandle) => T,
): T {
  const { size = 256, eventIndex = true, inOrder = false, indirectParts = 32, packed } = options;
  const owned: Disposable[] = [];
  const hold = memory.hold();
  const alloc = (bytes: number): number => {
    const gpa = memory.alloc(bytes, CACHE_LINE_BYTES);
    owned.push({ [Symbol.dispose]: () => memory.free(gpa) });
    return gpa;
  };
  const eventfd = (): number => {
    const fd: Fd = createEventfd();
    owned.push(fd);
    return fd.number;
  };
  try {
    const parts = ringBytes(size, packed);
    const queue = make({
      size,
      packed,
      eventIndex,
      inOrder,
      indirectParts,
      base: 0,
      descriptorGpa: alloc(parts.descriptor),
      availableGpa: alloc(parts.available),
      usedGpa: alloc(parts.used),
      tablesGpa: indirectParts > 0 ? alloc(size * indirectParts * DESCRIPTOR_BYTES) : 0,
      kickFd: eventfd(),
      callFd: eventfd(),
      errFd: eventfd(),
    });
    queue.own([...owned, hold]);
    queue.reset();
    return queue;
  } catch (error) {
    for (const part of [...owned, hold]) part[Symbol.dispose]();
    throw error;
  }
}

/**
 * The indirect tables of a ring, one for each descriptor.
 *
 * @internal
 */
export function viewTables(
  memory: DriverMemory,
  { size, indirectParts, tablesGpa }: DriverQueueHandle,
): Uint32Array<ArrayBuffer> {
  if (indirectParts === 0) return new Uint32Array(0);
  const bytes = size * indirectParts * DESCRIPTOR_BYTES;
  const { buffer, offset } = memory.locate(tablesGpa, bytes);
  return new Uint32Array(buffer, offset, bytes / 4);
}

/**
 * Whether a chain fits; the same for both layouts.
 *
 * @internal
 */
export function hasRoom(
  count: number,
  indirect: boolean,
  free: number,
  indirectParts: number,
): boolean {
  if (count < 1) throw new RangeError(`Expected a chain of at least 1 part, got ${count}`);
  if (!indirect) return count <= free;
  if (count > indirectParts) {
    throw new RangeError(
      `Expected an indirect chain of at most ${indirectParts} parts, got ${count}`,
    );
  }
  return free > 0;
}

/**
 * The device gave back what is not in flight.
 *
 * @internal
 */
export function notInFlight(where: string, head: number): FrontendError {
  return new FrontendError("device", `Expected a chain in flight in ${where}, got ${head}`);
}
