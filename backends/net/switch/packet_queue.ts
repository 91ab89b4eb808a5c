/**
 * Packets that wait until a guest gives buffers.
 *
 * @module
 */

import type { Parts } from "../../../mod.ts";
import { addressOf, copyBetween, pinnedBuffer } from "../../../src/linux/mod.ts";

/** The most packets that wait for a guest. */
export const MAX_QUEUED_PACKETS = 1024;

/** The most bytes that wait for a guest: those of 15 packets of the largest size. */
const MAX_QUEUED_BYTES = 1_048_576;

/** Copies of packets, first in, first out. The oldest make room for new ones. */
export class PacketQueue {
  /** Made for the first packet. */
  #memory: Uint8Array<ArrayBuffer> | undefined;
  #base = 0;
  readonly #starts = new Uint32Array(MAX_QUEUED_PACKETS);
  readonly #sizes = new Uint32Array(MAX_QUEUED_PACKETS);
  /** Of a copy: where it goes, and where it comes from. */
  readonly #addresses = new Float64Array(2);
  #first = 0;
  #count = 0;
  /** Where the next part of a packet goes. */
  #end = 0;

  /** The size of the first packet in bytes; 0 when there is none. */
  get bytes(): number {
    return this.#count === 0 ? 0 : this.#sizes[this.#first];
  }

  /** The address of the first packet. */
  get address(): number {
    return this.#base + this.#starts[this.#first];
  }

  /** Removes the first packet. */
  shift(): void {
    this.#first = (this.#first + 1) % MAX_QUEUED_PACKETS;
    this.#count--;
  }

  /**
   * Adds a copy of a packet, whose indexes are addresses.
   *
   * @returns How many others had to go.
   */
  add(packet: Parts): number {
    if (this.#memory === undefined) {
      this.#memory = new Uint8Array(pinnedBuffer(MAX_QUEUED_BYTES));
      this.#base = addressOf(this.#memory);
    }
    const bytes = packet.byteLength;
    let dropped = 0;
    for (; !this.#hasRoom(bytes); dropped++) this.shift();
    const at = (this.#first + this.#count++) % MAX_QUEUED_PACKETS;
    this.#starts[at] = this.#end;
    this.#sizes[at] = bytes;
    const addresses = this.#addresses;
    for (let i = 0; i < packet.count; i++) {
      addresses[0] = this.#base + this.#end;
      addresses[1] = packet.index(i);
      copyBetween(addresses, packet.length(i));
      this.#end += packet.length(i);
    }
    return dropped;
  }

  /** Finds a place for a packet; returns false while old ones are in the way. */
  #hasRoom(bytes: number): boolean {
    if (this.#count === 0) {
      this.#end = 0;
      return true;
    }
    if (this.#count === MAX_QUEUED_PACKETS) return false;
    const begin = this.#starts[this.#first];
    if (this.#end <= begin) return begin - this.#end >= bytes;
    if (MAX_QUEUED_BYTES - this.#end >= bytes) return true;
    if (begin < bytes) return false;
    this.#end = 0;
    return true;
  }
}
