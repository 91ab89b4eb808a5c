import { MAX_QUEUE_SIZE, needsEvent, splitRingBytes } from "../virtqueue/mod.ts";
import { ChainSlots } from "./chain_slots.ts";
import type { DriverRing } from "./driver_ring.ts";
import { FrontendError } from "./frontend_error.ts";
import {
  DESCRIPTOR_BYTES,
  DriverQueueBase,
  type DriverQueueHandle,
  type DriverQueueOptions,
  hasRoom,
  makeQueue,
  notInFlight,
  viewTables,
} from "./queue_base.ts";
import { RawSplitRing } from "./raw_split_ring.ts";
import type { DriverMemory, SharedMemory } from "./shared_memory.ts";

const VIRTQ_DESC_F_NEXT = 1; // virtio 1.3, 2.7.5
const VIRTQ_DESC_F_WRITE = 2;
const VIRTQ_DESC_F_INDIRECT = 4;
const VIRTQ_AVAIL_F_NO_INTERRUPT = 1; // virtio 1.3, 2.7.6
const VIRTQ_USED_F_NO_NOTIFY = 1; // virtio 1.3, 2.7.8

// Places in the rings, in units of u16.
const FLAGS = 0;
const IDX = 1;
const RING = 2;

/**
 * The driver's side of a split virtqueue: virtio 1.3, 2.7.
 *
 * The core (`begin`, `descriptor`, `end`, `publish`, `poll`) allocates nothing
 * and makes no system call.
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
export class DriverQueue extends DriverQueueBase implements DriverRing {
  /** The ring's memory without any rule, for what a driver must not do. */
  readonly raw: RawSplitRing;

  readonly #slots: ChainSlots;
  readonly #mask: number;
  readonly #eventIndex: boolean;
  readonly #indirectParts: number;
  readonly #tablesGpa: number;
  readonly #usedEvent: number;
  readonly #availableEvent: number;
  readonly #descriptors: Uint32Array<ArrayBuffer>;
  readonly #available: Uint16Array<ArrayBuffer>;
  readonly #used: Uint16Array<ArrayBuffer>;
  readonly #usedElements: Uint32Array<ArrayBuffer>;
  readonly #tables: Uint32Array<ArrayBuffer>;
  /** The available index, including what is not published. */
  #next = 0;
  #published = 0;
  #usedNext = 0;
  /** The used index as last read. */
  #usedSeen = 0;
  /** In order: the last chain of the batch that is being polled, and what was written to it. */
  #batchEnd = -1;
  #batchWritten = 0;

  // The chain that was begun.
  #remaining = -1;
  #table = -1;
  #head = 0;
  #last = 0;
  #count = 0;
  #writableBytes = 0;

  /**
   * Takes a ring over where its indexes stand; nothing may be in flight.
   * {@linkcode DriverQueue.create} makes a new one.
   */
  constructor(memory: DriverMemory, handle: DriverQueueHandle) {
    const { size, eventIndex, indirectParts, tablesGpa, inOrder, packed } = handle;
    if (packed) throw new RangeError("Expected the handle of a split ring, got a packed one's");
    if (!(size >= 1 && size <= MAX_QUEUE_SIZE) || (size & (size - 1)) !== 0) {
      throw new RangeError(
        `Expected a queue size that is a power of two up to ${MAX_QUEUE_SIZE}, got ${size}`,
      );
    }
    const slots = new ChainSlots(size, inOrder);
    super(handle, slots);
    const parts = splitRingBytes(size);
    const descriptors = memory.locate(handle.descriptorGpa, parts.descriptor);
    const available = memory.locate(handle.availableGpa, parts.available);
    const used = memory.locate(handle.usedGpa, parts.used);
    this.raw = new RawSplitRing(memory, handle);
    this.#slots = slots;
    this.#mask = size - 1;
    this.#eventIndex = eventIndex;
    this.#indirectParts = indirectParts;
    this.#tablesGpa = tablesGpa;
    this.#usedEvent = RING + size;
    this.#availableEvent = RING + size * 4;
    this.#descriptors = new Uint32Array(descriptors.buffer, descriptors.offset, size * 4);
    this.#available = new Uint16Array(available.buffer, available.offset, RING + size + 1);
    this.#used = new Uint16Array(used.buffer, used.offset, RING + size * 4 + 1);
    this.#usedElements = new Uint32Array(used.buffer, used.offset + 4, size * 2);
    this.#tables = viewTables(memory, handle);
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
    return makeQueue(
      memory,
      { ...options, packed: false },
      (handle) => new DriverQueue(memory, handle),
    );
  }

  begin(count: number, indirect = false): boolean {
    const { free, first } = this.#slots;
    if (!hasRoom(count, indirect, free, this.#indirectParts)) return false;
    this.#table = indirect ? first * this.#indirectParts * 4 : -1;
    this.#remaining = this.#count = count;
    this.#head = this.#last = first;
    this.#writableBytes = 0;
    return true;
  }

  descriptor(gpa: number, bytes: number, writable: boolean): void {
    const remaining = this.#remaining - 1;
    if (remaining < 0) throw new RangeError("Expected no more parts than were announced");
    this.#remaining = remaining;
    let flags = 0;
    if (writable) {
      flags = VIRTQ_DESC_F_WRITE;
      this.#writableBytes += bytes;
    }
    if (remaining > 0) flags |= VIRTQ_DESC_F_NEXT;
    // Storing into a Uint32Array takes the number modulo 2^32.
    if (this.#table < 0) {
      const first = remaining + 1 === this.#count;
      const { links } = this.#slots;
      const at = first ? this.#head : links[this.#last];
      const word = at * 4;
      this.#descriptors[word] = gpa;
      this.#descriptors[word + 1] = gpa / 2 ** 32;
      this.#descriptors[word + 2] = bytes;
      this.#descriptors[word + 3] = flags | links[at] << 16;
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
    this.#slots.add(this.#last, this.#count, this.#writableBytes);
    this.#available[RING + (this.#next & this.#mask)] = head;
    this.#next = (this.#next + 1) & 0xffff;
    this.#remaining = -1;
    return head;
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
    const slots = this.#slots;
    let head: number;
    if (slots.inOrder) {
      if (this.#batchEnd < 0) {
        this.#batchEnd = this.#usedHead(at);
        this.#batchWritten = this.#usedElements[element + 1];
      }
      head = this.#pollOldest();
    } else {
      head = this.#usedHead(at);
      this.written = this.#usedElements[element + 1];
    }
    slots.release(head);
    this.#usedNext = (at + 1) & 0xffff;
    return head;
  }

  /** The chain that a used element names. */
  #usedHead(at: number): number {
    const head = this.#usedElements[(at & this.#mask) * 2];
    if (!this.#slots.isInFlight(head)) throw notInFlight(`used element ${at}`, head);
    return head;
  }

  /** The oldest chain: an element may stand for all up to the one that it names (2.7.9). */
  #pollOldest(): number {
    const { oldest, writableBytes } = this.#slots;
    if (oldest === this.#batchEnd) {
      this.#batchEnd = -1;
      this.written = this.#batchWritten;
    } else {
      this.written = writableBytes[oldest];
    }
    return oldest;
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

  /** The used index. */
  get usedIndex(): number {
    return Atomics.load(this.#used, IDX);
  }

  get resumeBase(): number {
    return this.usedIndex;
  }

  requeue(): void {
    this.#next = this.#usedNext;
    for (const head of this.#slots.heads()) {
      this.#available[RING + (this.#next & this.#mask)] = head;
      this.#next = (this.#next + 1) & 0xffff;
    }
    this.#published = this.#next;
    Atomics.store(this.#available, IDX, this.#next);
  }

  reset(base = 0): void {
    this.#descriptors.fill(0);
    this.#available.fill(0);
    this.#used.fill(0);
    this.#slots.reset();
    this.#remaining = this.#batchEnd = -1;
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
}
