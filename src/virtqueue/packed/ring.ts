/**
 * The packed virtqueue: virtio 1.3, 2.8.
 *
 * @module
 */

import type { MemoryView } from "../../memory/mod.ts";
import type { Chain } from "../chain.ts";
import {
  copyDescriptor,
  DESCRIPTOR_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from "../descriptor.ts";
import type { InflightRegion } from "../inflight.ts";
import { PackedInflight } from "./inflight.ts";
import {
  ahead,
  availableFlags,
  distance,
  EVENT_FLAGS,
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
  VIRTQ_DESC_F_USED,
} from "./places.ts";
import { initialBase, type RingBytes, type RingOptions, Virtqueue } from "../virtqueue.ts";

/** The bytes that each part of a packed ring of `size` descriptors takes: virtio 1.3, 2.8.10.1. */
export function packedRingBytes(size: number): RingBytes {
  return { descriptor: DESCRIPTOR_BYTES * size, available: 4, used: 4 };
}

/**
 * The device's side of a packed virtqueue.
 *
 * As in a split ring, what both sides poll goes through Atomics (the flags of the next descriptor
 * and event suppression) and orders the rest. A list is replaced by one used descriptor, at the
 * place where the next one goes; the others that it took are skipped.
 */
export class PackedRing extends Virtqueue {
  readonly isResumed: boolean;
  readonly #words: Uint32Array<ArrayBuffer>;
  /**
   * The same words as signed ones: a flag stands in the highest bit, and as an unsigned number
   * Atomics would allocate it.
   */
  readonly #signed: Int32Array<ArrayBuffer>;
  readonly #driverEvent: Uint16Array<ArrayBuffer>;
  readonly #deviceEvent: Uint16Array<ArrayBuffer>;
  /** The descriptor of an indirect table that is being read. */
  readonly #entry = new Uint32Array(4);
  /** ID and flags of the list that is being read, each read once. */
  readonly #idAndFlags: Int32Array<ArrayBuffer>;
  /** The place of the next available descriptor. */
  #next: number;
  /** The place of the next used descriptor that the driver can see. */
  #usedNext: number;
  /** How many descriptors lie between: the driver has not got them back. */
  #taken: number;
  /** The place of the next used descriptor: behind those that the driver cannot see yet. */
  #usedEnd: number;
  /** ID and flags of the first of those, which are written last. */
  #firstIdAndFlags = 0;
  // Used buffers that are not written yet, since the record must first have what lies in their
  // place (see `PackedInflight`): their IDs, descriptors and bytes written. They are at most as
  // many as were taken.
  readonly #heldIds: Uint16Array<ArrayBuffer>;
  readonly #heldDescriptors: Uint16Array<ArrayBuffer>;
  readonly #heldWritten: Uint32Array<ArrayBuffer>;
  #held = 0;
  #signalledValid = false;
  /** The flags of device event suppression as last written; -1 before that. */
  #eventFlags = -1;
  /** The in-flight record, where the front-end keeps one. */
  readonly #inflight: PackedInflight | null;
  /** The descriptors of a chain that is taken again, as the record has them. */
  #copies: Uint32Array<ArrayBuffer> | undefined;

  /**
   * Places a ring.
   *
   * @throws {RingError} When its size, alignment or place is wrong.
   * @throws {RangeError} When its base is no place in it.
   * @throws {InflightError} When the record makes no sense, or none for this ring.
   */
  constructor(memory: MemoryView, options: RingOptions, inflight?: InflightRegion) {
    super(memory, options);
    const { size, descriptorIndex, availableIndex, usedIndex } = options;
    const { buffer } = memory.u8;
    this.#words = new Uint32Array(buffer, descriptorIndex, size * 4);
    this.#signed = new Int32Array(buffer, descriptorIndex, size * 4);
    this.#driverEvent = new Uint16Array(buffer, availableIndex, 2);
    this.#deviceEvent = new Uint16Array(buffer, usedIndex, 2);
    this.#idAndFlags = new Int32Array(size);
    [this.#next, this.#usedNext] = places(options.base ?? initialBase(true), size);
    const record = inflight === undefined ? null : new PackedInflight(inflight, {
      size,
      usedPlace: this.#usedNext,
      isAnew: this.#isAnew(options.base),
      flagsAt: (at) => this.#loadIdAndFlags(at) >>> 16,
    });
    this.#inflight = record;
    this.unfinished = record?.unfinished ?? [];
    if (record !== null && !record.isFresh) {
      // Better than the base: QEMU does not know it of a back-end that died.
      this.#usedNext = record.usedPlace;
      this.#next = ahead(record.usedPlace, record.unfinishedDescriptors, size);
    }
    this.#usedEnd = this.#usedNext;
    this.#taken = distance(this.#usedNext, this.#next, size);
    const held = record === null ? 0 : size;
    this.#heldIds = new Uint16Array(held);
    this.#heldDescriptors = new Uint16Array(held);
    this.#heldWritten = new Uint32Array(held);
    if (record !== null) this.#hideUsed();
    // A place comes again; a record does not become fresh again.
    this.isResumed = record === null ? this.#usedNext !== 0 : !record.isFresh;
  }

  /**
   * Whether the ring begins at its first descriptor, no device has used any and no driver has gone
   * round it, as one was never written. The base alone is not enough: for a back-end that died,
   * QEMU gives the base of the ring's start again.
   */
  #isAnew(base: number | null): boolean {
    if ((base ?? initialBase(true)) !== initialBase(true)) return false;
    const words = this.#words;
    let isUntouched = false;
    for (let at = 0; at < this.size; at++) {
      if ((this.#loadIdAndFlags(at) >>> 16 & VIRTQ_DESC_F_USED) !== 0) return false;
      isUntouched ||= [0, 1, 2, 3].every((word) => words[at * 4 + word] === 0);
    }
    return isUntouched;
  }

  /**
   * Marks unfinished descriptors available again: a back-end that died in the middle of a batch may
   * have written all of its used descriptors but the first, and the driver would take them for real
   * behind the next one that it sees.
   */
  #hideUsed(): void {
    const { size } = this;
    for (let place = this.#usedNext; place !== this.#next; place = ahead(place, 1, size)) {
      const at = (place < size ? place : place - size) * 4 + ID_AND_FLAGS;
      Atomics.store(this.#signed, at, availableFlags(place, size) << 16);
    }
  }

  get base(): number {
    const { size } = this;
    return (offWrapOf(this.#next, size) | offWrapOf(this.#usedNext, size) << 16) >>> 0;
  }

  get isAvailable(): boolean {
    return this.hasRoom &&
      (this.#isAvailableAt(this.#next) || this.takenAgain < this.unfinished.length);
  }

  /** Whether the descriptor at a place is available: virtio 1.3, 2.8.1. */
  #isAvailableAt(place: number): boolean {
    const { size } = this;
    return isAvailable(this.#loadIdAndFlags(place < size ? place : place - size), place, size);
  }

  /** ID and flags of a descriptor, before anything else of it is read. */
  #loadIdAndFlags(at: number): number {
    return Atomics.load(this.#signed, at * 4 + ID_AND_FLAGS);
  }

  take(): Chain | null {
    if ((this.isHeldUp = !this.hasRoom)) return null;
    if (this.takenAgain < this.unfinished.length) return this.#takeAgain();
    const { size } = this;
    const place = this.#next;
    const first = place < size ? place : place - size;
    const idAndFlags = this.#loadIdAndFlags(first);
    if (!isAvailable(idAndFlags, place, size)) return null;
    const count = this.#scan(place, first, idAndFlags);
    if (this.#taken + count > size) {
      this.refuse(
        "available-index",
        `The list of descriptor ${first} has ${count} descriptors, and ${this.#taken} of ${size} are not used yet`,
      );
    }
    const chain = this.#read(this.#words, first, count);
    this.taken(chain, false);
    this.#inflight?.taken(chain.id, this.#words, this.#idAndFlags, first, count);
    this.#taken += count;
    this.#next = ahead(place, count, size);
    return chain;
  }

  /** Takes a chain that was in flight: its descriptors may be overwritten, but the record has them. */
  #takeAgain(): Chain {
    const record = this.#inflight!;
    const entry = this.unfinished[this.takenAgain++];
    this.#copies ??= new Uint32Array(this.size * 4);
    const count = record.read(entry, this.#copies, this.#idAndFlags);
    const chain = this.#read(this.#copies, 0, count);
    this.taken(chain, true);
    record.takenAgain(chain.id, entry);
    return chain;
  }

  /**
   * Reads ID and flags of a list, each descriptor's once; those of the first one were read already.
   *
   * @returns How many descriptors there are.
   */
  #scan(place: number, first: number, idAndFlags: number): number {
    const { size } = this;
    const list = this.#idAndFlags, signed = this.#signed;
    list[0] = idAndFlags;
    let at = first;
    let wanted = availableFlags(place, size);
    let count = 1;
    while ((idAndFlags >>> 16 & VIRTQ_DESC_F_NEXT) !== 0) {
      if (count === size) {
        this.refuse(
          "chain-length",
          `The list of descriptor ${first} has more than ${size} descriptors`,
        );
      }
      if (++at === size) {
        at = 0;
        wanted ^= OWNER_FLAGS;
      }
      idAndFlags = signed[at * 4 + ID_AND_FLAGS];
      if ((idAndFlags >>> 16 & OWNER_FLAGS) !== wanted) {
        this.refuse(
          "list-available",
          `Descriptor ${at} of the list of descriptor ${first} is not available`,
        );
      }
      list[count++] = idAndFlags;
    }
    return count;
  }

  /** Reads a list of descriptors and checks them. */
  #read(words: Uint32Array<ArrayBuffer>, at: number, count: number): Chain {
    const { size } = this;
    const list = this.#idAndFlags;
    // The buffer ID stands in the last descriptor.
    const chain = this.chainFor(list[count - 1] & 0xffff);
    chain.ringDescriptors = count;
    for (let i = 0; i < count; i++) {
      const flags = list[i] >>> 16;
      if (flags & VIRTQ_DESC_F_INDIRECT) {
        const gpa = words[at * 4] + words[at * 4 + 1] * 2 ** 32;
        const bytes = words[at * 4 + 2];
        const start = this.tableAt(at, gpa, bytes, count === 1);
        this.#readTable(chain, at, start, bytes / DESCRIPTOR_BYTES);
      } else {
        chain.descriptors++;
        chain.add(this.memory, words, at * 4, (flags & VIRTQ_DESC_F_WRITE) !== 0);
      }
      if (++at === size) at = 0;
    }
    return chain;
  }

  /** Reads the indirect table of descriptor `at`. */
  #readTable(chain: Chain, at: number, start: number, entries: number): void {
    if (entries > this.mostParts) {
      this.refuse(
        "chain-length",
        `The table of descriptor ${at} has ${entries} descriptors, more than ${this.mostParts}`,
      );
    }
    const words = this.#entry;
    for (let i = 0; i < entries; i++) {
      copyDescriptor(this.view, start + i * DESCRIPTOR_BYTES, words);
      // WRITE is the only flag with a meaning here, the others are ignored: virtio 1.3, 2.8.7.
      chain.descriptors++;
      chain.add(this.memory, words, 0, (words[3] >>> 16 & VIRTQ_DESC_F_WRITE) !== 0);
    }
  }

  protected use(chain: Chain, written: number): void {
    const record = this.#inflight;
    if (record === null) return this.#write(chain.id, chain.ringDescriptors, written);
    const at = this.#held++;
    this.#heldIds[at] = chain.id;
    this.#heldDescriptors[at] = chain.ringDescriptors;
    this.#heldWritten[at] = written;
    record.used(chain.id);
  }

  protected untaken({ id, ringDescriptors }: Chain): void {
    this.#next = ahead(this.#next, 2 * this.size - ringDescriptors, this.size);
    this.#taken -= ringDescriptors;
    this.#inflight?.untaken(id);
  }

  /**
   * Writes the next used descriptor, but not ID and flags of the first one of a batch: the driver
   * looks at them in ring order, so it sees none before these.
   */
  #write(id: number, descriptors: number, written: number): void {
    const { size } = this;
    const place = this.#usedEnd;
    const at = (place < size ? place : place - size) * 4;
    const flags = usedFlags(place, size) | (written > 0 ? VIRTQ_DESC_F_WRITE : 0);
    this.#words[at + 2] = written;
    if (place === this.#usedNext) this.#firstIdAndFlags = id | flags << 16;
    else this.#signed[at + ID_AND_FLAGS] = id | flags << 16;
    this.#usedEnd = ahead(place, descriptors, size);
  }

  publish(): boolean {
    if (this.#held > 0) this.#writeHeld();
    const { size } = this;
    const previous = this.#usedNext;
    const next = this.#usedEnd;
    if (next === previous) return false;
    const first = previous < size ? previous : previous - size;
    this.#inflight?.publishing(previous, next);
    Atomics.store(this.#signed, first * 4 + ID_AND_FLAGS, this.#firstIdAndFlags);
    this.#inflight?.published(next);
    this.#usedNext = next;
    this.#taken -= distance(previous, next, size);
    // Flags first: the driver writes them after the place that they make valid.
    const flags = Atomics.load(this.#driverEvent, EVENT_FLAGS) & 3;
    if (flags !== RING_EVENT_FLAGS_DESC || !this.eventIndex) {
      return flags !== RING_EVENT_FLAGS_DISABLE;
    }
    const event = placeOf(Atomics.load(this.#driverEvent, OFF_WRAP), size);
    if (!this.#signalledValid) return this.#signalledValid = true;
    return passes(event, next, previous, size);
  }

  #writeHeld(): void {
    this.#inflight!.commit();
    for (let i = 0; i < this.#held; i++) {
      this.#write(this.#heldIds[i], this.#heldDescriptors[i], this.#heldWritten[i]);
    }
    this.#held = 0;
  }

  arm(): boolean {
    if (this.eventIndex) {
      Atomics.store(this.#deviceEvent, OFF_WRAP, offWrapOf(this.#next, this.size));
      this.#setEventFlags(RING_EVENT_FLAGS_DESC);
    } else {
      this.#setEventFlags(RING_EVENT_FLAGS_ENABLE);
    }
    return this.isAvailable;
  }

  disarm(): void {
    if (!this.eventIndex) this.#setEventFlags(RING_EVENT_FLAGS_DISABLE);
  }

  #setEventFlags(flags: number): void {
    if (flags === this.#eventFlags) return;
    Atomics.store(this.#deviceEvent, EVENT_FLAGS, flags);
    this.#eventFlags = flags;
  }
}

/** Where a base says that the next available and the next used descriptor are. */
function places(base: number, size: number): [next: number, usedNext: number] {
  const [low, high] = [base & 0xffff, base >>> 16];
  const next = placeOf(low, size), usedNext = placeOf(high, size);
  // DPDK and SPDK give the lower half alone (virtio_user): everything is used then.
  const isHalf = high === 0 && distance(usedNext, next, size) >= size;
  if (isHalf && (low & 0x7fff) < size) return [next, next];
  if (
    Math.max(low & 0x7fff, high & 0x7fff) >= size || distance(usedNext, next, size) > size
  ) {
    throw new RangeError(
      `Expected a base inside a packed ring of ${size}, got 0x${base.toString(16)}`,
    );
  }
  return [next, usedNext];
}

/** Whether a descriptor with this ID and these flags is available at a place: virtio 1.3, 2.8.1. */
function isAvailable(idAndFlags: number, place: number, size: number): boolean {
  return (idAndFlags >>> 16 & OWNER_FLAGS) === availableFlags(place, size);
}
