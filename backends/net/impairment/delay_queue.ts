/**
 * A queue of packets that are delayed.
 *
 * @module
 */

import type { Parts, VectorSink } from "../../../mod.ts";
import { addressOf, copyMemory, elapsed, pinnedBuffer } from "../../../src/linux/mod.ts";
import { CopiedParts } from "../copied_parts.ts";

/** The most bytes of packets in a queue, headers included. */
const MAX_BYTES = 2 ** 24;

/** The most packets in a queue. */
export const MAX_PACKETS = 2 ** 14;

/** Times that differ by more than this are in the other order: they are modulo 2^30 µs. */
const HALF = 2 ** 29;

/** Whether a time has come. */
export function isDue(time: number, now: number): boolean {
  return elapsed(time, now) < HALF;
}

/** Copies of packets, first in, first out, each with the time at which it is due. */
export class DelayQueue implements VectorSink {
  /** Memory is taken from the kernel as it is first written. */
  readonly #bytes = new Uint8Array(pinnedBuffer(MAX_BYTES));
  readonly #address = addressOf(this.#bytes);
  readonly #parts: CopiedParts;
  readonly #at = new Uint32Array(MAX_PACKETS);
  readonly #sizes = new Uint32Array(MAX_PACKETS);
  readonly #due = new Uint32Array(MAX_PACKETS);
  #first = 0;
  #count = 0;
  /** How many packets are due, those in front. */
  #ready = 0;
  /** Where the next byte goes. */
  #end = 0;

  /** @param base The address of index 0 of guest memory. */
  constructor(base: number) {
    this.#parts = new CopiedParts(this.#bytes, base);
  }

  /** How many packets there are. */
  get count(): number {
    return this.#count;
  }

  /** The time at which the first packet is due. */
  get due(): number {
    return this.#due[this.#first];
  }

  /**
   * Notes which packets are due now. Called when each becomes due: much later, its time alone would
   * be taken for one that is to come.
   */
  note(now: number): void {
    while (this.#ready < this.#count && isDue(this.nextDue, now)) this.#ready++;
  }

  /** How many packets are known to be due. */
  get ready(): number {
    return this.#ready;
  }

  /** The due time of the first packet that is not known to be due. */
  get nextDue(): number {
    return this.#due[(this.#first + this.#ready) % MAX_PACKETS];
  }

  /** The time at which the last packet is due. */
  get lastDue(): number {
    return this.#due[(this.#first + this.#count - 1) % MAX_PACKETS];
  }

  /** Moves the due times of packets forward to a time, where they are later. */
  hasten(time: number): void {
    for (let i = this.#ready; i < this.#count; i++) {
      const slot = (this.#first + i) % MAX_PACKETS;
      if (isDue(time, this.#due[slot])) this.#due[slot] = time;
    }
  }

  /** The address of the first packet. */
  get address(): number {
    return this.#address + this.#at[this.#first];
  }

  /** The size of the first packet. */
  get byteLength(): number {
    return this.#sizes[this.#first];
  }

  /** The first packet as a port takes it, until it is removed. */
  get packet(): Parts {
    const parts = this.#parts;
    parts.clear(this.#bytes);
    parts.push(this.#at[this.#first], this.#sizes[this.#first]);
    return parts;
  }

  /**
   * Adds a packet of `bytes` bytes that `gather` then copies to this sink.
   *
   * @returns Whether there is room.
   */
  add(bytes: number, due: number): boolean {
    if (this.#count === MAX_PACKETS) return false;
    if (this.#count === 0) this.#end = 0;
    const first = this.#at[this.#first];
    let at = this.#end;
    if (this.#count === 0 || at > first) {
      if (at + bytes > MAX_BYTES) {
        if (bytes >= first) return false;
        at = 0;
      }
    } else if (at + bytes >= first) {
      return false;
    }
    const slot = (this.#first + this.#count++) % MAX_PACKETS;
    this.#at[slot] = this.#end = at;
    this.#sizes[slot] = bytes;
    this.#due[slot] = due;
    return true;
  }

  /** Copies the next bytes of the packet that was added. */
  push(address: number, bytes: number): boolean {
    copyMemory(this.#address + this.#end, address, bytes);
    this.#end += bytes;
    return true;
  }

  /** Removes the first packet. */
  remove(): void {
    this.#first = (this.#first + 1) % MAX_PACKETS;
    this.#count--;
    if (this.#ready > 0) this.#ready--;
  }
}
