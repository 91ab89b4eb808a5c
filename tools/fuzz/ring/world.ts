/**
 * A small guest for one ring: memory in regions, a ring in one of them, and a driver that writes
 * anything anywhere. There is a copy of the memory in which only the driver writes.
 */
import { type MemoryView, type Region, RegionTable } from "../../../src/memory/regions.ts";
import {
  inflightBytes,
  type InflightRegion,
  initialBase,
  ringBytes,
  type RingOptions,
} from "../../../src/virtqueue/mod.ts";
import type { Random } from "../../lib/random.ts";

/** What every region lies in. */
const SPAN_BYTES = 0x10000;

/** What regions are apart by, in the span. */
const GAP_BYTES = 64;

/** The largest ring. */
const MAX_SIZE = 64;

/** The flags of a descriptor: NEXT, WRITE, INDIRECT, and those of packed rings. */
export const NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7, USED = 1 << 15;

export interface Descriptor {
  gpa: number;
  bytes: number;
  flags: number;
  /** `next` of a split descriptor, the buffer ID of a packed one. */
  next: number;
}

/** A region table that does something each time an address is looked up. */
class WatchedTable extends RegionTable {
  onTranslate: () => void = () => {};

  override translate(gpa: number, bytes: number): number {
    this.onTranslate();
    return super.translate(gpa, bytes);
  }

  override place(
    ...[words, at, bytes, into, slot]: Parameters<RegionTable["place"]>
  ): boolean {
    const isPlaced = super.place(words, at, bytes, into, slot);
    if (isPlaced) this.onTranslate();
    return isPlaced;
  }
}

interface Range {
  start: number;
  end: number;
}

export class World {
  readonly memory: MemoryView;
  readonly options: RingOptions & { base: number };
  /** Where the ring records what is in flight, if it does. */
  readonly record: InflightRegion | undefined;
  /** Called while the ring reads a chain, between one descriptor and the next. */
  onTranslate: () => void = () => {};
  translations = 0;
  /** The ring's parts do not lie over each other. */
  readonly isApart: boolean;
  readonly #random: Random;
  readonly #view: DataView;
  readonly #copy: DataView;
  readonly #deviceWrites: Range[];

  constructor(random: Random) {
    this.#random = random;
    const u8 = new Uint8Array(new ArrayBuffer(SPAN_BYTES));
    this.#view = new DataView(u8.buffer);
    this.#copy = new DataView(new ArrayBuffer(SPAN_BYTES));
    const regions = placeRegions(random);
    const table = new WatchedTable(regions);
    table.onTranslate = () => {
      this.translations++;
      this.onTranslate();
    };
    this.memory = { u8, base: 0, regions: table };

    const packed = random.chance(1, 2);
    const size = packed ? random.between(1, MAX_SIZE) : 1 << random.between(0, 6);
    const bytes = ringBytes(size, packed);
    this.isApart = random.chance(7, 8);
    // The first region is the one with room for the largest ring.
    const { index } = regions[0];
    const at = { descriptor: index, available: index + 0x400, used: index + 0x500 };
    if (!this.isApart) {
      for (const part of ["descriptor", "available", "used"] as const) {
        at[part] = index + 16 * random.below(0x40);
      }
    }
    this.options = {
      size,
      packed,
      descriptorIndex: at.descriptor,
      availableIndex: at.available,
      usedIndex: at.used,
      base: randomBase(random, packed, size),
      eventIndex: random.chance(1, 2),
      indirect: random.chance(3, 4),
      inOrder: random.chance(1, 4),
    };
    const descriptors = size + random.below(3);
    this.record = random.chance(1, 3)
      ? { bytes: new Uint8Array(inflightBytes(descriptors, packed)), descriptors }
      : undefined;
    this.#deviceWrites = [
      { start: at.used, end: at.used + bytes.used },
      ...packed ? [{ start: at.descriptor, end: at.descriptor + bytes.descriptor }] : [],
    ];
  }

  /** Guest memory, for reading. */
  get view(): DataView {
    return this.#view;
  }

  get regions(): readonly Readonly<Region>[] {
    return this.memory.regions.regions;
  }

  setU16(at: number, value: number): void {
    this.#view.setUint16(at, value, true);
    this.#copy.setUint16(at, value, true);
  }

  setU32(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
    this.#copy.setUint32(at, value, true);
  }

  /** The driver writes a descriptor, to a table at an index of the span. */
  setDescriptor(table: number, at: number, { gpa, bytes, flags, next }: Descriptor): void {
    const place = table + at * 16;
    this.setU32(place, gpa >>> 0);
    this.setU32(place + 4, Math.floor(gpa / 2 ** 32) >>> 0);
    this.setU32(place + 8, bytes);
    // Of a packed descriptor, flags and ID stand the other way around, and the flags come last.
    this.setU16(place + (this.options.packed ? 12 : 14), next);
    this.setU16(place + (this.options.packed ? 14 : 12), flags);
  }

  /** The driver overwrites something of the ring, or of what indirect tables may be in. */
  scribble(): void {
    const random = this.#random;
    const { size, descriptorIndex, availableIndex, usedIndex, packed } = this.options;
    const bytes = ringBytes(size, packed);
    const table = descriptorIndex + 16 * random.below(size);
    switch (random.below(8)) {
      case 0:
        return this.setU16(availableIndex + 2 * random.below(bytes.available >> 1), this.#u16());
      case 1:
        return this.setU16(usedIndex + 2 * random.below(bytes.used >> 1), this.#u16());
      case 2:
        return this.setU16(table + 12, this.#flags());
      case 3:
        return this.setU16(table + 14, this.#flags());
      case 4:
        return this.setU32(table + 8, this.length());
      case 5:
        return this.setU32(table + 4 * random.below(4), random.u32());
      case 6: {
        // An entry of an indirect table.
        const { gpa, bytes, flags, next } = this.descriptor();
        const at = this.#somewhere(16);
        return this.setDescriptor(at - at % 16, 0, { gpa, bytes, flags, next });
      }
      case 7:
        return this.setDescriptor(descriptorIndex, random.below(size), this.descriptor());
    }
  }

  /** The front-end overwrites something of the record of what is in flight. */
  scribbleRecord(): void {
    const random = this.#random;
    if (this.record === undefined) return;
    const { bytes } = this.record;
    const view = new DataView(bytes.buffer);
    switch (random.below(3)) {
      case 0:
        return view.setUint16(2 * random.below(bytes.length >> 1), this.#u16(), true);
      case 1:
        bytes[random.below(bytes.length)] = random.below(3);
        return;
      case 2: // the header: features, version, descriptors, used index
        view.setUint16(8 + 2 * random.below(8), random.below(this.options.size + 2), true);
    }
  }

  descriptor(): Descriptor {
    const bytes = this.length();
    return { gpa: this.address(bytes), bytes, flags: this.#flags(), next: this.#u16() };
  }

  /** An index of the span with room for some bytes of guest memory behind it. */
  #somewhere(bytes: number): number {
    const region = this.#random.pick(this.regions);
    return region.index + this.#random.below(Math.max(region.bytes - bytes, 1));
  }

  /** A guest address: inside of regions, at and over their edges, anywhere else. */
  address(bytes: number): number {
    const random = this.#random;
    const region = random.pick(this.regions);
    const end = region.guestAddress + region.bytes;
    switch (random.below(10)) {
      case 0:
        return Math.max(region.guestAddress - random.below(3), 0);
      case 1:
        return Math.max(end - bytes + random.below(3) - 1, 0);
      case 2:
        return end - random.below(3);
      case 3:
        return random.pick([0, 2 ** 32 - 1, 2 ** 32, 2 ** 52, 2 ** 63, 2 ** 64 - 2 ** 11]);
      case 4:
        return random.u32() * 2 ** random.below(33);
      default:
        return region.guestAddress + random.below(Math.max(region.bytes - bytes, 1));
    }
  }

  /** A length: small ones, multiples of a descriptor, those of regions, 4 GiB. */
  length(): number {
    const random = this.#random;
    switch (random.below(8)) {
      case 0:
        return 0;
      case 1:
        return random.pick([2 ** 32 - 1, 2 ** 31, 2 ** 31 - 1, 2 ** 16]);
      case 2:
        return random.pick(this.regions).bytes + random.below(3) - 1;
      case 3:
        return random.u32();
      case 4:
        return 16 * random.below(2 * this.options.size + 2);
      default:
        return random.below(600);
    }
  }

  #u16(): number {
    const random = this.#random;
    const { size } = this.options;
    return random.chance(1, 8) ? random.u32() & 0xffff : random.below(size + 2);
  }

  #flags(): number {
    const random = this.#random;
    if (random.chance(1, 8)) return random.u32() & 0xffff;
    return random.below(8) |
      (this.options.packed ? random.pick([0, AVAIL, USED, AVAIL | USED]) : 0);
  }

  /**
   * Where memory differs from what the driver wrote, leaving out what is the device's to write; -1
   * for nowhere.
   */
  strayWrite(): number {
    for (let at = 0; at < SPAN_BYTES; at += 4) {
      if (this.#view.getUint32(at) === this.#copy.getUint32(at)) continue;
      for (let i = at; i < at + 4; i++) {
        if (this.#view.getUint8(i) === this.#copy.getUint8(i)) continue;
        if (!this.#deviceWrites.some(({ start, end }) => i >= start && i < end)) return i;
      }
    }
    return -1;
  }
}

/** Regions in any order, some of them neighbours for the guest and none in the span. */
function placeRegions(random: Random): Region[] {
  // Sometimes regions of one byte, so that a buffer has as many parts as bytes.
  const isShattered = random.chance(1, 8);
  const count = isShattered ? random.between(100, 250) : random.between(1, 4);
  let guestAddress = random.pick([0, 0x1000, 2 ** 32 - 0x2000, 2 ** 32, 2 ** 40]);
  let index = GAP_BYTES;
  const regions = Array.from({ length: count }, (_, i) => {
    const most = isShattered ? 2 : 0x1000;
    const bytes = i === 0 ? 0x1000 + random.below(0x1000) : 1 + random.below(most);
    if (random.chance(1, isShattered ? 100 : 2)) guestAddress += random.between(1, 0x100);
    const region = { guestAddress, bytes, userAddress: guestAddress, index };
    guestAddress += bytes;
    index += Math.ceil((bytes + GAP_BYTES) / 16) * 16;
    return region;
  });
  return regions;
}

function randomBase(random: Random, packed: boolean, size: number): number {
  if (random.chance(1, 3)) return initialBase(packed);
  if (!packed) return random.pick([0xffff, 0xfff0, 0x7fff, random.u32() & 0xffff]);
  const half = random.below(size) | (random.chance(1, 2) ? 0x8000 : 0);
  return (half | half << 16) >>> 0;
}
