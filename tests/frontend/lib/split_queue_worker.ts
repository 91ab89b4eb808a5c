/**
 * A thread that drives a queue, and blocks while it waits.
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

/** The thread's task. */
export interface LoadOrder {
  /** The memory. */
  memory: SharedRegionHandle[];
  /** The queue. */
  queue: DriverQueueHandle;
  /** Guest physical address of 1024 bytes for buffers. */
  gpa: number;
  /** The number of reads of one sector, made one after the other. */
  requests: number;
}

/** The result of the thread. */
export interface LoadResult {
  /** Completed requests. */
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
