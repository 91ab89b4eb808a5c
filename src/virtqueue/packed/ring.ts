/**
 * The packed virtqueue: virtio 1.3, 2.8.
 *
 * @module
 */

import type { MemoryView } from "../../memory/mod.ts";
import { Chain } from "../chain.ts";
import { CompletionOrder } from "../completion_order.ts";
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
import { RingError } from "../rules.ts";
import {
  initialBase,
  MAX_PARTS_IN_FLIGHT,
  MAX_QUEUE_SIZE,
  maxChainParts,
  type RingBytes,
  type RingOptions,
  type Virtqueue,
} from "../virtqueue.ts";

/** The bytes that each part of a packed ring of `size` descriptors takes: virtio 1.3, 2.8.10.1. */
export function packedRingBytes(size: number): RingBytes {
  return { descriptor: DESCRIPTOR_BYTES * size, available: 4, used: 4 };
}

/**
 * The device's side of a packed virtqueue.
 *
 * As in a split ring, what both sides poll goes through Atomics (the flags of
 * the next descriptor and event suppression) and orders the rest. A list is
 * replaced by one used descriptor, at the place where the next one goes; the
 * others that it took are skipped.
 */
export class PackedRing implements Virtqueue {
  readonly size: number;
  readonly #eventIndex: boolean;
  readonly #indirect: boolean;
  readonly #memory: MemoryView;
  /** Guest memory, for indirect tables. */
  readonly #view: DataView<ArrayBuffer>;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #driverEvent: Uint16Array<ArrayBuffer>;
  readonly #deviceEvent: Uint16Array<ArrayBuffer>;
  readonly #chains: (Chain | undefined)[];
  /** With VIRTIO_F_IN_ORDER. */
  readonly #order: CompletionOrder | null;
  readonly #entry = new Uint32Array(4);
  /**
   * The same words as signed ones: a flag stands in the highest bit, and as an
   * unsigned number Atomics would allocate it.
   */
  readonly #signed: Int32Array<ArrayBuffer>;
  /** ID and flags of the list that is being read, each read once. */
  readonly #idAndFlags: Int32Array<ArrayBuffer>;
  /** Where the next available buffer is looked for. */
  #next: number;
  /** The slot of the chain that was taken last. */
  #lastTaken = -1;
  /** Where the next used buffer goes that the driver can see. */
  #usedNext: number;
  /** How many descriptors lie between: the driver has not got them back. */
  #taken: number;
  /** Where the next used buffer goes: behind those that the driver cannot see yet. */
  #usedEnd: number;
  /** ID and flags of the first of those, which are written last. */
  #firstIdAndFlags = 0;
  // Used buffers that are not written yet, since the record has to have what
  // lies in their place: see `PackedInflight`. Their IDs, how many descriptors
  // each takes, what was written to them. They are no more than what was taken.
  readonly #heldIds: Uint16Array<ArrayBuffer>;
  readonly #heldDescriptors: Uint16Array<ArrayBuffer>;
  readonly #heldWritten: Uint32Array<ArrayBuffer>;
  #held = 0;
  #signalledValid = false;
  /** The flags of device event suppression as last written; -1 before that. */
  #eventFlags = -1;
  inFlight = 0;
  isHeldUp = false;
  /** How many parts the chains in flight have. */
  #parts = 0;
  /** How many descriptors an indirect table may have, and parts any chain. */
  readonly #mostParts: number;
  readonly isResumed: boolean;
  /** The record of what is in flight, where the front-end keeps one. */
  readonly #inflight: PackedInflight | null;
  /** Chains that are taken again, by their numbers in the record. */
  readonly #unfinished: readonly number[];
  /** How many of them were. */
  #takenAgain = 0;
  /** The descriptors of the one that is being taken, as the record has them. */
  #copies: Uint32Array<ArrayBuffer> | undefined;

  /**
   * Places a ring.
   *
   * @throws {RingError} When its size, alignment or place is wrong.
   * @throws {RangeError} When its base is no place in it.
   * @throws {InflightError} When the record makes no sense, or none for this ring.
   */
  constructor(memory: MemoryView, options: RingOptions, inflight?: InflightRegion) {
    const { size, descriptorIndex, availableIndex, usedIndex } = options;
    if (size < 1 || size > MAX_QUEUE_SIZE) {
      throw new RingError("queue-size", `The queue size is ${size}`, "packed");
    }
    if (descriptorIndex % 16 !== 0 || availableIndex % 4 !== 0 || usedIndex % 4 !== 0) {
      const at = [descriptorIndex, availableIndex, usedIndex].map((i) => `0x${i.toString(16)}`);
      throw new RingError("ring-alignment", `The ring's parts are at ${at.join(", ")}`, "packed");
    }
    const { buffer } = memory.u8;
    this.#memory = memory;
    this.#view = new DataView(buffer);
    this.size = size;
    this.#mostParts = maxChainParts(size);
    this.#eventIndex = options.eventIndex;
    this.#indirect = options.indirect;
    this.#words = new Uint32Array(buffer, descriptorIndex, size * 4);
    this.#signed = new Int32Array(buffer, descriptorIndex, size * 4);
    this.#driverEvent = new Uint16Array(buffer, availableIndex, 2);
    this.#deviceEvent = new Uint16Array(buffer, usedIndex, 2);
    this.#chains = new Array(size).fill(undefined);
    this.#order = options.inOrder ? new CompletionOrder(size) : null;
    this.#idAndFlags = new Int32Array(size);
    [this.#next, this.#usedNext] = places(options.base ?? initialBase(true), size);
    const record = inflight === undefined ? null : new PackedInflight(inflight, {
      size,
      usedPlace: this.#usedNext,
      isAnew: this.#isAnew(options.base),
      flagsAt: (at) => this.#loadIdAndFlags(at) >>> 16,
    });
    this.#inflight = record;
    this.#unfinished = record?.unfinished ?? [];
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
   * Whether the ring begins at its first descriptor, no device has used any, and
   * no driver has gone round it: one was never written. The base alone does not
   * say it: QEMU gives that of a ring's start again for a back-end that died.
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
   * Makes what was taken and not used look so. Who died before it showed a batch
   * to the driver may have written all of its used descriptors but the first:
   * behind the next one that is shown the driver would take them for real.
   */
  #hideUsed(): void {
    const { size } = this;
    for (let place = this.#usedNext; place !== this.#next; place = ahead(place, 1, size)) {
      const at = (place < size ? place : place - size) * 4 + ID_AND_FLAGS;
      Atomics.store(this.#signed, at, availableFlags(place, size) << 16);
    }
  }

  get resubmitted(): number {
    return this.#unfinished.length;
  }

  get base(): number {
    const { size } = this;
    return (offWrapOf(this.#next, size) | offWrapOf(this.#usedNext, size) << 16) >>> 0;
  }

  get isAvailable(): boolean {
    return this.#hasRoom &&
      (this.#isAvailableAt(this.#next) || this.#takenAgain < this.#unfinished.length);
  }

  get #hasRoom(): boolean {
    return this.#parts < MAX_PARTS_IN_FLIGHT;
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
    if ((this.isHeldUp = !this.#hasRoom)) return null;
    if (this.#takenAgain < this.#unfinished.length) return this.#takeAgain();
    const { size } = this;
    const place = this.#next;
    const first = place < size ? place : place - size;
    const idAndFlags = this.#loadIdAndFlags(first);
    if (!isAvailable(idAndFlags, place, size)) return null;
    const count = this.#scan(place, first, idAndFlags);
    if (this.#taken + count > size) {
      throw new RingError(
        "available-index",
        `The list of descriptor ${first} has ${count} descriptors, and ${this.#taken} of ${size} are not used yet`,
        "packed",
      );
    }
    const chain = this.#takeChain(this.#words, first, count, false);
    this.#inflight?.taken(chain.slot, this.#words, this.#idAndFlags, first, count);
    this.#taken += count;
    this.#next = ahead(place, count, size);
    return chain;
  }

  /** Takes a chain that was in flight: its descriptors may be overwritten, but the record has them. */
  #takeAgain(): Chain {
    const record = this.#inflight!;
    const entry = this.#unfinished[this.#takenAgain++];
    this.#copies ??= new Uint32Array(this.size * 4);
    const count = record.read(entry, this.#copies, this.#idAndFlags);
    const chain = this.#takeChain(this.#copies, 0, count, true);
    record.takenAgain(chain.slot, entry);
    return chain;
  }

  #takeChain(
    words: Uint32Array<ArrayBuffer>,
    first: number,
    count: number,
    isResubmitted: boolean,
  ): Chain {
    // The buffer ID stands in the last descriptor.
    const id = this.#idAndFlags[count - 1] & 0xffff;
    if (id >= this.size) {
      throw new RingError(
        "descriptor-index",
        `The buffer ID is ${id} in a queue of ${this.size}`,
        "packed",
      );
    }
    const chain = this.#chains[id] ??= new Chain(id, this.#memory.u8, this.#mostParts);
    if (chain.inFlight || chain.held >= 0) {
      throw new RingError("head-in-flight", `Buffer ${id} is in flight`, "packed");
    }
    this.#read(chain, words, first, count);
    chain.inFlight = true;
    chain.isResubmitted = isResubmitted;
    chain.previous = this.#lastTaken;
    this.#lastTaken = chain.slot;
    this.inFlight++;
    this.#parts += chain.parts;
    this.#order?.taken(chain);
    return chain;
  }

  /**
   * Reads ID and flags of a list, each descriptor's once; those of the first
   * one were read already.
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
        throw new RingError(
          "chain-length",
          `The list of descriptor ${first} has more than ${size} descriptors`,
          "packed",
        );
      }
      if (++at === size) {
        at = 0;
        wanted ^= OWNER_FLAGS;
      }
      idAndFlags = signed[at * 4 + ID_AND_FLAGS];
      if ((idAndFlags >>> 16 & OWNER_FLAGS) !== wanted) {
        throw new RingError(
          "list-available",
          `Descriptor ${at} of the list of descriptor ${first} is not available`,
          "packed",
        );
      }
      list[count++] = idAndFlags;
    }
    return count;
  }

  #read(chain: Chain, words: Uint32Array<ArrayBuffer>, at: number, count: number): void {
    const { size } = this;
    const list = this.#idAndFlags, memory = this.#memory;
    chain.begin(memory.u8, "packed");
    chain.ringDescriptors = count;
    for (let i = 0; i < count; i++) {
      const gpa = words[at * 4] + words[at * 4 + 1] * 2 ** 32;
      const bytes = words[at * 4 + 2];
      const flags = list[i] >>> 16;
      if (flags & VIRTQ_DESC_F_INDIRECT) {
        if (!this.#indirect) {
          throw new RingError(
            "indirect-negotiated",
            `Descriptor ${at} has the INDIRECT flag`,
            "packed",
          );
        }
        if (count > 1) {
          throw new RingError(
            "indirect-next",
            `Descriptor ${at} has the INDIRECT flag in a list of ${count}`,
            "packed",
          );
        }
        this.#readIndirect(chain, at, gpa, bytes);
      } else {
        chain.descriptors++;
        chain.add(memory, gpa, bytes, (flags & VIRTQ_DESC_F_WRITE) !== 0);
      }
      if (++at === size) at = 0;
    }
    chain.end();
  }

  #readIndirect(chain: Chain, at: number, gpa: number, tableBytes: number): void {
    if (tableBytes === 0 || tableBytes % DESCRIPTOR_BYTES !== 0) {
      throw new RingError(
        "indirect-length",
        `Descriptor ${at} has an indirect table of ${tableBytes} bytes`,
        "packed",
      );
    }
    const entries = tableBytes / DESCRIPTOR_BYTES;
    if (entries > this.#mostParts) {
      throw new RingError(
        "chain-length",
        `The table of descriptor ${at} has ${entries} descriptors, more than ${this.#mostParts}`,
        "packed",
      );
    }
    const memory = this.#memory;
    const start = memory.regions.translate(gpa, tableBytes);
    if (start < 0) {
      throw new RingError(
        "indirect-address",
        `Descriptor ${at} has an indirect table at 0x${gpa.toString(16)}+0x${
          tableBytes.toString(16)
        }`,
        "packed",
      );
    }
    const entry = this.#entry, view = this.#view;
    for (let i = 0; i < entries; i++) {
      copyDescriptor(view, start + i * DESCRIPTOR_BYTES, entry);
      // WRITE is the only flag with a meaning here, the others are ignored: virtio 1.3, 2.8.7.
      chain.descriptors++;
      chain.add(
        memory,
        entry[0] + entry[1] * 2 ** 32,
        entry[2],
        (entry[3] >>> 16 & VIRTQ_DESC_F_WRITE) !== 0,
      );
    }
  }

  put(chain: Chain, written: number): void {
    this.#returned(chain);
    const order = this.#order;
    if (order === null) return this.#use(chain, written);
    chain.held = written;
    for (let next = order.next(); next !== null; next = order.next()) {
      this.#use(next, next.held);
      next.held = -1;
    }
  }

  /** Uses a buffer, which the driver sees with the next publication. */
  #use(chain: Chain, written: number): void {
    const record = this.#inflight;
    if (record === null) return this.#write(chain.slot, chain.ringDescriptors, written);
    const at = this.#held++;
    this.#heldIds[at] = chain.slot;
    this.#heldDescriptors[at] = chain.ringDescriptors;
    this.#heldWritten[at] = written;
    record.used(chain.slot);
  }

  /**
   * Writes the next used descriptor, but not ID and flags of the first one of a
   * batch: the driver looks at them in ring order, so it sees none before these.
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

  abandon(chain: Chain): void {
    // Its slot stays taken, so that the driver cannot use it again, and in order
    // nothing behind it goes back.
    chain.abandon();
    this.#parts -= chain.parts;
    this.inFlight--;
  }

  get held(): Chain[] {
    return this.#chains.filter((chain) => chain?.isHeld === true) as Chain[];
  }

  untake(chain: Chain): void {
    if (this.#chains[this.#lastTaken] !== chain || !chain.isHeld) {
      throw new Error(`Expected the chain that was taken last, got that of slot ${chain.slot}`);
    }
    this.#lastTaken = chain.previous;
    this.#returned(chain);
    this.#order?.untaken();
    if (chain.isResubmitted) {
      this.#takenAgain--;
      return;
    }
    const { ringDescriptors } = chain;
    this.#next = ahead(this.#next, 2 * this.size - ringDescriptors, this.size);
    this.#taken -= ringDescriptors;
    this.#inflight?.untaken(chain.slot);
  }

  giveBack(): void {
    for (;;) {
      const last = this.#chains[this.#lastTaken];
      if (last === undefined || !last.isHeld) break;
      this.untake(last);
    }
    for (const chain of this.held) {
      // The record still has one that was in flight when the ring began.
      if (chain.isResubmitted) this.#returned(chain);
      else this.put(chain, 0);
    }
  }

  #returned(chain: Chain): void {
    this.#parts -= chain.parts;
    chain.returned();
    this.inFlight--;
  }

  release(): void {
    for (const chain of this.#chains) chain?.release();
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
    if (flags !== RING_EVENT_FLAGS_DESC || !this.#eventIndex) {
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
    if (this.#eventIndex) {
      Atomics.store(this.#deviceEvent, OFF_WRAP, offWrapOf(this.#next, this.size));
      this.#setEventFlags(RING_EVENT_FLAGS_DESC);
    } else {
      this.#setEventFlags(RING_EVENT_FLAGS_ENABLE);
    }
    return this.isAvailable;
  }

  disarm(): void {
    if (!this.#eventIndex) this.#setEventFlags(RING_EVENT_FLAGS_DISABLE);
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
