/**
 * A thread that drives a queue by numbers alone, and blocks while it waits.
 *
 * @module
 */

import {
  blkHeader,
  blkRequests,
  type DriverQueueHandle,
  openDriverQueue,
  type SharedRegionHandle,
  viewSharedMemory,
} from "../../../src/frontend/mod.ts";
import { answerOrders } from "./worker_thread.ts";

/** What the thread is to do. */
export interface LoadOrder {
  /** The memory. */
  memory: SharedRegionHandle[];
  /** The queue. */
  queue: DriverQueueHandle;
  /** Guest physical address of 1024 bytes for buffers. */
  gpa: number;
  /** How many reads of one sector to make, one after the other. */
  requests: number;
}

/** What became of it. */
export interface LoadResult {
  /** Requests that came back. */
  completed: number;
  /** Those with a status other than 0. */
  failed: number;
}

answerOrders(({ memory: handle, queue: place, gpa, requests }: LoadOrder): LoadResult => {
  const memory = viewSharedMemory(handle);
  using queue = openDriverQueue(memory, place);
  const bytes = memory.at(gpa, 1024);
  bytes.set(blkHeader(blkRequests.IN, 1));
  let completed = 0, failed = 0;
  while (completed < requests) {
    bytes[16] = 255;
    queue.begin(3);
    queue.descriptor(gpa, 16, false);
    queue.descriptor(gpa + 512, 512, true);
    queue.descriptor(gpa + 16, 1, true);
    queue.end();
    queue.submit();
    if (!queue.wait()) break;
    while (queue.poll() >= 0) completed++;
    if (bytes[16] !== 0) failed++;
  }
  return { completed, failed };
});
