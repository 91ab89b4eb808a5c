/**
 * Config space as the driver wrote it, kept for the next back-end.
 *
 * A front-end that reconnects negotiates again, but does not repeat what its guest wrote to config
 * space (QEMU 10.0: the writeback byte of blk). So config space is kept behind the in-flight
 * records: the front-end keeps their file, and drops it when the guest is reset.
 *
 * @module
 */

import type { ConfigLayout } from "../../virtio/mod.ts";

/** Marks a space that was kept: "vhcs". */
const MAGIC = 0x73636876;

// Offsets: a u32 each, then the bytes of the space.
const MAGIC_AT = 0, SIZE_AT = 4, BYTES_AT = 8;

/** Its size: a space has at most 256 bytes. */
export const KEPT_CONFIG_BYTES = BYTES_AT + 256;

/** Config space in memory of a front-end. */
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

  /** Whether a space of this layout was kept here. */
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

  /** Copies of the bytes that the driver may write and that differ from `space`. */
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
