import {
  createEventfd,
  drainEventfd,
  Epoll,
  EPOLLIN,
  type Fd,
  signalEventfd,
} from "../linux/mod.ts";
import { MAX_QUEUE_SIZE, needsEvent, splitRingBytes } from "../virtqueue/mod.ts";
import type { AddOptions, BufferPart, DriverRing } from "./driver_ring.ts";
import { FrontendError } from "./frontend_error.ts";
import { RawSplitRing, type SplitRingPlaces } from "./raw_split_ring.ts";
import type { DriverMemory, SharedMemory } from "./shared_memory.ts";
import { DEFAULT_TIMEOUT_MS, readable } from "./wait.ts";

const VIRTQ_DESC_F_NEXT = 1; // virtio 1.3, 2.7.5
const VIRTQ_DESC_F_WRITE = 2;
const VIRTQ_DESC_F_INDIRECT = 4;
const VIRTQ_AVAIL_F_NO_INTERRUPT = 1; // virtio 1.3, 2.7.6
const VIRTQ_USED_F_NO_NOTIFY = 1; // virtio 1.3, 2.7.8

// Places in the rings, in units of u16.
const FLAGS = 0;
const IDX = 1;
const RING = 2;

const DESCRIPTOR_BYTES = 16;
const CACHE_LINE_BYTES = 64;

/** How a {@linkcode DriverQueue} is made. */
export interface DriverQueueOptions {
  /**
   * The number of descriptors, a power of two up to 32768.
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
   * How many parts an indirect chain has at the most; 0 if
   * VIRTIO_F_INDIRECT_DESC was not negotiated. Each descriptor has a table of
   * its own of so many entries of 16 bytes.
   *
   * @default {32}
   */
  indirectParts?: number;
}

/** Numbers with which another thread can drive a {@linkcode DriverQueue}. */
export interface DriverQueueHandle extends SplitRingPlaces {
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  eventIndex: boolean;
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
 * The driver's side of a split virtqueue: virtio 1.3, 2.7.
 *
 * The core (`begin`, `descriptor`, `end`, `publish`, `poll`) allocates nothing
 * and makes no system call. Every object is for one thread; another thread of
 * this process takes the queue over with `new DriverQueue(view, queue.handle)`
 * while nothing is in flight.
 *
 * As in the device, indexes and event fields go through Atomics and everything
 * else is plain, ordered by them; each part has small views of its own.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { DriverQueue, SharedMemory } from "@vhostd/vhostd/frontend";
 *
 * using memory = new SharedMemory(1 << 20);
 * using queue = DriverQueue.create(memory, { size: 8 });
 * const gpa = memory.alloc(64);
 * const head = queue.add([{ gpa, bytes: 16 }], [{ gpa: gpa + 16, bytes: 48 }]);
 * assertEquals(queue.publish(), true); // the device wants to know
 * assertEquals([queue.inFlight, queue.free], [1, 6]);
 *
 * // What a device does:
 * queue.raw.setUsed(0, head, 48);
 * queue.raw.usedIndex = 1;
 * assertEquals([queue.poll(), queue.written, queue.poll()], [head, 48, -1]);
 * ```
 */
export class DriverQueue implements DriverRing, Disposable {
  readonly size: number;
  free: number;
  inFlight = 0;
  written = 0;
  /** What another thread needs to drive this queue. */
  readonly handle: Readonly<DriverQueueHandle>;
  /** The ring's memory without any rule, for what a driver must not do. */
  readonly raw: RawSplitRing;

  readonly #mask: number;
  readonly #eventIndex: boolean;
  readonly #indirectParts: number;
  readonly #tablesGpa: number;
  readonly #kickFd: number;
  readonly #usedEvent: number;
  readonly #availableEvent: number;
  readonly #descriptors: Uint32Array<ArrayBuffer>;
  readonly #available: Uint16Array<ArrayBuffer>;
  readonly #used: Uint16Array<ArrayBuffer>;
  readonly #usedElements: Uint32Array<ArrayBuffer>;
  readonly #tables: Uint32Array<ArrayBuffer>;
  /** The descriptor behind each one, in a chain or in the list of free ones. */
  readonly #links: Uint16Array<ArrayBuffer>;
  /** By head: the last descriptor of a chain in flight. */
  readonly #tails: Uint16Array<ArrayBuffer>;
  /** By head: how many descriptors a chain in flight has; 0 if there is none. */
  readonly #counts: Uint16Array<ArrayBuffer>;
  /** By head: the how-manieth chain it was, modulo 2^32. */
  readonly #order: Uint32Array<ArrayBuffer>;
  #ended = 0;
  #firstFree = 0;
  /** The available index, including what is not published. */
  #next = 0;
  #published = 0;
  #usedNext = 0;
  /** The used index as last read. */
  #usedSeen = 0;

  // The chain that was begun.
  #remaining = -1;
  #table = -1;
  #head = 0;
  #last = 0;
  #count = 0;

  readonly #owned: Disposable[] = [];
  #epoll: Epoll | undefined;

  /**
   * Takes a ring over where its indexes stand; nothing may be in flight.
   * {@linkcode DriverQueue.create} makes a new one.
   */
  constructor(memory: DriverMemory, handle: DriverQueueHandle) {
    const { size, eventIndex, indirectParts, tablesGpa, kickFd } = handle;
    if (!(size >= 1 && size <= MAX_QUEUE_SIZE) || (size & (size - 1)) !== 0) {
      throw new RangeError(
        `Expected a queue size that is a power of two up to ${MAX_QUEUE_SIZE}, got ${size}`,
      );
    }
    const parts = splitRingBytes(size);
    const descriptors = memory.locate(handle.descriptorGpa, parts.descriptor);
    const available = memory.locate(handle.availableGpa, parts.available);
    const used = memory.locate(handle.usedGpa, parts.used);
    this.size = this.free = size;
    this.handle = handle;
    this.raw = new RawSplitRing(memory, handle);
    this.#mask = size - 1;
    this.#eventIndex = eventIndex;
    this.#indirectParts = indirectParts;
    this.#tablesGpa = tablesGpa;
    this.#kickFd = kickFd;
    this.#usedEvent = RING + size;
    this.#availableEvent = RING + size * 4;
    this.#descriptors = new Uint32Array(descriptors.buffer, descriptors.offset, size * 4);
    this.#available = new Uint16Array(available.buffer, available.offset, RING + size + 1);
    this.#used = new Uint16Array(used.buffer, used.offset, RING + size * 4 + 1);
    this.#usedElements = new Uint32Array(used.buffer, used.offset + 4, size * 2);
    if (indirectParts > 0) {
      const tables = memory.locate(tablesGpa, tableBytes(size, indirectParts));
      this.#tables = new Uint32Array(tables.buffer, tables.offset, size * indirectParts * 4);
    } else {
      this.#tables = new Uint32Array(0);
    }
    this.#links = Uint16Array.from({ length: size }, (_, i) => (i + 1) & this.#mask);
    this.#tails = new Uint16Array(size);
    this.#counts = new Uint16Array(size);
    this.#order = new Uint32Array(size);
    this.#next = this.#published = Atomics.load(this.#available, IDX);
    this.#usedNext = this.#usedSeen = Atomics.load(this.#used, IDX);
  }

  /**
   * Makes a ring in shared memory, and its eventfds. Its disposal gives both
   * back, so the device has to be stopped before.
   *
   * @throws {RangeError} If the size is wrong or the memory has no room
   */
  static create(memory: SharedMemory, options: DriverQueueOptions = {}): DriverQueue {
    const { size = 256, eventIndex = true, indirectParts = 32 } = options;
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
      const parts = splitRingBytes(size);
      const queue = new DriverQueue(memory, {
        size,
        eventIndex,
        indirectParts,
        descriptorGpa: alloc(parts.descriptor),
        availableGpa: alloc(parts.available),
        usedGpa: alloc(parts.used),
        tablesGpa: indirectParts > 0 ? alloc(tableBytes(size, indirectParts)) : 0,
        kickFd: eventfd(),
        callFd: eventfd(),
        errFd: eventfd(),
      });
      queue.#owned.push(...owned, hold);
      queue.reset();
      return queue;
    } catch (error) {
      for (const part of [...owned, hold]) part[Symbol.dispose]();
      throw error;
    }
  }

  begin(count: number, indirect = false): boolean {
    if (count < 1) throw new RangeError(`Expected a chain of at least 1 part, got ${count}`);
    if (indirect) {
      if (count > this.#indirectParts) {
        throw new RangeError(
          `Expected an indirect chain of at most ${this.#indirectParts} parts, got ${count}`,
        );
      }
      if (this.free === 0) return false;
      this.#table = this.#firstFree * this.#indirectParts * 4;
    } else {
      if (count > this.free) return false;
      this.#table = -1;
    }
    this.#remaining = this.#count = count;
    this.#head = this.#last = this.#firstFree;
    return true;
  }

  descriptor(gpa: number, bytes: number, writable: boolean): void {
    const remaining = this.#remaining - 1;
    if (remaining < 0) throw new RangeError("Expected no more parts than were announced");
    this.#remaining = remaining;
    let flags = writable ? VIRTQ_DESC_F_WRITE : 0;
    if (remaining > 0) flags |= VIRTQ_DESC_F_NEXT;
    // Storing into a Uint32Array takes the number modulo 2^32.
    if (this.#table < 0) {
      const first = remaining + 1 === this.#count;
      const at = first ? this.#head : this.#links[this.#last];
      const word = at * 4;
      this.#descriptors[word] = gpa;
      this.#descriptors[word + 1] = gpa / 2 ** 32;
      this.#descriptors[word + 2] = bytes;
      this.#descriptors[word + 3] = flags | this.#links[at] << 16;
      this.#last = at;
    } else {
      const entry = this.#count - remaining;
      const word = this.#table + (entry - 1) * 4;
      this.#tables[word] = gpa;
      this.#tables[word + 1] = gpa / 2 ** 32;
      this.#tables[word + 2] = bytes;
      this.#tables[word + 3] = flags | entry << 16;
    }
  }

  end(): number {
    if (this.#remaining !== 0) {
      throw new RangeError(`Expected ${this.#remaining} more parts of the chain`);
    }
    const head = this.#head;
    if (this.#table >= 0) {
      const word = head * 4;
      const gpa = this.#tablesGpa + this.#table * 4;
      this.#descriptors[word] = gpa;
      this.#descriptors[word + 1] = gpa / 2 ** 32;
      this.#descriptors[word + 2] = this.#count * DESCRIPTOR_BYTES;
      this.#descriptors[word + 3] = VIRTQ_DESC_F_INDIRECT;
      this.#count = 1;
    }
    this.#firstFree = this.#links[this.#last];
    this.#tails[head] = this.#last;
    this.#counts[head] = this.#count;
    this.#order[head] = this.#ended++;
    this.free -= this.#count;
    this.inFlight++;
    this.#available[RING + (this.#next & this.#mask)] = head;
    this.#next = (this.#next + 1) & 0xffff;
    this.#remaining = -1;
    return head;
  }

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

  publish(): boolean {
    const next = this.#next;
    const previous = this.#published;
    if (next === previous) return false;
    Atomics.store(this.#available, IDX, next);
    this.#published = next;
    if (!this.#eventIndex) {
      return (Atomics.load(this.#used, FLAGS) & VIRTQ_USED_F_NO_NOTIFY) === 0;
    }
    return needsEvent(Atomics.load(this.#used, this.#availableEvent), next, previous);
  }

  kick(): void {
    signalEventfd(this.#kickFd);
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

  poll(): number {
    const at = this.#usedNext;
    if (at === this.#usedSeen) {
      const index = Atomics.load(this.#used, IDX);
      if (index === at) return -1;
      const ahead = (index - at) & 0xffff;
      if (ahead > this.inFlight) {
        throw new FrontendError(
          "device",
          `Expected at most ${this.inFlight} used elements from index ${at} on, got ${ahead}`,
        );
      }
      this.#usedSeen = index;
    }
    const element = (at & this.#mask) * 2;
    const head = this.#usedElements[element];
    const count = head < this.size ? this.#counts[head] : 0;
    if (count === 0) {
      throw new FrontendError(
        "device",
        `Expected a chain in flight in used element ${at}, got ${head}`,
      );
    }
    this.written = this.#usedElements[element + 1];
    this.#counts[head] = 0;
    this.#links[this.#tails[head]] = this.#firstFree;
    this.#firstFree = head;
    this.free += count;
    this.inFlight--;
    this.#usedNext = (at + 1) & 0xffff;
    return head;
  }

  arm(): boolean {
    if (this.#eventIndex) Atomics.store(this.#available, this.#usedEvent, this.#usedNext);
    else Atomics.store(this.#available, FLAGS, 0);
    return Atomics.load(this.#used, IDX) !== this.#usedNext;
  }

  disarm(): void {
    // As far ahead as can be: it is met once in 2^15 completions, if ever.
    if (this.#eventIndex) {
      Atomics.store(this.#available, this.#usedEvent, this.#usedNext + 0x7fff);
    } else Atomics.store(this.#available, FLAGS, VIRTQ_AVAIL_F_NO_INTERRUPT);
  }

  /**
   * Waits for a completion without blocking the event loop.
   *
   * @param timeoutMs How long at the most
   * @returns Whether there is one
   */
  async ready(timeoutMs: number = DEFAULT_TIMEOUT_MS): Promise<boolean> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      if (this.arm()) return true;
      const left = deadline - performance.now();
      if (left <= 0 || !await readable(this.handle.callFd, left)) return this.arm();
      drainEventfd(this.handle.callFd);
    }
  }

  /**
   * Waits for a completion and blocks this thread meanwhile.
   *
   * @param timeoutMs How long at the most; -1 for ever
   * @returns Whether there is one
   */
  wait(timeoutMs: number = DEFAULT_TIMEOUT_MS): boolean {
    if (this.#epoll === undefined) {
      this.#epoll = new Epoll();
      this.#epoll.add(this.handle.callFd, EPOLLIN, 0);
    }
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      if (this.arm()) return true;
      const left = timeoutMs < 0 ? -1 : Math.max(0, Math.ceil(deadline - performance.now()));
      if (left === 0) return false;
      this.#epoll.wait(left);
      drainEventfd(this.handle.callFd);
    }
  }

  /** The used index: where a device without a memory of its own goes on after a reconnect. */
  get usedIndex(): number {
    return Atomics.load(this.#used, IDX);
  }

  /**
   * Puts every chain in flight into the available ring again, in the order in
   * which they were added, so that a device that starts at
   * {@linkcode DriverQueue.usedIndex} sees each of them once. Only while no
   * device uses the ring; poll before.
   */
  requeue(): void {
    const heads: number[] = [];
    for (let head = 0; head < this.size; head++) if (this.#counts[head] > 0) heads.push(head);
    const order = this.#order;
    heads.sort((a, b) => (order[a] - this.#ended | 0) - (order[b] - this.#ended | 0));
    this.#next = this.#usedNext;
    for (const head of heads) {
      this.#available[RING + (this.#next & this.#mask)] = head;
      this.#next = (this.#next + 1) & 0xffff;
    }
    this.#published = this.#next;
    Atomics.store(this.#available, IDX, this.#next);
  }

  /**
   * Makes the ring new: all zero, nothing in flight, next at 0. Only while no
   * device uses it.
   *
   * @param base Where both indexes begin, instead of 0
   */
  reset(base = 0): void {
    this.#descriptors.fill(0);
    this.#available.fill(0);
    this.#used.fill(0);
    for (let i = 0; i < this.size; i++) this.#links[i] = (i + 1) & this.#mask;
    this.#counts.fill(0);
    this.#firstFree = 0;
    this.free = this.size;
    this.inFlight = 0;
    this.#next =
      this.#published =
      this.#usedNext =
      this.#usedSeen =
        base & 0xffff;
    Atomics.store(this.#available, IDX, base);
    Atomics.store(this.#used, IDX, base);
    // Nobody waits yet, and the device shall notify of the first completion.
    if (this.#eventIndex) {
      Atomics.store(this.#available, this.#usedEvent, base);
      Atomics.store(this.#used, this.#availableEvent, base);
    }
  }

  /** Gives the ring's memory and eventfds back, if this object made them. */
  [Symbol.dispose](): void {
    this.#epoll?.[Symbol.dispose]();
    this.#epoll = undefined;
    for (const part of this.#owned.splice(0)) part[Symbol.dispose]();
  }
}

function tableBytes(size: number, indirectParts: number): number {
  return size * indirectParts * DESCRIPTOR_BYTES;
}
