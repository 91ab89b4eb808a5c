/**
 * What the next look at a ring has to find, said as plainly as the standard says it: virtio 1.3,
 * 2.7 and 2.8. It shares nothing with the rings.
 */
import { INDIRECT, NEXT, type World, WRITE } from "./world.ts";

/** A buffer, piece by piece: index in the span and length. */
export type Pieces = [index: number, bytes: number][];

/** A chain that the device has to get. */
export interface ExpectedChain {
  id: number;
  /** Descriptors of the ring that it takes. */
  ringDescriptors: number;
  descriptors: number;
  readable: Pieces;
  writable: Pieces;
}

/** What a look has to find: the name of a broken rule, a chain, or nothing. */
export type Expected = string | ExpectedChain | null;

/** A rule that the driver broke, while looking. */
class Broken extends Error {
  constructor(readonly rule: string) {
    super(rule);
  }
}

/** How many entries of the available ring the device reads at once. */
const HEADS_AT_ONCE = 16;

/** What the device knows of a ring besides its memory. */
export interface RingKnowledge {
  /** Slots that are in flight, or given up. */
  readonly busy: ReadonlySet<number>;
  /** Split: the next available entry, and the available index as it was last read. */
  next: number;
  seen: number;
  /** Split: the entries from there on that were read already: a few are read at once. */
  heads: number[];
  /** Packed: the next descriptor, its wrap counter, and how many are not used yet. */
  at: number;
  wrap: boolean;
  taken: number;
}

/** What the next look has to find. */
export function expected(world: World, known: RingKnowledge): Expected {
  try {
    return world.options.packed ? packedLook(world, known) : splitLook(world, known);
  } catch (error) {
    if (error instanceof Broken) return error.rule;
    throw error;
  }
}

interface RawDescriptor {
  gpa: number;
  bytes: number;
  first: number;
  second: number;
}

function read(view: DataView, table: number, at: number): RawDescriptor {
  const place = table + at * 16;
  return {
    gpa: view.getUint32(place, true) + view.getUint32(place + 4, true) * 2 ** 32,
    bytes: view.getUint32(place + 8, true),
    first: view.getUint16(place + 12, true),
    second: view.getUint16(place + 14, true),
  };
}

/** Collects buffers and checks what holds for all of them. */
class Collector {
  readonly chain: ExpectedChain;
  #bytes = 0;

  constructor(readonly world: World, id: number) {
    this.chain = { id, ringDescriptors: 0, descriptors: 0, readable: [], writable: [] };
  }

  /** @param most How many descriptors there may be up to this one. */
  add({ gpa, bytes }: RawDescriptor, flags: number, most: number): void {
    const { chain } = this;
    const isWritable = (flags & WRITE) !== 0;
    if (++chain.descriptors > most) throw new Broken("chain-length");
    if (!isWritable && chain.writable.length > 0) throw new Broken("writable-before-readable");
    this.#bytes += bytes;
    if (this.#bytes > 2 ** 32) throw new Broken("chain-bytes");
    const pieces = isWritable ? chain.writable : chain.readable;
    const all = bytes;
    do {
      const region = this.world.regions.find(({ guestAddress, bytes }) =>
        gpa >= guestAddress && gpa < guestAddress + bytes
      );
      if (region === undefined) throw new Broken("buffer-address");
      const offset = gpa - region.guestAddress;
      const here = Math.min(bytes, region.bytes - offset);
      if (here < all) this.checkParts();
      pieces.push([region.index + offset, here]);
      gpa += here;
      bytes -= here;
    } while (bytes > 0);
  }

  /** A chain is in no more parts of memory than it may have descriptors at the most. */
  checkParts(): void {
    const { readable, writable } = this.chain;
    if (readable.length + writable.length > mostParts(this.world)) {
      throw new Broken("chain-length");
    }
  }

  table({ gpa, bytes }: RawDescriptor): number {
    const region = this.world.regions.find(({ guestAddress, bytes: size }) =>
      gpa >= guestAddress && gpa + bytes <= guestAddress + size
    );
    if (region === undefined) throw new Broken("indirect-address");
    return region.index + gpa - region.guestAddress;
  }

  checkTable({ bytes }: RawDescriptor, flags: number): void {
    if (!this.world.options.indirect) throw new Broken("indirect-negotiated");
    if (flags & NEXT) throw new Broken("indirect-next");
    if (bytes === 0 || bytes % 16 !== 0) throw new Broken("indirect-length");
  }
}

/** virtio 1.3, 2.7.5.3.1, but as QEMU takes it: Linux does not keep to the size of the ring. */
function mostParts({ options: { size } }: World): number {
  return Math.max(size, 1024);
}

function splitLook(world: World, known: RingKnowledge): Expected {
  const { view } = world;
  const { size, descriptorIndex, availableIndex } = world.options;
  if (known.next === known.seen) {
    const index = view.getUint16(availableIndex + 2, true);
    if (index === known.next) return null;
    if (((index - known.next) & 0xffff) > size) throw new Broken("available-index");
    known.seen = index;
  }
  const { heads } = known;
  if (heads.length === 0) {
    const count = Math.min((known.seen - known.next) & 0xffff, HEADS_AT_ONCE);
    for (let next = known.next; heads.length < count; next++) {
      heads.push(view.getUint16(availableIndex + 4 + 2 * (next % size), true));
    }
  }
  const head = heads[0];
  if (head >= size) throw new Broken("descriptor-index");
  if (known.busy.has(head)) throw new Broken("head-in-flight");
  const collector = new Collector(world, head);
  let table = descriptorIndex, entries = size, at = head, isIndirect = false;
  for (;;) {
    const descriptor = read(view, table, at);
    const { first: flags, second: next } = descriptor;
    if (flags & INDIRECT) {
      if (isIndirect) throw new Broken("indirect-nested");
      collector.checkTable(descriptor, flags);
      table = collector.table(descriptor);
      [entries, at, isIndirect] = [descriptor.bytes / 16, 0, true];
      continue;
    }
    collector.add(descriptor, flags, isIndirect ? mostParts(world) : size);
    if (!(flags & NEXT)) {
      collector.checkParts();
      return collector.chain;
    }
    if (next >= entries) throw new Broken("descriptor-next");
    at = next;
  }
}

function packedLook(world: World, known: RingKnowledge): Expected {
  const { view } = world;
  const { size, descriptorIndex } = world.options;
  const descriptors: RawDescriptor[] = [];
  let { at, wrap } = known;
  for (let goesOn = true; goesOn;) {
    if (descriptors.length === size) throw new Broken("chain-length");
    const descriptor = read(view, descriptorIndex, at);
    // Available: AVAIL is the wrap counter, USED is not (2.8.1).
    const isAvailable = descriptor.second & 0x8000
      ? !wrap && (descriptor.second & 0x80) === 0
      : wrap && (descriptor.second & 0x80) !== 0;
    if (!isAvailable) {
      if (descriptors.length === 0) return null;
      throw new Broken("list-available");
    }
    descriptors.push(descriptor);
    goesOn = (descriptor.second & NEXT) !== 0;
    if (++at === size) [at, wrap] = [0, !wrap];
  }
  const count = descriptors.length;
  if (known.taken + count > size) throw new Broken("available-index");
  const id = descriptors[count - 1].first;
  if (id >= size) throw new Broken("descriptor-index");
  if (known.busy.has(id)) throw new Broken("head-in-flight");
  const collector = new Collector(world, id);
  collector.chain.ringDescriptors = count;
  for (const descriptor of descriptors) {
    if (!(descriptor.second & INDIRECT)) {
      collector.add(descriptor, descriptor.second, size);
      continue;
    }
    collector.checkTable(descriptor, count > 1 ? NEXT : 0);
    const table = collector.table(descriptor);
    const entries = descriptor.bytes / 16;
    if (entries > mostParts(world)) throw new Broken("chain-length");
    for (let i = 0; i < entries; i++) {
      const entry = read(view, table, i);
      collector.add(entry, entry.second, mostParts(world));
    }
  }
  collector.checkParts();
  return collector.chain;
}
