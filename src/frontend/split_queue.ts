import { needsEvent, splitRingBytes } from "../virtqueue/mod.ts";
import {
  type DriverQueueHandle,
  type DriverQueueOptions,
  DriverRing,
  makeQueue,
} from "./driver_ring.ts";
import { FrontendError } from "./frontend_error.ts";
import { RawSplitRing } from "./raw_split_ring.ts";
import type { DriverMemory, SharedMemory } from "./shared_memory.ts";

const VIRTQ_AVAIL_F_NO_INTERRUPT = 1; // virtio 1.3, 2.7.6
const VIRTQ_USED_F_NO_NOTIFY = 1; // virtio 1.3, 2.7.8

// Places in the rings, in units of u16.
const FLAGS = 0;
const IDX = 1;
const RING = 2;

/**
 * The driver's side of a split virtqueue: virtio 1.3, 2.7.
 *
 * As in the device, indexes and event fields go through Atomics and everything else is plain,
 * ordered by them; each part has small views of its own.
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
export class DriverQueue extends DriverRing {
  /** The ring's memory without any rule, for what a driver must not do. */
  readonly raw: RawSplitRing;

  readonly #mask: number;
  readonly #usedEvent: number;
  readonly #availableEvent: number;
  readonly #descriptors: Uint32Array<ArrayBuffer>;
  readonly #available: Uint16Array<ArrayBuffer>;
  readonly #used: Uint16Array<ArrayBuffer>;
  readonly #usedElements: Uint32Array<ArrayBuffer>;
  /** The available index, with unpublished chains. */
  #next = 0;
  #published = 0;
  #usedNext = 0;
  /** The used index as last read. */
  #usedSeen = 0;

  /**
   * Takes a ring over where its indexes stand; nothing may be in flight.
   * {@linkcode DriverQueue.create} makes a new one.
   */
  constructor(memory: DriverMemory, handle: DriverQueueHandle) {
    super(memory, handle, false);
    const { size } = handle;
    const parts = splitRingBytes(size);
    const descriptors = memory.locate(handle.descriptorGpa, parts.descriptor);
    const available = memory.locate(handle.availableGpa, parts.available);
    const used = memory.locate(handle.usedGpa, parts.used);
    this.raw = new RawSplitRing(memory, handle);
    this.#mask = size - 1;
    this.#usedEvent = RING + size;
    this.#availableEvent = RING + size * 4;
    this.#descriptors = new Uint32Array(descriptors.buffer, descriptors.offset, size * 4);
    this.#available = new Uint16Array(available.buffer, available.offset, RING + size + 1);
    this.#used = new Uint16Array(used.buffer, used.offset, RING + size * 4 + 1);
    this.#usedElements = new Uint32Array(used.buffer, used.offset + 4, size * 2);
    this.#next = this.#published = Atomics.load(this.#available, IDX);
    this.#usedNext = this.#usedSeen = Atomics.load(this.#used, IDX);
  }

  /**
   * Makes a ring in shared memory, and its eventfds. Its disposal gives both back, so the device
   * has to be stopped before.
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

  /** @internal */
  protected override write(gpa: number, bytes: number, flags: number, isFirst: boolean): void {
    const { links } = this.slots;
    const at = isFirst ? this.last : links[this.last];
    const words = this.#descriptors, word = at * 4;
    // Storing into a Uint32Array takes the number modulo 2^32.
    words[word] = gpa;
    words[word + 1] = gpa / 2 ** 32;
    words[word + 2] = bytes;
    words[word + 3] = flags | links[at] << 16;
    this.last = at;
  }

  /** @internal */
  protected override ended(head: number): void {
    this.#available[RING + (this.#next & this.#mask)] = head;
    this.#next = (this.#next + 1) & 0xffff;
  }

  /** Makes every chain that was ended visible to the device; returns whether it wants to know. */
  override publish(): boolean {
    const next = this.#next;
    const previous = this.#published;
    if (next === previous) return false;
    Atomics.store(this.#available, IDX, next);
    this.#published = next;
    if (!this.eventIndex) {
      return (Atomics.load(this.#used, FLAGS) & VIRTQ_USED_F_NO_NOTIFY) === 0;
    }
    return needsEvent(Atomics.load(this.#used, this.#availableEvent), next, previous);
  }

  /** Takes the next chain that the device is done with; -1 where there is none. */
  override poll(): number {
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
    let head = this.#usedElements[element];
    if (this.batchEnd < 0) this.used("used element", at, head, this.#usedElements[element + 1]);
    if (this.slots.inOrder) head = this.pollOldest();
    this.slots.release(head);
    this.#usedNext = (at + 1) & 0xffff;
    return head;
  }

  /** Asks for a notification of the next completion; returns whether there are some already. */
  override arm(): boolean {
    if (this.eventIndex) Atomics.store(this.#available, this.#usedEvent, this.#usedNext);
    else Atomics.store(this.#available, FLAGS, 0);
    return Atomics.load(this.#used, IDX) !== this.#usedNext;
  }

  /** Tells the device that notifications are not needed. */
  override disarm(): void {
    // As far ahead as can be: it is met once in 2^15 completions, if ever.
    if (this.eventIndex) {
      Atomics.store(this.#available, this.#usedEvent, this.#usedNext + 0x7fff);
    } else Atomics.store(this.#available, FLAGS, VIRTQ_AVAIL_F_NO_INTERRUPT);
  }

  /** The used index. */
  get usedIndex(): number {
    return Atomics.load(this.#used, IDX);
  }

  /** Where a device resumes after a reconnect. */
  override get resumeBase(): number {
    return this.usedIndex;
  }

  /** Makes every chain in flight available again. */
  override requeue(): void {
    this.#next = this.#usedNext;
    for (const head of this.slots.heads()) {
      this.#available[RING + (this.#next & this.#mask)] = head;
      this.#next = (this.#next + 1) & 0xffff;
    }
    this.#published = this.#next;
    Atomics.store(this.#available, IDX, this.#next);
  }

  /** Makes the ring new. */
  override reset(base = 0): void {
    this.#descriptors.fill(0);
    this.#available.fill(0);
    this.#used.fill(0);
    this.slots.reset();
    this.remaining = this.batchEnd = -1;
    this.#next =
      this.#published =
      this.#usedNext =
      this.#usedSeen =
        base & 0xffff;
    Atomics.store(this.#available, IDX, base);
    Atomics.store(this.#used, IDX, base);
    // No side waits yet: the device shall notify of the first completion.
    if (this.eventIndex) {
      Atomics.store(this.#available, this.#usedEvent, base);
      Atomics.store(this.#used, this.#availableEvent, base);
    }
  }
}
