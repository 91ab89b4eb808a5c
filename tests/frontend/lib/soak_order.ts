/**
 * What the soak and its threads agree upon.
 *
 * @module
 */

import type { DriverQueueHandle, SharedRegionHandle } from "../../../src/frontend/mod.ts";

/** The unit of what is written and checked. */
export const BLOCK_BYTES = 512;

/** Memory of one request in flight: its parts, and gaps in between. */
export const SLOT_BYTES = 8192;

/** The most requests in flight that read and write blocks. */
export const MAX_SLOTS = 24;

/** The most small requests in flight. */
export const SMALL_SLOTS = 8;

/** Memory of all requests of a thread. */
export const ARENA_BYTES = (MAX_SLOTS + SMALL_SLOTS) * SLOT_BYTES;

/** The most parts of an indirect request. */
export const INDIRECT_PARTS = 16;

/** What a thread is to do. */
export interface SoakOrder {
  memory: SharedRegionHandle[];
  queue: DriverQueueHandle;
  /** Guest physical address of `ARENA_BYTES` bytes, all zero. */
  gpa: number;
  seed: number;
  /** Which blocks of the disk are this thread's. */
  firstBlock: number;
  blocks: number;
  milliseconds: number;
}

/** What became of it. */
export interface SoakResult {
  /** Requests that came back right. */
  requests: number;
  /** What was wrong. */
  error?: string;
}
