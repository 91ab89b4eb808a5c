import {
  ahead,
  availableFlags,
  EVENT_FLAGS,
  FLAGS,
  ID,
  ID_AND_FLAGS,
  OFF_WRAP,
  offWrapOf,
  OWNER_FLAGS,
  passes,
  placeOf,
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  usedFlags,
} from "../virtqueue/packed/places.ts";
import { initialBase, packedRingBytes } from "../virtqueue/mod.ts";
import {
  type DriverQueueHandle,
  type DriverQueueOptions,
  DriverRing,
  makeQueue,
  VIRTQ_DESC_F_WRITE,
} from "./driver_ring.ts";
import { RawPackedRing } from "./raw_packed_ring.ts";
import type { DriverMemory, SharedMemory } from "./shared_memory.ts";

/**
 * The driver's side of a packed virtqueue: virtio 1.3, 2.8.
 *
 * Places in the ring are counted as the device's `PackedRing` counts them. The device overwrites
 * descriptors of chains that are still in flight when it completes another, so a copy of each is
 * kept for {@linkcode PackedDriverQueue.requeue}.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { packedDescriptorFlags, PackedDriverQueue, SharedMemory } from "@vhostd/vhostd/frontend";
 *
 * using memory = new SharedMemory(1 << 20);
 * using queue = PackedDriverQueue.create(memory, { size: 8 });
 * const gpa = memory.alloc(64);
 * const id = queue.add([{ gpa, bytes: 16 }], [{ gpa: gpa + 16, bytes: 48 }]);
 * assertEquals(queue.publish(), true); // the device wants to know
 * assertEquals([queue.inFlight, queue.free], [1, 6]);
 *
 * // What a device does:
 * const { AVAIL, USED, WRITE } = packedDescriptorFlags;
 * queue.raw.setDescriptor(0, { id, bytes: 48, flags: AVAIL | USED | WRITE });
 * assertEquals([queue.poll(), queue.written, queue.poll()], [id, 48, -1]);
 * ```
 */
export class PackedDriverQueue extends DriverRing {
  /** The ring's memory without any rule, for what a driver must not do. */
  readonly raw: RawPackedRing;

  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #halves: Uint16Array<ArrayBuffer>;
  readonly #driverEvent: Uint16Array<ArrayBuffer>;
  readonly #deviceEvent: Uint16Array<ArrayBuffer>;
  /** By slot: address, length and flags of its descriptor, without whose it is. */
  readonly #copies: Uint32Array<ArrayBuffer>;
  /** Where the next available descriptor goes. */
  #next = 0;
  /** The same, when the device was last asked whether it wants to know. */
  #published = 0;
  /** The first chain that the device cannot see yet, and the flags that will show it; -1 if none. */
  #hidden = -1;
  #hiddenFlags = 0;
  /** Where the next used descriptor is looked for. */
  #usedNext = 0;
  /** The flags of driver event suppression as last written; -1 before that. */
  #eventFlags = -1;
  // The chain that was begun: where its next descriptor goes, and the flags of its first one.
  #place = 0;
  #headFlags = 0;

  /**
   * Takes a ring over where its handle says that it stands; nothing may be in flight.
   * {@linkcode PackedDriverQueue.create} makes a new one.
   */
  constructor(memory: DriverMemory, handle: DriverQueueHandle) {
    super(memory, handle, true);
    const { size, base } = handle;
    const parts = packedRingBytes(size);
    const descriptors = memory.locate(handle.descriptorGpa, parts.descriptor);
    const driver = memory.locate(handle.availableGpa, parts.available);
    const device = memory.locate(handle.usedGpa, parts.used);
    this.raw = new RawPackedRing(memory, handle);
    this.#words = new Uint32Array(descriptors.buffer, descriptors.offset, size * 4);
    this.#halves = new Uint16Array(descriptors.buffer, descriptors.offset, size * 8);
    this.#driverEvent = new Uint16Array(driver.buffer, driver.offset, 2);
    this.#deviceEvent = new Uint16Array(device.buffer, device.offset, 2);
    this.#copies = new Uint32Array(size * 4);
    this.#next = this.#published = this.#usedNext = placeOf(base & 0xffff, size);
  }

  /**
   * Makes a ring in shared memory, and its eventfds. Its disposal gives both back, so the device
   * has to be stopped before.
   *
   * @throws {RangeError} If the size is wrong or the memory has no room
   */
  static create(memory: SharedMemory, options: DriverQueueOptions = {}): PackedDriverQueue {
    return makeQueue(
      memory,
      { ...options, packed: true },
      (handle) => new PackedDriverQueue(memory, handle),
    );
  }

  /** The index in the ring of a place. */
  #at(place: number): number {
    return place < this.size ? place : place - this.size;
  }

  /** Begins a chain; returns whether there is room. */
  override begin(count: number, indirect = false): boolean {
    if (this.remaining >= 0) this.#forget();
    this.#place = this.#next;
    return super.begin(count, indirect);
  }

  /** Marks the descriptors of an abandoned chain as used. */
  #forget(): void {
    for (
      let place = this.#next;
      place !== this.#place;
      place = ahead(place, 1, this.size)
    ) {
      this.#halves[this.#at(place) * 8 + FLAGS] = ~usedFlags(place, this.size) & OWNER_FLAGS;
    }
    this.remaining = -1;
  }

  /**
   * The first descriptor's flags would show the chain, so they are kept.
   *
   * @internal
   */
  protected override write(gpa: number, bytes: number, flags: number, isFirst: boolean): void {
    const { size } = this;
    const { slots } = this;
    const place = this.#place;
    const at = place < size ? place : place - size;
    const word = at * 4;
    // Storing into a Uint32Array takes the number modulo 2^32.
    this.#words[word] = gpa;
    this.#words[word + 1] = gpa / 2 ** 32;
    this.#words[word + 2] = bytes;
    const shown = flags | availableFlags(place, size);
    let slot = slots.first;
    if (isFirst) {
      this.#halves[at * 8 + ID] = slot;
      this.#headFlags = shown;
    } else {
      this.#words[word + ID_AND_FLAGS] = slot | shown << 16;
      slot = slots.links[this.last];
    }
    this.last = slot;
    this.#place = ahead(place, 1, size);
    const copy = slot * 4;
    this.#copies[copy] = gpa;
    this.#copies[copy + 1] = gpa / 2 ** 32;
    this.#copies[copy + 2] = bytes;
    this.#copies[copy + 3] = flags;
  }

  /** @internal */
  protected override ended(): void {
    const at = this.#at(this.#next);
    // The device looks at the ring in order: while the first chain of a batch is hidden, it sees
    // none of them.
    if (this.#hidden < 0) {
      this.#hidden = at;
      this.#hiddenFlags = this.#headFlags;
    } else {
      this.#halves[at * 8 + FLAGS] = this.#headFlags;
    }
    this.#next = this.#place;
  }

  /** Makes every chain that was ended visible to the device; returns whether it wants to know. */
  override publish(): boolean {
    if (this.#hidden < 0) return false;
    Atomics.store(this.#halves, this.#hidden * 8 + FLAGS, this.#hiddenFlags);
    this.#hidden = -1;
    const next = this.#next, previous = this.#published;
    this.#published = next;
    const flags = Atomics.load(this.#deviceEvent, EVENT_FLAGS) & 3;
    if (flags !== RING_EVENT_FLAGS_DESC || !this.eventIndex) {
      return flags !== RING_EVENT_FLAGS_DISABLE;
    }
    const { size } = this;
    return passes(placeOf(Atomics.load(this.#deviceEvent, OFF_WRAP), size), next, previous, size);
  }

  /** Whether the device has used the descriptor at a place. */
  #isUsed(place: number): boolean {
    const flags = Atomics.load(this.#halves, this.#at(place) * 8 + FLAGS);
    return (flags & OWNER_FLAGS) === usedFlags(place, this.size);
  }

  /** Takes the next chain that the device is done with; -1 where there is none. */
  override poll(): number {
    const place = this.#usedNext;
    const { size, slots } = this;
    const at = place < size ? place : place - size;
    let head = -1;
    if (this.batchEnd < 0) {
      const flags = Atomics.load(this.#halves, at * 8 + FLAGS);
      if ((flags & OWNER_FLAGS) !== usedFlags(place, size)) return -1;
      head = this.#halves[at * 8 + ID];
      // Without WRITE the length is reserved: virtio 1.3, 2.8.4.
      const written = flags & VIRTQ_DESC_F_WRITE ? this.#words[at * 4 + 2] : 0;
      this.used("used descriptor", at, head, written);
    }
    // In order, a used descriptor stands for all chains up to the one that it names: 2.8.8.
    if (slots.inOrder) head = this.pollOldest();
    this.#usedNext = ahead(place, slots.release(head), size);
    return head;
  }

  /** Asks for a notification of the next completion; returns whether there are some already. */
  override arm(): boolean {
    if (this.eventIndex) {
      Atomics.store(this.#driverEvent, OFF_WRAP, offWrapOf(this.#usedNext, this.size));
      this.#setEventFlags(RING_EVENT_FLAGS_DESC);
    } else {
      this.#setEventFlags(RING_EVENT_FLAGS_ENABLE);
    }
    return this.batchEnd >= 0 || this.#isUsed(this.#usedNext);
  }

  /** Tells the device that notifications are not needed. */
  override disarm(): void {
    this.#setEventFlags(RING_EVENT_FLAGS_DISABLE);
  }

  #setEventFlags(flags: number): void {
    if (flags === this.#eventFlags) return;
    Atomics.store(this.#driverEvent, EVENT_FLAGS, flags);
    this.#eventFlags = flags;
  }

  /** Where a device resumes after a reconnect. */
  override get resumeBase(): number {
    const { size } = this;
    const used = offWrapOf(this.#usedNext, size);
    return (used | used << 16) >>> 0;
  }

  /** Makes every chain in flight available again. */
  override requeue(): void {
    const { size } = this;
    const { slots } = this;
    this.#begin(this.#usedNext);
    let place = this.#usedNext;
    for (const head of slots.heads()) {
      for (let i = 0, slot = head; i < slots.counts[head]; i++, slot = slots.links[slot]) {
        const at = this.#at(place) * 4, copy = slot * 4;
        this.#words.set(this.#copies.subarray(copy, copy + 3), at);
        const flags = this.#copies[copy + 3] | availableFlags(place, size);
        this.#words[at + ID_AND_FLAGS] = head | flags << 16;
        place = ahead(place, 1, size);
      }
    }
    this.#next = this.#published = place;
  }

  /** Makes the ring new. */
  override reset(base: number = initialBase(true)): void {
    this.slots.reset();
    this.#begin(placeOf(base & 0xffff, this.size));
    // No side waits yet: both shall notify of their first buffer.
    Atomics.store(this.#deviceEvent, OFF_WRAP, 0);
    Atomics.store(this.#deviceEvent, EVENT_FLAGS, RING_EVENT_FLAGS_ENABLE);
  }

  /** Empties the ring: every descriptor was used, in the round that ends at a place. */
  #begin(place: number): void {
    const { size } = this;
    this.#words.fill(0);
    for (let at = 0; at < size; at++) {
      // Behind the place the last round is the one before.
      const isBefore = at < this.#at(place);
      const flags = usedFlags(place, size);
      this.#halves[at * 8 + FLAGS] = isBefore ? flags : ~flags & OWNER_FLAGS;
    }
    this.#next = this.#published = this.#usedNext = place;
    this.#hidden = this.remaining = this.batchEnd = -1;
    Atomics.store(this.#driverEvent, OFF_WRAP, 0);
    this.#eventFlags = -1;
    this.#setEventFlags(RING_EVENT_FLAGS_ENABLE);
  }
}
