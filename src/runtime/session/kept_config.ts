/**
 * What the driver wrote to config space, where the next back-end finds it.
 *
 * A front-end that connects again says anew what was negotiated, but not what
 * its guest once wrote to config space (QEMU 10.0: the writeback byte of blk).
 * So that stands behind the in-flight records, in the same memory: the
 * front-end keeps the file as it got it, and drops it when the guest is reset.
 *
 * @module
 */

import type { ConfigLayout } from "../../virtio/mod.ts";

/** Says that there is something; "vhcs". */
const MAGIC = 0x73636876;

// Places: a u32 each, then the bytes of the space.
const MAGIC_AT = 0, SIZE_AT = 4, BYTES_AT = 8;

/** The room that it takes: a space has at most 256 bytes. */
export const KEPT_CONFIG_BYTES = BYTES_AT + 256;

/** Config space as it was left, in memory of a front-end. */
export class KeptConfig {
  readonly #view: DataView<ArrayBuffer>;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #layout: ConfigLayout;

  /** @param memory `KEPT_CONFIG_BYTES` bytes, zero at first. */
  constructor(memory: Uint8Array<ArrayBuffer>, layout: ConfigLayout) {
    this.#view = new DataView(memory.buffer, memory.byteOffset, KEPT_CONFIG_BYTES);
    this.#bytes = memory.subarray(BYTES_AT, BYTES_AT + layout.size);
    this.#layout = layout;
  }

  /** Whether somebody kept such a space here. */
  get isKept(): boolean {
    return this.#view.getUint32(MAGIC_AT, true) === MAGIC &&
      this.#view.getUint32(SIZE_AT, true) === this.#layout.size;
  }

  /** Keeps a space as it is now. */
  keep(space: Uint8Array): void {
    this.#bytes.set(space);
    this.#view.setUint32(SIZE_AT, this.#layout.size, true);
    this.#view.setUint32(MAGIC_AT, MAGIC, true);
  }

  /** Where it differs from a space in bytes that are the driver's: copies. */
  *differences(space: Uint8Array): IterableIterator<{ offset: number; data: Uint8Array }> {
    const differs = (at: number) =>
      at < this.#layout.size && this.#bytes[at] !== space[at] &&
      this.#layout.bytes[at].rule !== "ro" && this.#layout.bytes[at].rule !== "fixed";
    for (let at = 0; at < this.#layout.size; at++) {
      if (!differs(at)) continue;
      const offset = at;
      while (differs(at)) at++;
      yield { offset, data: this.#bytes.slice(offset, at) };
    }
  }
}
