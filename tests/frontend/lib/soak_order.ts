/**
 * The interface between the soak test and its threads.
 *
 * @module
 */

import type { DriverQueueHandle, SharedRegionHandle } from "../../../src/frontend/mod.ts";

/** The unit of writes and checks. */
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

/** A thread's task. */
export interface SoakOrder {
  memory: SharedRegionHandle[];
  queue: DriverQueueHandle;
  /** Guest physical address of `ARENA_BYTES` bytes, all zero. */
  gpa: number;
  seed: number;
  /** The blocks of the disk that this thread uses. */
  firstBlock: number;
  blocks: number;
  milliseconds: number;
}

/** The result of a thread. */
export interface SoakResult {
  /** Requests that were completed correctly. */
  requests: number;
  /** The error, if there was one. */
  error?: string;
}
