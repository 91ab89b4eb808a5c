import { PackedDriverQueue } from "./packed_queue.ts";
import type { DriverQueueHandle, DriverQueueOptions } from "./driver_ring.ts";
import type { DriverMemory, SharedMemory } from "./shared_memory.ts";
import { DriverQueue } from "./split_queue.ts";

/** A driver's queue of either layout. */
export type AnyDriverQueue = DriverQueue | PackedDriverQueue;

/**
 * Makes a ring of the layout that was negotiated, in shared memory, and its eventfds. Its disposal
 * gives both back, so the device has to be stopped before.
 *
 * @throws {RangeError} If the size is wrong or the memory has no room
 */
export function createDriverQueue(
  memory: SharedMemory,
  options: DriverQueueOptions & { packed?: boolean } = {},
): AnyDriverQueue {
  return options.packed
    ? PackedDriverQueue.create(memory, options)
    : DriverQueue.create(memory, options);
}

/**
 * Takes a queue over from another thread of this process, with nothing in flight; memory and
 * eventfds stay that thread's.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import {
 *   createDriverQueue,
 *   openDriverQueue,
 *   SharedMemory,
 *   viewSharedMemory,
 * } from "@vhostd/vhostd/frontend";
 *
 * using memory = new SharedMemory(1 << 20);
 * using queue = createDriverQueue(memory, { size: 8, packed: true });
 *
 * // On the other thread, which was sent both handles:
 * using taken = openDriverQueue(viewSharedMemory(memory.handle), queue.handle);
 * assertEquals(taken.free, 8);
 * ```
 */
export function openDriverQueue(memory: DriverMemory, handle: DriverQueueHandle): AnyDriverQueue {
  return handle.packed ? new PackedDriverQueue(memory, handle) : new DriverQueue(memory, handle);
}
