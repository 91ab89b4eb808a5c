import { createEventfd, drainEventfd, type Fd, signalEventfd } from "../linux/mod.ts";
import { Epoll, EPOLLIN } from "../linux/wait/epoll.ts";
import { MAX_QUEUE_SIZE, ringBytes } from "../virtqueue/mod.ts";
import { ChainSlots } from "./chain_slots.ts";
import { FrontendError } from "./frontend_error.ts";
import type { DriverMemory, SharedMemory } from "./shared_memory.ts";
import { DEFAULT_TIMEOUT_MS, readable } from "./wait.ts";

const DESCRIPTOR_BYTES = 16;
const CACHE_LINE_BYTES = 64;

// virtio 1.3, 2.7.5 and 2.8.13
const VIRTQ_DESC_F_NEXT = 1;
export const VIRTQ_DESC_F_WRITE = 2;
const VIRTQ_DESC_F_INDIRECT = 4;

/** A part of a buffer: memory that the device reads or writes. */
export interface BufferPart {
  /** Its guest physical address. */
  gpa: number;
  /** Its size in bytes. */
  bytes: number;
}

/** How a chain is put into a ring. */
export interface AddOptions {
  /**
   * Use an indirect table: one descriptor of the ring, whatever the number of parts. Needs
   * VIRTIO_F_INDIRECT_DESC.
   *
   * @default {false}
   */
  indirect?: boolean;
}

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
   * The most parts of an indirect chain; 0 if VIRTIO_F_INDIRECT_DESC was not negotiated. Each
   * descriptor has its own table with this number of entries of 16 bytes.
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
 * A virtqueue seen from the driver: what both layouts have in common. An object is for one thread;
 * another thread of this process takes the queue over with {@linkcode openDriverQueue} while
 * nothing is in flight.
 *
 * The core allocates nothing and makes no system call: {@linkcode DriverRing.begin},
 * {@linkcode DriverRing.descriptor} for each part, {@linkcode DriverRing.end}; after some chains
 * {@linkcode DriverRing.publish}, and {@linkcode DriverRing.kick} when that says so. Completions
 * come from {@linkcode DriverRing.poll}.
 *
 * A guest physical address from 2^31 on is no small integer to V8: where a call of `descriptor` is
 * not inlined, it costs 16 bytes of garbage. A load generator places its memory below that.
 */
export abstract class DriverRing implements Disposable {
  /** The number of descriptors. */
  readonly size: number;
  /** How many bytes the device wrote to the chain that was polled last. */
  written = 0;
  readonly #fixed: Readonly<DriverQueueHandle>;
  readonly #packed: boolean;
  readonly #owned: Disposable[] = [];
  #epoll: Epoll | undefined;

  /** @internal */
  protected readonly slots: ChainSlots;
  /** @internal */
  protected readonly eventIndex: boolean;
  /** The indirect tables, one for each descriptor. */
  readonly #tables: Uint32Array<ArrayBuffer>;
  /**
   * In order: the last chain of the batch that is being polled.
   *
   * @internal
   */
  protected batchEnd = -1;
  #batchWritten = 0;

  // The chain that was begun: its indirect table or -1, its descriptors, its device-writable bytes.
  #table = -1;
  #count = 0;
  #writableBytes = 0;
  /**
   * The parts that are still to come; -1 where no chain was begun.
   *
   * @internal
   */
  protected remaining = -1;
  /**
   * Its last slot.
   *
   * @internal
   */
  protected last = 0;

  /** Checks a ring's size and looks at its indirect tables. */
  constructor(memory: DriverMemory, handle: DriverQueueHandle, packed: boolean) {
    const { size, indirectParts } = handle;
    if (handle.packed !== packed) {
      const kinds = packed ? "a packed ring, got a split" : "a split ring, got a packed";
      throw new RangeError(`Expected the handle of ${kinds} one's`);
    }
    if (!(size >= 1 && size <= MAX_QUEUE_SIZE) || (!packed && (size & (size - 1)) !== 0)) {
      const kind = packed ? "queue size" : "queue size that is a power of two";
      throw new RangeError(`Expected a ${kind} up to ${MAX_QUEUE_SIZE}, got ${size}`);
    }
    this.size = size;
    this.#fixed = handle;
    this.#packed = packed;
    this.slots = new ChainSlots(size, handle.inOrder);
    this.eventIndex = handle.eventIndex;
    const bytes = size * indirectParts * DESCRIPTOR_BYTES;
    const tables = bytes > 0 ? memory.locate(handle.tablesGpa, bytes) : undefined;
    this.#tables = tables === undefined
      ? new Uint32Array(0)
      : new Uint32Array(tables.buffer, tables.offset, bytes / 4);
  }

  /** How many descriptors are free. */
  get free(): number {
    return this.slots.free;
  }

  /** How many chains are in the ring and not polled back. */
  get inFlight(): number {
    return this.slots.inFlight;
  }

  /** What another thread needs to drive this queue from where it stands. */
  get handle(): Readonly<DriverQueueHandle> {
    return { ...this.#fixed, base: this.resumeBase };
  }

  /**
   * Where a device without a memory of its own resumes after a reconnect, as SET_VRING_BASE has it:
   * behind what was used. Poll before.
   */
  abstract readonly resumeBase: number;

  /**
   * Begins a chain of `count` parts. A chain that was begun and not ended is forgotten.
   *
   * @returns Whether there is room; if not, nothing was begun
   */
  begin(count: number, indirect = false): boolean {
    const { free, first } = this.slots;
    const { indirectParts } = this.#fixed;
    if (count < 1) throw new RangeError(`Expected a chain of at least 1 part, got ${count}`);
    if (indirect && count > indirectParts) {
      throw new RangeError(
        `Expected an indirect chain of at most ${indirectParts} parts, got ${count}`,
      );
    }
    if (free < (indirect ? 1 : count)) return false;
    this.#table = indirect ? first * indirectParts * 4 : -1;
    this.remaining = this.#count = count;
    this.last = first;
    this.#writableBytes = 0;
    return true;
  }

  /** Adds a part to the chain that was begun: readable ones first (virtio 1.3, 2.6.4.2). */
  descriptor(gpa: number, bytes: number, writable: boolean): void {
    const remaining = this.remaining - 1;
    if (remaining < 0) throw new RangeError("Expected no more parts than were announced");
    this.remaining = remaining;
    let flags = 0;
    if (writable) {
      flags = VIRTQ_DESC_F_WRITE;
      this.#writableBytes += bytes;
    }
    const next = remaining > 0 ? flags | VIRTQ_DESC_F_NEXT : flags;
    if (this.#table < 0) return this.write(gpa, bytes, next, remaining + 1 === this.#count);
    const entry = this.#count - remaining;
    const tables = this.#tables, word = this.#table + (entry - 1) * 4;
    // Storing into a Uint32Array takes the number modulo 2^32.
    tables[word] = gpa;
    tables[word + 1] = gpa / 2 ** 32;
    tables[word + 2] = bytes;
    // In a packed ring's table, the flags but WRITE are reserved: virtio 1.3, 2.8.7.
    tables[word + 3] = this.#packed ? flags << 16 : next | entry << 16;
  }

  /**
   * Ends the chain. The device sees it after {@linkcode DriverRing.publish}.
   *
   * @returns Its number, which {@linkcode DriverRing.poll} gives back; below `size`
   */
  end(): number {
    if (this.remaining !== 0) {
      throw new RangeError(`Expected ${this.remaining} more parts of the chain`);
    }
    if (this.#table >= 0) {
      const gpa = this.#fixed.tablesGpa + this.#table * 4;
      this.write(gpa, this.#count * DESCRIPTOR_BYTES, VIRTQ_DESC_F_INDIRECT, true);
      this.#count = 1;
    }
    this.remaining = -1;
    const head = this.slots.add(this.last, this.#count, this.#writableBytes);
    this.ended(head);
    return head;
  }

  /**
   * Writes the next descriptor of the chain into the ring, and makes its slot the last one.
   *
   * @internal
   */
  protected abstract write(gpa: number, bytes: number, flags: number, isFirst: boolean): void;

  /**
   * Takes a chain that is complete.
   *
   * @internal
   */
  protected abstract ended(head: number): void;

  /**
   * Makes every chain that was ended visible to the device.
   *
   * @returns Whether the device wants a notification of it
   */
  abstract publish(): boolean;

  /**
   * Takes the next chain that the device is done with.
   *
   * @returns Its number, free for a new chain from now on; -1 where there is none
   * @throws {FrontendError} With reason "device", if the device completed a chain not in flight
   */
  abstract poll(): number;

  /**
   * Asks the device for a notification of the next completion.
   *
   * @returns Whether there are completions already, for which none will come
   */
  abstract arm(): boolean;

  /** Tells the device that notifications are not needed. A hint: some may come. */
  abstract disarm(): void;

  /**
   * Makes every chain in flight available again, in the order in which they were added, so that a
   * device that starts at {@linkcode DriverRing.resumeBase} sees each of them once. Only while no
   * device uses the ring; poll before.
   */
  abstract requeue(): void;

  /**
   * Makes the ring new, with nothing in flight. Only while no device uses it.
   *
   * @param base Where it begins, as SET_VRING_BASE has it, instead of at its beginning
   */
  abstract reset(base?: number): void;

  /**
   * Notes what the device used: a chain, or in order all chains up to that one.
   *
   * @internal
   */
  protected used(where: string, at: number, head: number, written: number): void {
    if (!this.slots.isInFlight(head)) {
      throw new FrontendError(
        "device",
        `Expected a chain in flight in ${where} ${at}, got ${head}`,
      );
    }
    this.written = written;
    if (!this.slots.inOrder) return;
    this.batchEnd = head;
    this.#batchWritten = written;
  }

  /**
   * The oldest chain, which is the next one in order.
   *
   * @internal
   */
  protected pollOldest(): number {
    const { oldest, writableBytes } = this.slots;
    this.written = writableBytes[oldest];
    if (oldest === this.batchEnd) {
      this.batchEnd = -1;
      this.written = this.#batchWritten;
    }
    return oldest;
  }

  /**
   * Adds a whole chain: `begin`, `descriptor` and `end` in one.
   *
   * @returns Its number, or -1 where there is no room
   */
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

  /** Notifies the device, wanted or not. */
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
export function makeQueue<T extends DriverRing>(
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
