/**
 * A thread of the soak test: it drives one queue of a disk with requests of random shapes on its own
 * blocks, and checks every byte.
 *
 * @module
 */

import {
  type AnyDriverQueue,
  type DriverMemory,
  openDriverQueue,
  viewSharedMemory,
} from "../../../src/frontend/mod.ts";
import { mix, Random } from "../../../tools/lib/random.ts";
import {
  BLOCK_BYTES,
  MAX_SLOTS,
  SLOT_BYTES,
  SMALL_SLOTS,
  type SoakOrder,
  type SoakResult,
} from "./soak_order.ts";
import { answerOrders } from "./worker_thread.ts";

/** The most blocks of one request. */
const MAX_BLOCKS = 8;
/** The most parts of one request. */
const MAX_PARTS = 16;

const HEADER_BYTES = 16;
const IN = 0, OUT = 1, GET_ID = 8; // virtio 1.3, 5.2.6
const ID_BYTES = 20;
/** Offsets of the parts of a small request. */
const SMALL_ID = 64, SMALL_STATUS = 128;
const GUARD = 0xa5, NO_STATUS = 0xff;
const LOST_AFTER_MS = 20_000;
/** Some milliseconds of polling. */
const MOST_SPINS = 100_000;

/** A request in flight. */
interface Slot {
  readonly index: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  isFree: boolean;
  type: number;
  block: number;
  blocks: number;
  /** Offsets in `bytes` of the parts that the device writes, in order. */
  writable: { at: number; bytes: number }[];
}

class Soak {
  readonly #order: SoakOrder;
  readonly #random: Random;
  readonly #queue: AnyDriverQueue;
  readonly #slots: Slot[];
  readonly #small: Slot[];
  readonly #byHead: (Slot | undefined)[];
  /** The generation of each block's content; 0 if it was never written. */
  readonly #versions: Uint32Array;
  readonly #isBusy: Uint8Array;
  readonly #stream = new Uint8Array(HEADER_BYTES + MAX_BLOCKS * BLOCK_BYTES);
  readonly #expected = new Uint32Array(MAX_BLOCKS * BLOCK_BYTES / 4);
  #last: Slot[] = [];
  completed = 0;

  constructor(order: SoakOrder, memory: DriverMemory, queue: AnyDriverQueue) {
    this.#order = order;
    this.#random = new Random(order.seed);
    this.#queue = queue;
    const slot = (index: number): Slot => ({
      index,
      bytes: memory.at(order.gpa + index * SLOT_BYTES, SLOT_BYTES),
      isFree: true,
      type: IN,
      block: 0,
      blocks: 0,
      writable: [],
    });
    this.#slots = Array.from({ length: MAX_SLOTS }, (_, i) => slot(i));
    this.#small = Array.from({ length: SMALL_SLOTS }, (_, i) => slot(MAX_SLOTS + i));
    for (const small of this.#small) small.bytes[0] = small.type = GET_ID;
    this.#byHead = new Array(queue.size).fill(undefined);
    this.#versions = new Uint32Array(order.blocks);
    this.#isBusy = new Uint8Array(order.blocks);
  }

  run(): void {
    const end = performance.now() + this.#order.milliseconds;
    while (performance.now() < end) {
      if (this.#random.chance(1, 100)) this.#trickle(this.#random.between(1, 40));
      this.#addSome();
      this.#collect();
    }
    while (this.#queue.inFlight > 0) this.#await();
    this.#readAll();
    if (this.#queue.free !== this.#queue.size) throw new Error("Descriptors were lost");
  }

  #addSome(): void {
    const random = this.#random;
    for (let i = random.between(0, 6); i > 0; i--) {
      const slot = this.#slots[random.below(MAX_SLOTS)];
      if (!slot.isFree || !this.#choose(slot)) continue;
      if (!this.#add(slot)) break;
      if (random.chance(1, 4)) this.#queue.submit();
    }
    this.#queue.submit();
  }

  /**
   * Makes small requests one by one, at random moments: some meet the device at its last check
   * before it sleeps. There a missing barrier shows, as a lost notification, about once in hundreds
   * of thousands of requests, so these are short.
   */
  #trickle(milliseconds: number): void {
    const queue = this.#queue;
    const random = this.#random;
    const longest = random.pick([1, 30, 100, 300, 1000, 10_000]);
    const inFlight = random.pick([1, 1, 2, 8]);
    while (queue.inFlight > 0) this.#await();
    queue.disarm();
    const end = performance.now() + milliseconds;
    let next = 0;
    while (performance.now() < end) {
      for (let turns = 100; turns > 0; turns--) {
        const slot = this.#small[next];
        const isAdded = slot.isFree && this.#addSmall(slot);
        if (isAdded) next = (next + 1) % SMALL_SLOTS;
        // Added requests are published once fewer are in flight.
        for (let spin = MOST_SPINS; queue.inFlight > inFlight && !this.#poll();) {
          if (--spin === 0) this.#await();
        }
        for (let spin = random.below(longest); spin > 0; spin--);
        queue.submit();
        if (!isAdded) this.#poll();
      }
    }
    while (queue.inFlight > 0) this.#await();
  }

  #addSmall(slot: Slot): boolean {
    const queue = this.#queue;
    if (!queue.begin(3)) return false;
    const gpa = this.#order.gpa + slot.index * SLOT_BYTES;
    slot.bytes[SMALL_STATUS] = NO_STATUS;
    queue.descriptor(gpa, HEADER_BYTES, false);
    queue.descriptor(gpa + SMALL_ID, ID_BYTES, true);
    queue.descriptor(gpa + SMALL_STATUS, 1, true);
    this.#note(queue.end(), slot);
    return true;
  }

  /** Notes that a request is in flight. */
  #note(head: number, slot: Slot): void {
    if (this.#byHead[head] !== undefined) throw new Error(`Number ${head} was given out twice`);
    this.#byHead[head] = slot;
    slot.isFree = false;
    if (this.#order.queue.inOrder) this.#last.push(slot);
  }

  /** Takes completed requests, or waits for them in one of several ways. */
  #collect(): void {
    const queue = this.#queue;
    const random = this.#random;
    let found = 0;
    while (this.#poll()) found++;
    if (queue.inFlight === 0) return;
    switch (random.below(found > 0 ? 6 : 4)) {
      case 0:
        return this.#await();
      case 1:
        queue.disarm();
        for (let spin = random.below(2000); spin > 0 && !this.#poll(); spin--);
        return;
      case 2:
        if (queue.arm()) this.#poll();
    }
  }

  #await(): void {
    if (!this.#queue.wait(LOST_AFTER_MS)) {
      throw new Error(
        `Nothing came in ${LOST_AFTER_MS} ms with ${this.#queue.inFlight} requests in flight: ` +
          "a notification was lost, or a request",
      );
    }
    while (this.#poll());
  }

  /** Chooses a slot's next request, on blocks that no other request uses. */
  #choose(slot: Slot): boolean {
    const random = this.#random;
    slot.blocks = random.chance(1, 3) ? random.between(1, MAX_BLOCKS) : 1;
    slot.block = random.below(this.#order.blocks - slot.blocks + 1);
    let known = true;
    for (let block = slot.block; block < slot.block + slot.blocks; block++) {
      if (this.#isBusy[block]) return false;
      known &&= this.#versions[block] > 0;
    }
    slot.type = known && random.chance(1, 2) ? IN : OUT;
    return true;
  }

  #add(slot: Slot): boolean {
    const random = this.#random;
    const queue = this.#queue;
    const { indirectParts } = this.#order.queue;
    const indirect = indirectParts > 0 && random.chance(1, 2);
    const dataBytes = slot.blocks * BLOCK_BYTES;
    const isWrite = slot.type === OUT;
    const most = Math.min(MAX_PARTS, queue.size, indirect ? indirectParts : queue.size);
    const inParts = random.between(1, most - 1);
    const outParts = random.between(1, most - inParts);
    const readable = this.#cut(HEADER_BYTES + (isWrite ? dataBytes : 0), inParts);
    const writable = this.#cut((isWrite ? 0 : dataBytes) + 1, outParts);
    if (!queue.begin(readable.length + writable.length, indirect)) return false;

    slot.bytes.fill(GUARD);
    const stream = this.#stream.subarray(0, HEADER_BYTES + (isWrite ? dataBytes : 0));
    const header = new DataView(stream.buffer);
    header.setUint32(0, slot.type, true);
    header.setUint32(4, 0, true);
    header.setBigUint64(8, BigInt(this.#order.firstBlock + slot.block), true);
    if (isWrite) {
      for (let i = 0; i < slot.blocks; i++) this.#versions[slot.block + i]++;
      stream.set(this.#pattern(slot), HEADER_BYTES);
    }
    const gpa = this.#order.gpa + slot.index * SLOT_BYTES;
    let at = random.below(32), from = 0;
    for (const bytes of readable) {
      slot.bytes.set(stream.subarray(from, from + bytes), at);
      queue.descriptor(gpa + at, bytes, false);
      from += bytes;
      at += bytes + random.below(32);
    }
    slot.writable = [];
    for (const bytes of writable) {
      slot.writable.push({ at, bytes });
      queue.descriptor(gpa + at, bytes, true);
      at += bytes + random.below(32);
    }
    const status = slot.writable.at(-1)!;
    slot.bytes[status.at + status.bytes - 1] = NO_STATUS;
    this.#isBusy.fill(1, slot.block, slot.block + slot.blocks);
    this.#note(queue.end(), slot);
    return true;
  }

  /** Divides a number of bytes into at most `parts` parts. */
  #cut(bytes: number, parts: number): number[] {
    const cuts = new Set([bytes]);
    for (let i = 1; i < parts; i++) cuts.add(this.#random.between(1, bytes));
    const ends = [...cuts].sort((a, b) => a - b);
    return ends.map((end, i) => end - (ends[i - 1] ?? 0));
  }

  /** The content of a request's blocks. */
  #pattern({ block, blocks }: Slot): Uint8Array {
    const words = this.#expected.subarray(0, blocks * BLOCK_BYTES / 4);
    const perBlock = BLOCK_BYTES / 4;
    for (let i = 0; i < blocks; i++) {
      const at = this.#order.firstBlock + block + i;
      const start = mix(at ^ mix(this.#versions[block + i] ^ this.#order.seed));
      for (let word = 0; word < perBlock; word++) {
        words[i * perBlock + word] = start + Math.imul(word, 0x9e3779b1);
      }
    }
    return new Uint8Array(words.buffer, 0, blocks * BLOCK_BYTES);
  }

  #poll(): boolean {
    const head = this.#queue.poll();
    if (head < 0) return false;
    this.#settle(head);
    return true;
  }

  #settle(head: number): void {
    const slot = this.#byHead[head];
    if (slot === undefined) throw new Error(`Number ${head} came back and was not in flight`);
    this.#byHead[head] = undefined;
    if (this.#order.queue.inOrder && this.#last.shift() !== slot) {
      throw new Error("A request came back before one that was made earlier");
    }
    this.#check(slot, this.#queue.written);
    this.#isBusy.fill(0, slot.block, slot.block + slot.blocks);
    slot.isFree = true;
    this.completed++;
  }

  #check(slot: Slot, written: number): void {
    if (slot.type === GET_ID) {
      const status = slot.bytes[SMALL_STATUS];
      if (written === ID_BYTES + 1 && status === 0) return;
      throw new Error(`A small request has status ${status}, the device says ${written} bytes`);
    }
    const isRead = slot.type === IN;
    const what = `${isRead ? "read" : "write"} of ${slot.blocks} blocks from ${slot.block}`;
    const expectedBytes = (isRead ? slot.blocks * BLOCK_BYTES : 0) + 1;
    if (written !== expectedBytes) {
      throw new Error(`A ${what} has ${expectedBytes} bytes, the device says ${written}`);
    }
    const expected = isRead ? this.#pattern(slot) : new Uint8Array();
    let at = 0, end = -1;
    for (const part of slot.writable) {
      // Memory that the device must not write is unchanged.
      for (; end >= 0 && end < part.at; end++) {
        if (slot.bytes[end] !== GUARD) throw new Error(`A ${what} wrote beside its buffers`);
      }
      for (let i = 0; i < part.bytes; i++, at++) {
        const byte = slot.bytes[part.at + i];
        if (byte !== (at < expected.length ? expected[at] : 0)) {
          throw new Error(`A ${what} has 0x${byte.toString(16)} at byte ${at} of what it wrote`);
        }
      }
      end = part.at + part.bytes;
    }
    for (const last = Math.min(end + 64, SLOT_BYTES); end < last; end++) {
      if (slot.bytes[end] !== GUARD) throw new Error(`A ${what} wrote beside its buffers`);
    }
  }

  /** Reads every block once more. */
  #readAll(): void {
    const [slot] = this.#slots;
    for (let block = 0; block < this.#order.blocks; block++) {
      if (this.#versions[block] === 0) continue;
      [slot.type, slot.block, slot.blocks] = [IN, block, 1];
      this.#add(slot);
      this.#queue.submit();
      this.#await();
      while (!slot.isFree) this.#await();
    }
  }
}

answerOrders((order: SoakOrder): SoakResult => {
  const memory = viewSharedMemory(order.memory);
  using queue = openDriverQueue(memory, order.queue);
  const soak = new Soak(order, memory, queue);
  try {
    soak.run();
    return { requests: soak.completed };
  } catch (error) {
    return { requests: soak.completed, error: (error as Error).message };
  }
});
