/**
 * A device that takes requests when the test allows it; it runs on the test's thread.
 *
 * @module
 */

import { defineDevice, NOT_NOW, type QueueHandle } from "../../../mod.ts";

/** The test's settings, and its view of the device. */
export const pace: {
  /** Requests to take before the queue pauses. */
  left: number;
  /** What the handler returns then: NOT_NOW or UNTIL_READY. */
  pause: number;
  /** Handler calls that returned it. */
  refused: number;
  /** Whether the handler takes the next chain too, and completes it. */
  takesNext: boolean;
  queue?: QueueHandle;
  /** Functions that settle the promises of the other queue's requests. */
  settle: (() => void)[];
} = { left: 0, pause: NOT_NOW, refused: 0, takesNext: false, settle: [] };

/** The device. */
export default defineDevice({
  name: "paced",
  deviceId: 42,
  about: "Takes requests when it may",
  module: import.meta.url,
  threads: "main",
  queues: {
    pacedq: { about: "Requests that may have to wait" },
    promiseq: { about: "Requests that are promised", mostPending: 4 },
  },
  handlers: () => ({
    queues: {
      pacedq(_chain, queue) {
        pace.queue = queue;
        const next = pace.takesNext ? queue.take() : null;
        if (next !== null) queue.complete(next, 0);
        if (pace.left-- > 0) return 0;
        pace.refused++;
        return pace.pause;
      },
      promiseq: () => new Promise<number>((resolve) => pace.settle.push(() => resolve(0))),
    },
  }),
});
