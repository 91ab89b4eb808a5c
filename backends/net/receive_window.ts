/**
 * The buffers of the driver that the next packets go to.
 *
 * @module
 */

import type { Chain, Parts, QueueHandle, VectorSink } from "../../mod.ts";
import { addressOf, copyBetween, MAX_IO_VECTORS, pinnedBuffer } from "../../src/linux/mod.ts";
import { UNKNOWN } from "./counts.ts";
import { HEADER_BYTES, MAX_FRAME_BYTES } from "./packet.ts";

/** The most chains in the window. */
const MAX_CHAINS = 1024;

/**
 * How many chains are taken at once for copies. Each is written to as it is taken: a line that the
 * driver's processor has takes 100 ns and more to come over, but several come at the same time.
 */
const CHAINS_AHEAD = 16;

/** A line of a processor's cache. */
const LINE_BYTES = 64;

/** The most bytes of a header that a driver does not have. */
const MAX_GAP = 2;

/** The most entries: one of a vectored read is for the spare. */
const MAX_ENTRIES = MAX_IO_VECTORS - 1;

/** How many entries there is memory for: they move to its beginning when it is used up. */
const LIST_ENTRIES = 4 * MAX_IO_VECTORS;

const ENTRY_WORDS = 4; // struct iovec

/**
 * Chains that are taken and not yet filled, first in, first out, and their memory as a list of
 * struct iovec. What a packet leaves over is for the next one, so a chain is taken and listed once.
 */
export class ReceiveWindow {
  /** The bytes that the next packet can have. */
  room = 0;
  /** Where a copy goes to, and where from: see `copyBetween`. */
  readonly addresses = new Float64Array(2);
  /**
   * The kind of the packet, if its port knows it (see `packetKind`). Reading it from the driver's
   * memory waits until that is taken from the driver's processor.
   */
  kind = UNKNOWN;
  /** No chain is taken before a packet is delivered. */
  isFull = false;
  readonly #base: number;
  readonly #words = new Uint32Array(pinnedBuffer((LIST_ENTRIES + 1) * ENTRY_WORDS * 4));
  readonly #address = addressOf(this.#words);
  /** Takes the end of a packet that has no room. */
  readonly #spare = new Uint8Array(
    pinnedBuffer(HEADER_BYTES + MAX_FRAME_BYTES + MAX_GAP),
    0,
    HEADER_BYTES + MAX_FRAME_BYTES,
  );
  readonly #spareAddress = addressOf(this.#spare);
  /** The entries from the first chain's to the last one's. */
  #first = 0;
  #end = 0;
  readonly #chains: (Chain | undefined)[] = new Array(MAX_CHAINS).fill(undefined);
  readonly #entries = new Uint16Array(MAX_CHAINS);
  readonly #bytes = new Float64Array(MAX_CHAINS);
  /** The first chain, and how many there are. */
  #head = 0;
  #count = 0;
  /** A packet may use several chains: VIRTIO_NET_F_MRG_RXBUF. */
  #isMergeable = false;
  /** The bytes of the header that the driver does not have: see `short_header.ts`. */
  #gap = 0;
  /** Where the next copy goes: the entry, and the byte in it. */
  #entry = 0;
  #at = 0;
  /** The bytes of the packet that are in the spare memory. */
  #spared = 0;
  /** Packets are copied here, not read by a call. */
  #isCopied = false;

  /** @param base The address of index 0 of guest memory. */
  constructor(base: number) {
    this.#base = base;
    this.#set(LIST_ENTRIES, this.#spareAddress, this.#spare.length);
  }

  /** Makes a window of memory that stays where it is, into which packets go one after the other. */
  static over(memory: Uint8Array<ArrayBuffer>): ReceiveWindow {
    const window = new ReceiveWindow(0);
    window.#set(window.#end++, addressOf(memory), memory.length);
    window.room = memory.length;
    return window;
  }

  /** Empties it, when a ring starts or stops: its chains are the ring's again. */
  begin(isMergeable: boolean, headerBytes = HEADER_BYTES): void {
    this.#isMergeable = isMergeable;
    this.#gap = HEADER_BYTES - headerBytes;
    this.isFull = false;
    this.#chains.fill(undefined);
    this.#head =
      this.#count =
      this.#first =
      this.#end =
      this.room =
        0;
  }

  /** The first chain. */
  get first(): Chain | undefined {
    return this.#chains[this.#head];
  }

  /**
   * Takes chains until there is room for a packet of `bytes` bytes; without mergeable buffers, one.
   *
   * @returns Whether there is room for any packet.
   */
  fill(queue: QueueHandle, bytes: number): boolean {
    const isEnough = this.#isMergeable ? this.room >= bytes : this.#count > 0;
    if (isEnough) return true;
    const least = this.#isMergeable ? bytes : 1;
    const chains = this.#isCopied ? CHAINS_AHEAD : 1;
    for (let i = 0; (i < chains || this.room < least) && this.#take(queue); i++);
    return this.#count > 0;
  }

  #take(queue: QueueHandle): boolean {
    this.isFull ||= this.#count === MAX_CHAINS || this.#end - this.#first === MAX_ENTRIES;
    if (this.isFull) return false;
    const chain = queue.take();
    if (chain === null) return false;
    const { writable } = chain;
    // virtio 1.3, 5.1.6.3.1
    if (writable.byteLength < HEADER_BYTES - this.#gap) {
      queue.fail(
        new RangeError(
          `Expected a receive buffer of at least ${
            HEADER_BYTES - this.#gap
          } bytes, got ${writable.byteLength}`,
        ),
        chain,
      );
      return false;
    }
    if (this.#end + MAX_IO_VECTORS >= LIST_ENTRIES) {
      this.#words.copyWithin(0, this.#first * ENTRY_WORDS, this.#end * ENTRY_WORDS);
      this.#end -= this.#first;
      this.#first = 0;
    }
    if (this.#isCopied) {
      writable.setU8(0, 0);
      if (writable.byteLength > LINE_BYTES) writable.setU8(LINE_BYTES, 0);
    }
    const begin = this.#end;
    const listed = this.#gap === 0 ? this.#list(writable) : this.#listAround(writable);
    if (listed < writable.byteLength + this.#gap && this.#count > 0) {
      this.#end = begin;
      this.isFull = true;
      queue.untake(chain);
      return false;
    }
    const at = (this.#head + this.#count++) % MAX_CHAINS;
    this.#chains[at] = chain;
    this.#entries[at] = this.#end - begin;
    this.#bytes[at] = listed;
    this.room += listed;
    return true;
  }

  /** Lists the memory of a chain; returns how many bytes there was room for. */
  #list(parts: Parts): number {
    const words = this.#words;
    let listed = 0;
    for (let i = 0; i < parts.count && this.#end - this.#first < MAX_ENTRIES; i++) {
      const bytes = parts.length(i);
      if (bytes === 0) continue;
      const at = this.#end++ * ENTRY_WORDS, address = this.#base + parts.index(i);
      words[at] = address >>> 0;
      words[at + 1] = address / 2 ** 32;
      words[at + 2] = bytes;
      listed += bytes;
    }
    return listed;
  }

  /** Lists the memory of a chain with a gap in it, into which the end of the header goes. */
  #listAround(parts: Parts): number {
    const headerBytes = HEADER_BYTES - this.#gap;
    const listed = parts.gather(this, this.#base, 0, headerBytes);
    this.push(this.#spareAddress + this.#spare.length, this.#gap);
    return listed + this.#gap + parts.gather(this, this.#base, headerBytes);
  }

  /**
   * Lists memory of the chain that is being taken.
   *
   * @internal
   */
  push(address: number, bytes: number): boolean {
    if (this.#end - this.#first === MAX_ENTRIES) return false;
    this.#set(this.#end++, address, bytes);
    return true;
  }

  #set(entry: number, address: number, bytes: number): void {
    const at = entry * ENTRY_WORDS, words = this.#words;
    words[at] = address >>> 0;
    words[at + 1] = address / 2 ** 32;
    words[at + 2] = bytes;
  }

  /** The address of the list for a vectored read of {@linkcode ReceiveWindow.listed} entries. */
  get address(): number {
    return this.#address + this.#first * ENTRY_WORDS * 4;
  }

  /**
   * The number of entries for a vectored read. The last is spare memory of the window, so that a
   * packet that has no room is known by its size.
   */
  get listed(): number {
    this.#isCopied = false;
    const words = this.#words;
    words.copyWithin(
      this.#end * ENTRY_WORDS,
      LIST_ENTRIES * ENTRY_WORDS,
      (LIST_ENTRIES + 1) * ENTRY_WORDS,
    );
    return this.#end - this.#first + 1;
  }

  /** Begins a packet that is copied. */
  rewind(): void {
    this.#isCopied = true;
    this.#entry = this.#first;
    this.#at = 0;
    this.#spared = 0;
  }

  /** Copies the next bytes of a packet from an address; the spare memory takes what has no room. */
  write(address: number, bytes: number): void {
    this.addresses[1] = address;
    this.copy(bytes);
  }

  /** Copies the next bytes of a packet from `addresses[1]`, as {@linkcode ReceiveWindow.write}. */
  copy(bytes: number): void {
    const words = this.#words, addresses = this.addresses;
    while (bytes > 0 && this.#entry < this.#end) {
      const at = this.#entry * ENTRY_WORDS;
      const part = Math.min(words[at + 2] - this.#at, bytes);
      addresses[0] = words[at] + words[at + 1] * 2 ** 32 + this.#at;
      copyBetween(addresses, part);
      addresses[1] += part;
      bytes -= part;
      this.#at += part;
      if (this.#at < words[at + 2]) return;
      this.#entry++;
      this.#at = 0;
    }
    if (bytes === 0) return;
    bytes = Math.min(bytes, this.#spare.length - this.#spared);
    addresses[0] = this.#spareAddress + this.#spared;
    copyBetween(addresses, bytes);
    this.#spared += bytes;
  }

  /** Lists the first bytes of a packet that was received, wherever they are. */
  gather(sink: VectorSink, bytes: number): void {
    const words = this.#words;
    for (let entry = this.#first; entry < this.#end && bytes > 0; entry++) {
      const at = entry * ENTRY_WORDS;
      const part = Math.min(words[at + 2], bytes);
      sink.push(words[at] + words[at + 1] * 2 ** 32, part);
      bytes -= part;
    }
    if (bytes > 0) sink.push(this.#spareAddress, Math.min(bytes, this.#spare.length));
  }

  /**
   * Moves the end of a packet of `bytes` bytes from the spare memory to chains that were taken
   * since it was read.
   *
   * @param room The room that there was when it was read.
   */
  complete(bytes: number, room: number): void {
    this.rewind();
    for (let left = room; left > 0; this.#entry++) {
      left -= this.#words[this.#entry * ENTRY_WORDS + 2];
    }
    this.write(this.#spareAddress, bytes - room);
  }

  /**
   * The number of chains that a packet of `bytes` bytes fills; 0 when it has no room. Without
   * mergeable buffers, that is the first or none.
   */
  chainsFor(bytes: number): number {
    if (bytes > this.room) return 0;
    let chains = 0;
    for (let left = bytes; left > 0; chains++) {
      left -= this.#bytes[(this.#head + chains) % MAX_CHAINS];
    }
    return chains;
  }

  /** Completes the first chains with a packet of `bytes` bytes. */
  deliver(queue: QueueHandle, bytes: number): void {
    this.isFull = false;
    for (let left = bytes; left > 0;) {
      const at = this.#head;
      const room = this.#bytes[at];
      const written = Math.min(room, left);
      queue.complete(this.#chains[at]!, written - this.#gap);
      this.#chains[at] = undefined;
      this.#first += this.#entries[at];
      this.room -= room;
      this.#head = (at + 1) % MAX_CHAINS;
      this.#count--;
      left -= written;
    }
    if (this.#count === 0) this.#first = this.#end = 0;
  }
}
