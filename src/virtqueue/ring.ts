/**
 * Rings of either layout.
 *
 * @module
 */

import type { MemoryView } from "../memory/mod.ts";
import type { InflightRegion } from "./inflight.ts";
import { packedInflightBytes } from "./packed/inflight.ts";
import { splitInflightBytes } from "./split/inflight.ts";
import { PackedRing, packedRingBytes } from "./packed/ring.ts";
import { SplitRing, splitRingBytes } from "./split/ring.ts";
import type { RingBytes, RingOptions, Virtqueue } from "./virtqueue.ts";

/** The bytes that each part of a ring of `size` descriptors takes. */
export function ringBytes(size: number, packed: boolean): RingBytes {
  return packed ? packedRingBytes(size) : splitRingBytes(size);
}

/** In-flight records begin at multiples of a cache line. */
const INFLIGHT_ALIGN_BYTES = 64;

/** The bytes from one queue's in-flight record to the next one's. */
export function inflightBytes(descriptors: number, packed: boolean): number {
  const bytes = packed ? packedInflightBytes(descriptors) : splitInflightBytes(descriptors);
  return Math.ceil(bytes / INFLIGHT_ALIGN_BYTES) * INFLIGHT_ALIGN_BYTES;
}

/**
 * Places a ring of the negotiated layout.
 *
 * @param inflight Its in-flight record; chains that were in flight when it was left are taken again
 * before new ones.
 * @throws {RingError} When its size, alignment or place is wrong.
 * @throws {InflightError} When the record makes no sense, or none for this ring.
 */
export function createRing(
  memory: MemoryView,
  options: RingOptions,
  inflight?: InflightRegion,
): Virtqueue {
  return options.packed
    ? new PackedRing(memory, options, inflight)
    : new SplitRing(memory, options, inflight);
}
