/**
 * A device that takes requests when the test lets it; on the main thread, so that the test can.
 *
 * @module
 */

import { defineDevice, NOT_NOW, type QueueHandle } from "../../../mod.ts";

/** What the test says, and what it sees. */
export const pace: {
  /** Requests that are still taken before the queue pauses. */
  left: number;
  /** Handler calls that were answered by NOT_NOW. */
  refused: number;
  /** The handler takes the next chain too, and completes it. */
  takesNext: boolean;
  queue?: QueueHandle;
  /** Settle the promises of requests of the other queue. */
  settle: (() => void)[];
} = { left: 0, refused: 0, takesNext: false, settle: [] };

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
        return NOT_NOW;
      },
      promiseq: () => new Promise<number>((resolve) => pace.settle.push(() => resolve(0))),
    },
  }),
});
