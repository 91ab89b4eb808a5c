/**
 * Rings of either layout.
 *
 * @module
 */

import type { MemoryView } from "../memory/mod.ts";
import { PackedRing, packedRingBytes } from "./packed_ring.ts";
import { SplitRing, splitRingBytes } from "./split_ring.ts";
import type { RingOptions, Virtqueue } from "./virtqueue.ts";

/** The bytes that each part of a ring takes. */
export interface RingBytes {
  /** The descriptor table (in a packed ring, the descriptor ring). */
  descriptor: number;
  /** The available ring (driver event suppression). */
  available: number;
  /** The used ring (device event suppression). */
  used: number;
}

/** The bytes that each part of a ring of `size` descriptors takes. */
export function ringBytes(size: number, packed: boolean): RingBytes {
  return packed ? packedRingBytes(size) : splitRingBytes(size);
}

/**
 * Places a ring of the layout that was negotiated.
 *
 * @throws {RingError} When its size, alignment or place is wrong.
 */
export function createRing(memory: MemoryView, options: RingOptions): Virtqueue {
  return options.packed ? new PackedRing(memory, options) : new SplitRing(memory, options);
}
