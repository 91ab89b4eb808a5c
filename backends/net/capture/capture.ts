/**
 * Captures the packets of a pair on the pair's thread.
 *
 * @module
 */

import type { Parts, VectorSink } from "../../../mod.ts";
import { addressOf, copyMemory, pcapng, stampTime } from "../../../src/linux/mod.ts";
import { DROP_NAMES, HEADER_BYTES } from "../packet.ts";
import type { ReceiveWindow } from "../receive_window.ts";
import { CaptureRing } from "./capture_ring.ts";

const { ENHANCED_PACKET, INBOUND, OUTBOUND, packetTrailer, padded } = pcapng;

/** The bytes of an Enhanced Packet Block before its packet: type, length, interface, time, sizes. */
const BLOCK_HEADER_BYTES = 28;

/** The end of a block, by direction as the guest sees it, and by why the packet was dropped. */
const TRAILERS = [INBOUND, OUTBOUND].map((flags) =>
  DROP_NAMES.map((name) => packetTrailer(flags, name === "" ? undefined : `dropped: ${name}`))
);

/**
 * Copies packets into the ring of their pair as blocks of a pcapng file. A frame is captured as the
 * guest sends or receives it, without the virtio-net header: checksums may be partial, and a large
 * packet is one.
 */
export class Capture implements VectorSink {
  readonly #ring: CaptureRing;
  readonly #address: number;
  readonly #base: number;
  readonly #snapBytes: number;
  readonly #wake: () => boolean;
  #isUntold = false;
  #blockAt = 0;
  #blockBytes = 0;
  /** Where the next byte of the packet goes, and how many are still to be copied. */
  #at = 0;
  #left = 0;
  /** The bytes of the virtio-net header that come before them. */
  #skip = 0;

  /**
   * @param base The address of index 0 of guest memory.
   * @param wake Tells the main thread, which waits for that, that there are packets; returns whether
   * it could.
   */
  constructor(memory: SharedArrayBuffer, snapBytes: number, base: number, wake: () => boolean) {
    this.#ring = new CaptureRing(memory);
    this.#address = addressOf(this.#ring.bytes as unknown as Uint8Array<ArrayBuffer>);
    this.#snapBytes = snapBytes;
    this.#base = base;
    this.#wake = wake;
  }

  /** Captures a packet of the driver; `reason` is why it was dropped, or 0. */
  sent(packet: Parts, headerBytes: number, reason: number): void {
    const frameBytes = Math.max(0, packet.byteLength - headerBytes);
    const trailer = TRAILERS[1][reason];
    if (!this.#begin(frameBytes, trailer)) return;
    this.#skip = 0;
    packet.gather(this, this.#base, headerBytes, Math.min(frameBytes, this.#left));
    this.#end(trailer);
  }

  /** Captures a packet to the driver of `bytes` bytes; `reason` is why it was dropped, or 0. */
  received(window: ReceiveWindow, bytes: number, reason: number): void {
    const frameBytes = Math.max(0, bytes - HEADER_BYTES);
    const trailer = TRAILERS[0][reason];
    if (!this.#begin(frameBytes, trailer)) return;
    this.#skip = HEADER_BYTES;
    window.gather(this, bytes);
    this.#end(trailer);
  }

  #begin(frameBytes: number, trailer: Uint8Array): boolean {
    const captured = this.#left = Math.min(frameBytes, this.#snapBytes);
    const blockBytes = this.#blockBytes = BLOCK_HEADER_BYTES + padded(captured) + trailer.length +
      4;
    const at = this.#blockAt = this.#ring.reserve(blockBytes);
    if (at < 0) return false;
    const { words } = this.#ring, word = at / 4;
    words[word] = ENHANCED_PACKET;
    words[word + 1] = blockBytes;
    words[word + 2] = 0; // the only interface
    stampTime(words, word + 3);
    words[word + 5] = captured;
    words[word + 6] = frameBytes;
    this.#at = at + BLOCK_HEADER_BYTES;
    return true;
  }

  /** Copies the next bytes of the packet. */
  push(address: number, bytes: number): boolean {
    const skip = Math.min(this.#skip, bytes);
    this.#skip -= skip;
    const count = Math.min(bytes - skip, this.#left);
    if (count > 0) copyMemory(this.#address + this.#at, address + skip, count);
    this.#at += count;
    this.#left -= count;
    return this.#left > 0;
  }

  #end(trailer: Uint8Array): void {
    const { bytes, words } = this.#ring;
    const end = this.#blockAt + this.#blockBytes;
    bytes.fill(0, this.#at, end - 4 - trailer.length);
    bytes.set(trailer, end - 4 - trailer.length);
    words[end / 4 - 1] = this.#blockBytes;
    if (this.#ring.commit(this.#blockBytes) || this.#isUntold) this.#isUntold = !this.#wake();
  }
}
