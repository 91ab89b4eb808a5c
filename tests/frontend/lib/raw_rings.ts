/**
 * A driver's rings without checks, by layout.
 *
 * @module
 */

import { assert } from "@std/assert";
import {
  DriverQueue,
  PackedDriverQueue,
  type RawPackedRing,
  type RawSplitRing,
  type VirtioDriver,
} from "../../../src/frontend/mod.ts";

/** A queue of a driver that negotiated split rings. */
export function splitRing(driver: VirtioDriver, index = 0): RawSplitRing {
  const queue = driver.queues[index];
  assert(queue instanceof DriverQueue);
  return queue.raw;
}

/** A queue of a driver that negotiated packed rings. */
export function packedRing(driver: VirtioDriver, index = 0): RawPackedRing {
  const queue = driver.queues[index];
  assert(queue instanceof PackedDriverQueue);
  return queue.raw;
}
