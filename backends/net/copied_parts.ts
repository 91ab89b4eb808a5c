/**
 * Packets in memory of the device, for ports that send from guest memory.
 *
 * @module
 */

import { Parts, type VectorSink } from "../../mod.ts";
import { addressOf } from "../../src/linux/mod.ts";

/** Parts of the device's own memory, listed as if it were guest memory. */
export class CopiedParts extends Parts {
  /** The place of the memory, counted from index 0 of guest memory. */
  readonly #index: number;

  /**
   * @param bytes The memory, which does not move (`pinnedBuffer`).
   * @param base The address of index 0 of guest memory.
   */
  constructor(bytes: Uint8Array<ArrayBuffer>, base: number) {
    super(bytes);
    this.#index = addressOf(bytes) - base;
  }

  override index(i: number): number {
    return super.index(i) + this.#index;
  }

  override gather(sink: VectorSink, base: number, offset?: number, bytes?: number): number {
    return super.gather(sink, base + this.#index, offset, bytes);
  }
}
