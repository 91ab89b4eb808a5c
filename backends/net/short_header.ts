/**
 * The header of a driver that acknowledged neither VERSION_1 nor MRG_RXBUF: it has no num_buffers.
 * virtio 1.3, 5.1.6.1.
 *
 * @module
 */

import { Parts, type VectorSink } from "../../mod.ts";
import { addressOf, pinnedBuffer } from "../../src/linux/mod.ts";
import { HEADER_BYTES } from "./packet.ts";

/** The size of that header. */
export const SHORT_HEADER_BYTES = 10;

/** Shows packets of such a driver to ports, behind a header of {@linkcode HEADER_BYTES}. */
export class ShortHeader implements VectorSink {
  readonly #header = new Uint8Array(pinnedBuffer(HEADER_BYTES), 0, SHORT_HEADER_BYTES);
  readonly #parts: Parts;
  readonly #memory: Uint8Array<ArrayBuffer>;
  /** The place of the header, counted from guest memory. */
  readonly #headerIndex: number;

  /** @param base The address of index 0 of guest memory. */
  constructor(memory: Uint8Array<ArrayBuffer>, base: number) {
    this.#memory = memory;
    this.#parts = new Parts(memory);
    this.#headerIndex = addressOf(this.#header) - base;
  }

  /** Returns a packet with a whole header, in place but for that; valid until the next one. */
  widen(packet: Parts): Parts {
    packet.read(0, this.#header);
    this.#parts.clear(this.#memory);
    this.#parts.push(this.#headerIndex, HEADER_BYTES);
    packet.gather(this, 0, SHORT_HEADER_BYTES);
    return this.#parts;
  }

  push(index: number, bytes: number): boolean {
    this.#parts.push(index, bytes);
    return true;
  }
}
