/**
 * Guest memory as a thread sees it.
 *
 * @module
 */

import { bufferAt, PAGE_BYTES } from "../linux/mod.ts";
import { mapZeros } from "../linux/mapping.ts";
import { type MemoryView, RegionTable } from "./regions.ts";

/** How many addresses at the end of a span are for memory of the device's own. */
export const SCRATCH_BYTES: number = 2 ** 32;

/** What another thread needs to see the same memory. */
export interface MemoryHandle {
  /** The address of the span. */
  base: number;
  /** Its size, with {@linkcode SCRATCH_BYTES} behind the guest's part. */
  bytes: number;
  /** How many pages of those are taken, shared by all threads. */
  scratch: SharedArrayBuffer;
}

/**
 * A thread's view of a span, which has to outlive it. The bytes are made visible when they are first
 * used: V8 counts the whole span as garbage to come, and while it is visible collects after every
 * few kilobytes that are allocated. A thread that allocates can release them while there is no guest.
 */
export class SpanView implements MemoryView {
  readonly #handle: MemoryHandle;
  #u8: Uint8Array<ArrayBuffer> | undefined;
  /** The regions in force; replaced whole when they change. */
  regions: RegionTable = new RegionTable();

  /** @param handle The memory, of whichever thread */
  constructor(handle: MemoryHandle) {
    this.#handle = handle;
  }

  /** The address of index 0. */
  get base(): number {
    return this.#handle.base;
  }

  /** The span as bytes. */
  get u8(): Uint8Array<ArrayBuffer> {
    return this.#u8 ??= new Uint8Array(bufferAt(this.#handle.base, this.#handle.bytes));
  }

  /** Makes memory of the device's own, where parts may lead too; returns its index in the span. */
  scratch(bytes: number): number {
    const pages = Math.ceil(bytes / PAGE_BYTES);
    const at = Atomics.add(new Int32Array(this.#handle.scratch), 0, pages);
    if ((at + pages) * PAGE_BYTES > SCRATCH_BYTES) {
      throw new RangeError(`Expected at most ${SCRATCH_BYTES} bytes of scratch memory, got more`);
    }
    const index = this.#handle.bytes - SCRATCH_BYTES + at * PAGE_BYTES;
    mapZeros(this.base + index, pages * PAGE_BYTES);
    return index;
  }

  /** Gives the bytes up until they are used again. */
  release(): void {
    this.#u8 = undefined;
  }
}

/** Makes a thread's view of a span. */
export function viewMemory(handle: MemoryHandle): SpanView {
  return new SpanView(handle);
}
