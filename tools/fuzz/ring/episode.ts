/**
 * One guest and one ring, driven at random until the driver breaks a rule or the episode is long
 * enough. Without I/O and threads: a seed repeats all of it.
 */
import {
  type Chain,
  createRing,
  maxChainParts,
  type Parts,
  RingError,
  ringRules,
  type Virtqueue,
} from "../../../src/virtqueue/mod.ts";
import type { Random } from "../../lib/random.ts";
import type { Tally } from "../frame.ts";
import { type Expected, expected, type Pieces, type RingKnowledge } from "./oracle.ts";
import { useParts } from "./parts.ts";
import { expectRefusal } from "./place.ts";
import { AVAIL, INDIRECT, NEXT, USED, World, WRITE } from "./world.ts";

/** The longest episode, in cases. */
const MAX_CASES = 256;

/** Plays an episode of at most `limit` cases; returns how many it had. */
export function playEpisode(random: Random, limit: number, tally: Tally): number {
  const episode = new Episode(random, tally);
  const most = Math.min(limit, MAX_CASES);
  let cases = 0;
  while (cases < most) {
    cases++;
    if (!episode.step()) break;
  }
  episode.end();
  return cases;
}

/** A chain that the ring gave. */
interface Taken {
  id: number;
  descriptors: number;
  /** What was written to it, once it is complete. */
  written: number | undefined;
}

/** A chain that went back, and where in the ring it has to stand. */
interface Used extends Taken {
  at: number;
}

class Episode {
  readonly #world: World;
  readonly #ring: Virtqueue;
  /** What the device has, by ID. */
  readonly #taken = new Map<number, Chain>();
  /** IDs that may not come again: taken, held back, or given up. */
  readonly #busy = new Set<number>();
  /** In order: IDs that are not used yet, and what was written to those that are complete. */
  #order: Taken[] = [];
  readonly #known: RingKnowledge;
  /** What was used since the last publication: where in the ring, and which ID. */
  #unpublished: Used[] = [];
  /** Split: the next used element. Packed: its descriptor and wrap counter. */
  #usedNext: number;
  #usedWrap: boolean;
  /** The driver's own idea of where its next buffer goes. */
  #driverNext: number;

  constructor(readonly random: Random, readonly tally: Tally) {
    this.#world = new World(random);
    const { options, memory } = this.#world;
    const { base, size, packed, usedIndex, availableIndex } = options;
    if (!packed) {
      this.#world.setU16(availableIndex + 2, base);
      this.#world.setU16(usedIndex + 2, base);
    } else {
      // Everything before the base was used in this round, everything behind it in the last one.
      for (let at = 0; at < size; at++) {
        const wrap = (at < (base & 0x7fff)) === ((base & 0x8000) !== 0);
        this.#world.setU16(options.descriptorIndex + at * 16 + 14, wrap ? AVAIL | USED : 0);
      }
    }
    // A record that is new changes nothing.
    this.#ring = createRing(memory, options, this.#world.record);
    const wrap = (base & 0x8000) !== 0;
    this.#known = {
      busy: this.#busy,
      next: base & 0xffff,
      seen: base & 0xffff,
      heads: [],
      at: base & 0x7fff,
      wrap,
      taken: 0,
    };
    this.#usedNext = packed ? base & 0x7fff : this.#world.view.getUint16(usedIndex + 2, true);
    this.#usedWrap = wrap;
    this.#driverNext = packed ? (base & 0x7fff) + (wrap ? 0 : size) : base & 0xffff;
    tally.add(`pure: ${packed ? "packed" : "split"} rings${options.inOrder ? " in order" : ""}`);
  }

  /** The driver does something, the device looks. False when the ring is broken. */
  step(): boolean {
    const random = this.random;
    switch (random.below(8)) {
      case 0:
        this.#scribble();
        break;
      case 1:
        this.#moveIndexes();
        break;
      default:
        this.#offer();
    }
    // It is only written while the ring runs.
    if (random.chance(1, 4)) this.#world.scribbleRecord();
    const goesOn = this.#look();
    // Fewer are answered than come, so that the ring fills up now and then.
    while (goesOn && this.#taken.size > 0 && random.chance(1, 2)) this.#answer();
    if (random.chance(1, 3)) this.#publish();
    if (random.chance(1, 4)) this.#ring.disarm();
    if (random.chance(1, 4)) this.#ring.arm();
    return goesOn;
  }

  #scribble(): void {
    for (let i = this.random.between(1, 4); i > 0; i--) this.#world.scribble();
  }

  /** The driver makes more available than it wrote, or less, or takes something back. */
  #moveIndexes(): void {
    const random = this.random;
    const { packed, availableIndex, descriptorIndex, size } = this.#world.options;
    if (!packed) {
      const index = this.#known.next + random.pick([0, 1, 2, size, size + 1, random.u32()]);
      this.#world.setU16(availableIndex + 2, index & 0xffff);
      this.#driverNext = index & 0xffff;
      return;
    }
    for (let i = random.below(size + 1); i > 0; i--) {
      const place = descriptorIndex + ((this.#known.at + i) % size) * 16 + 14;
      this.#world.setU16(place, random.pick([AVAIL, USED, AVAIL | NEXT, USED | NEXT]));
    }
  }

  /** The driver makes a chain available: one that is right, or nearly so. */
  #offer(): void {
    const random = this.random;
    const world = this.#world;
    const { size, packed, descriptorIndex, availableIndex } = world.options;
    const isIndirect = random.chance(1, 4);
    const count = random.between(
      1,
      isIndirect ? size + (random.chance(1, 16) ? 1 : 0) : Math.min(size, 6),
    );
    const readable = random.below(count + 1);
    const isWrong = random.chance(1, 6);
    const parts = Array.from({ length: count }, (_, i) => {
      const bytes = isWrong && random.chance(1, 4) ? world.length() : random.below(200);
      const region = world.regions[0];
      return {
        gpa: isWrong && random.chance(1, 4)
          ? world.address(bytes)
          : region.guestAddress + 0x780 + random.below(region.bytes - 0x780 - 200),
        bytes,
        flags: i < readable ? 0 : WRITE,
        next: 0,
      };
    });
    let slot = random.below(size);
    for (let i = 0; i < size && this.#busy.has(slot) && !isWrong; i++) slot = (slot + 1) % size;
    if (isIndirect) {
      // Anywhere in the first region behind the ring, where it has room.
      const region = world.regions[0];
      const table = region.index + 0x780 +
        Math.max(random.below(Math.max(region.bytes - 0x780 - count * 16, 1)), 0);
      const fits = table + count * 16 <= region.index + region.bytes;
      if (!fits) return;
      parts.forEach((part, i) =>
        world.setDescriptor(table, i, {
          ...part,
          flags: part.flags | (!packed && i < count - 1 ? NEXT : 0) |
            (isWrong && random.chance(1, 8) ? INDIRECT : 0),
          next: isWrong && random.chance(1, 8) ? random.below(count + 2) : i + 1,
        })
      );
      const flags = INDIRECT | (isWrong && random.chance(1, 4) ? NEXT : 0);
      const gpa = isWrong && random.chance(1, 4)
        ? world.address(count * 16)
        : region.guestAddress + table - region.index;
      parts.splice(0, count, { gpa, bytes: count * 16, flags, next: 0 });
      if (isWrong && random.chance(1, 4)) parts[0].bytes += random.between(-16, 16);
      parts[0].bytes >>>= 0;
    }
    if (!packed) {
      parts.forEach((part, i) => {
        const isLast = i === parts.length - 1;
        world.setDescriptor(descriptorIndex, (slot + i) % size, {
          ...part,
          flags: part.flags | (isLast ? 0 : NEXT),
          next: isLast
            ? 0
            : isWrong && random.chance(1, 8)
            ? world.length() & 0xffff
            : (slot + i + 1) % size,
        });
      });
      world.setU16(availableIndex + 4 + 2 * (this.#driverNext % size), slot);
      this.#driverNext = (this.#driverNext + 1) & 0xffff;
      world.setU16(availableIndex + 2, this.#driverNext);
      return;
    }
    // A driver waits for room; a hostile one does not.
    if (this.#known.taken + parts.length > size && !isWrong) return;
    parts.forEach((part, i) => {
      const place = (this.#driverNext + i) % (2 * size);
      world.setDescriptor(descriptorIndex, place % size, {
        ...part,
        flags: part.flags | (place < size ? AVAIL : USED) | (i < parts.length - 1 ? NEXT : 0),
        next: slot,
      });
    });
    this.#driverNext = (this.#driverNext + parts.length) % (2 * size);
  }

  /** The device looks for a chain. */
  #look(): boolean {
    const random = this.random;
    const world = this.#world;
    const { size } = world.options;
    // Overwriting meanwhile leaves nothing to compare with but the rules.
    const isRaced = random.chance(1, 6);
    const wanted = expected(world, this.#known);
    const available = this.#ring.isAvailable;
    if (!isRaced && wanted !== null && typeof wanted !== "string" && !available) {
      throw new Error("Expected the ring to say that something is available, got nothing");
    }
    if (isRaced) world.onTranslate = () => random.chance(1, 3) && this.#scribble();
    world.translations = 0;
    let chain: Chain | null = null;
    let failure: unknown;
    try {
      chain = this.#ring.take();
    } catch (error) {
      failure = error;
    }
    world.onTranslate = () => {};
    // Each descriptor once, and each part of a buffer in neighbouring regions; and the table.
    const most = 2 * maxChainParts(size) + 2;
    if (world.translations > most) {
      throw new Error(`Expected at most ${most} addresses to look up, got ${world.translations}`);
    }
    if (failure !== undefined) {
      if (!(failure instanceof RingError)) throw failure;
      const { rule, message } = failure;
      if (!(rule in ringRules)) throw new Error(`Expected a known rule, got ${rule}`);
      const name = `pure: ${rule}`;
      this.tally.add(isRaced ? `${name}, overwritten meanwhile` : name);
      if (!isRaced && wanted !== rule) throw mismatch(wanted, `"${message}"`);
      return false;
    }
    if (chain === null) {
      this.tally.add("pure: nothing available");
      if (!isRaced && wanted !== null) throw mismatch(wanted, "nothing");
      return true;
    }
    this.tally.add(isRaced ? "pure: chains, overwritten meanwhile" : "pure: chains");
    if (chain.descriptors > (chain.ringDescriptors || 1)) this.tally.add("pure: longer chains");
    this.#checkChain(chain);
    if (!isRaced) {
      if (wanted === null || typeof wanted === "string") {
        throw mismatch(wanted, `the chain with ID ${chain.id}`);
      }
      const got = [chain.id, chain.descriptors, pieces(chain.readable), pieces(chain.writable)];
      const { id, descriptors, readable, writable } = wanted;
      const all = [id, descriptors, readable, writable];
      if (JSON.stringify(got) !== JSON.stringify(all)) throw mismatch(wanted, JSON.stringify(got));
    }
    this.#note(chain);
    for (const parts of [chain.readable, chain.writable]) {
      useParts(random, parts, pieces(parts), world.memory.u8);
    }
    return true;
  }

  /** What holds for every chain, whatever was written meanwhile. */
  #checkChain(chain: Chain): void {
    const { slot, id } = chain;
    const { size } = this.#world.options;
    for (const number of [slot, id]) {
      if (!(number >= 0 && number < size)) {
        throw new Error(`Expected a number below ${size}, got ${number}`);
      }
    }
    if (this.#busy.has(id)) throw new Error(`ID ${id} is in flight already`);
    const most = maxChainParts(size);
    if (!(chain.descriptors >= 1 && chain.descriptors <= most)) {
      throw new Error(`Expected 1 to ${most} descriptors, got ${chain.descriptors}`);
    }
    let total = 0;
    for (const parts of [chain.readable, chain.writable]) {
      let bytes = 0;
      for (const [index, length] of pieces(parts)) {
        const isInside = this.#world.regions.some((region) =>
          index >= region.index && index + length <= region.index + region.bytes
        );
        if (!isInside) throw new Error(`A part of slot ${slot} is at ${index}+${length}`);
        bytes += length;
      }
      if (bytes !== parts.byteLength) {
        throw new Error(`Expected ${bytes} bytes in slot ${slot}, got ${parts.byteLength}`);
      }
      total += bytes;
    }
    if (total > 2 ** 32) throw new Error(`Slot ${slot} has ${total} bytes`);
    if (total !== chain.readableBytes + chain.writableBytes) {
      throw new Error(`Slot ${slot} counts its bytes wrong`);
    }
    if (chain.readable.count + chain.writable.count > most) {
      throw new Error(`Slot ${slot} has too many parts`);
    }
  }

  #note(chain: Chain): void {
    for (const { slot } of this.#taken.values()) {
      if (slot === chain.slot) throw new Error(`Slot ${slot} is in flight already`);
    }
    const { size, packed } = this.#world.options;
    this.#taken.set(chain.id, chain);
    this.#busy.add(chain.id);
    this.#order.push({
      id: chain.id,
      descriptors: packed ? chain.ringDescriptors : 1,
      written: undefined,
    });
    const known = this.#known;
    if (packed) {
      known.taken += chain.ringDescriptors;
      known.at += chain.ringDescriptors;
      if (known.at >= size) [known.at, known.wrap] = [known.at - size, !known.wrap];
    } else {
      known.next = (known.next + 1) & 0xffff;
      known.heads.shift();
    }
    if (this.#ring.inFlight !== this.#taken.size) {
      throw new Error(`Expected ${this.#taken.size} in flight, got ${this.#ring.inFlight}`);
    }
    if (!packed && this.#ring.base !== known.next) {
      throw new Error(`Expected base ${known.next}, got ${this.#ring.base}`);
    }
  }

  /** The device answers one of the chains that it has, or gives it up. */
  #answer(): void {
    const random = this.random;
    const { inOrder } = this.#world.options;
    const chain = random.pick([...this.#taken.values()]);
    this.#taken.delete(chain.id);
    if (random.chance(1, 64)) {
      this.#ring.abandon(chain);
      this.tally.add("pure: chains given up");
      return;
    }
    const written = random.chance(1, 4)
      ? chain.writableBytes
      : random.below(chain.writableBytes + 1);
    this.#ring.put(chain, written);
    const entry = this.#order.find(({ id }) => id === chain.id)!;
    entry.written = written;
    if (inOrder) {
      while (this.#order.length > 0 && this.#order[0].written !== undefined) {
        this.#used(this.#order.shift()!);
      }
    } else {
      this.#order = this.#order.filter((other) => other !== entry);
      this.#used(entry);
    }
    if (this.#ring.inFlight !== this.#taken.size) {
      throw new Error(`Expected ${this.#taken.size} in flight, got ${this.#ring.inFlight}`);
    }
  }

  /** A chain goes back to the driver: looks at where it has to stand. */
  #used(entry: Taken): void {
    const { isApart, options, view } = this.#world;
    const { packed, size, usedIndex } = options;
    const { id, descriptors, written } = entry;
    this.#busy.delete(id);
    this.tally.add("pure: chains used");
    if (packed) {
      const used = { at: this.#usedNext, id, descriptors, written };
      // Nothing is written before it is published where a record is kept; else everything but the
      // ID of the first one, and the driver may write over it.
      if (this.#isWrittenAtOnce) this.#checkUsed(used, this.#unpublished.length > 0);
      this.#unpublished.push(used);
      this.#usedNext += descriptors;
      if (this.#usedNext >= size) {
        [this.#usedNext, this.#usedWrap] = [this.#usedNext - size, !this.#usedWrap];
      }
      return;
    }
    const at = usedIndex + 4 + (this.#usedNext % size) * 8;
    this.#usedNext = (this.#usedNext + 1) & 0xffff;
    this.#unpublished.push({ at: this.#usedNext, id, descriptors, written });
    const got = [view.getUint32(at, true), view.getUint32(at + 4, true)];
    if (isApart && (got[0] !== id || got[1] !== written! % 2 ** 32)) {
      throw new Error(`Expected used ${id} with ${written} bytes, got ${got}`);
    }
  }

  /** The device shows the driver what it used. */
  #publish(): void {
    const { isApart, options, view } = this.#world;
    this.#ring.publish();
    const used = this.#unpublished;
    this.#unpublished = [];
    if (options.packed) this.#known.taken -= used.reduce((sum, each) => sum + each.descriptors, 0);
    if (used.length === 0 || !isApart) return;
    if (!options.packed) {
      const index = view.getUint16(options.usedIndex + 2, true);
      if (index !== this.#usedNext) {
        throw new Error(`Expected used index ${this.#usedNext}, got ${index}`);
      }
    } else {
      const { at, id } = used[0];
      const got = view.getUint16(options.descriptorIndex + at * 16 + 12, true);
      if (got !== id) throw new Error(`Expected used ${id} first, got ${got}`);
      if (!this.#isWrittenAtOnce) { for (const each of used) this.#checkUsed(each, true); }
    }
    this.tally.add("pure: publications");
  }

  get #isWrittenAtOnce(): boolean {
    return this.#world.record === undefined;
  }

  /** Looks at a used descriptor of a packed ring. */
  #checkUsed({ at, id, written }: Used, withId: boolean): void {
    const { isApart, options, view } = this.#world;
    if (!isApart) return;
    const place = options.descriptorIndex + at * 16;
    const got = [withId ? view.getUint16(place + 12, true) : id, view.getUint32(place + 8, true)];
    if (got[0] !== id || got[1] !== written! % 2 ** 32) {
      throw new Error(`Expected used ${id} with ${written} bytes, got ${got}`);
    }
  }

  /** The device dies, and another one goes on from its record, whatever that says now. */
  #resume(): void {
    const random = this.random;
    const world = this.#world;
    for (let i = random.below(3); i > 0; i--) world.scribbleRecord();
    const base = random.pick([world.options.base, null]);
    try {
      const ring = createRing(world.memory, { ...world.options, base }, world.record);
      this.tally.add("pure: rings that went on");
      this.tally.add("pure: chains to take again", ring.resubmitted);
      this.#busy.clear();
      for (let chain = ring.take(); chain !== null; chain = ring.take()) {
        this.#checkChain(chain);
        this.#busy.add(chain.id);
        // In order, an ID that is answered may still wait for others.
        if (world.options.inOrder || random.chance(1, 2)) continue;
        ring.put(chain, chain.writableBytes);
        ring.publish();
        this.#busy.delete(chain.id);
      }
    } catch (error) {
      expectRefusal(error, this.tally);
    }
  }

  /** The device wrote where it may, and nowhere else. */
  end(): void {
    if (this.#world.record !== undefined) this.#resume();
    const at = this.#world.strayWrite();
    if (at >= 0) throw new Error(`The device wrote to byte ${at} of memory`);
  }
}

function pieces(parts: Parts): Pieces {
  return Array.from({ length: parts.count }, (_, i) => [parts.index(i), parts.length(i)]);
}

function mismatch(wanted: Expected, got: string): Error {
  const text = typeof wanted === "string" ? `a broken rule (${wanted})` : JSON.stringify(wanted);
  return new Error(`Expected ${wanted === null ? "nothing" : text}, got ${got}`);
}
