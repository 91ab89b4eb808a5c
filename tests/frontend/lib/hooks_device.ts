/**
 * A device whose data half has every hook.
 *
 * @module
 */

import { defineDevice, LATER } from "../../../mod.ts";

/** The first byte of a request. */
export const Ask = {
  /** Counts the request. */
  COUNT: 0,
  /** Completes by a timer, without a promise. */
  KEPT: 1,
  /** Returns a promise that a timer settles. */
  PROMISE: 2,
  /** Keeps the thread busy for a while. */
  SPIN: 3,
  /** Returns a promise that settles after as many others as the second byte says. */
  AFTER: 4,
} as const;

const LATER_MS = 5, SPIN_MS = 2;

async function after(promises: number): Promise<number> {
  for (let i = 0; i < promises; i++) await null;
  return 0;
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** The device. */
export default defineDevice({
  name: "hooks",
  deviceId: 42,
  about: "Counts",
  module: import.meta.url,
  threads: "one",
  queues: { firstq: { about: "Requests" }, secondq: { about: "Requests" } },
  handlers({ keep }) {
    let count = 0, resets = 0;
    const running = new Set<string>();
    const handle = (op: number) => {
      if (op === Ask.COUNT) count++;
      if (op === Ask.SPIN) { for (const end = Date.now() + SPIN_MS; Date.now() < end;); }
      return op === Ask.PROMISE ? sleep(LATER_MS).then(() => 0) : 0;
    };
    return {
      queues: {
        firstq({ readable }) {
          return handle(readable.u8(0));
        },
        secondq(chain, queue) {
          if (chain.readable.u8(0) === Ask.AFTER) return after(chain.readable.u8(1));
          if (chain.readable.u8(0) !== Ask.KEPT) return handle(chain.readable.u8(0));
          void keep(sleep(LATER_MS)).then(() => {
            queue.complete(chain, 0);
            queue.flush();
          });
          return LATER;
        },
      },
      onStart: ({ name }) => void running.add(name),
      onStop: ({ name }) => void running.delete(name),
      onReset() {
        count = 0;
        resets++;
      },
      save: () => ({ count }),
      load(state) {
        count = (state as { count: number }).count;
      },
      report: () => ({ count, resets, running: [...running] }),
      async onMessage(message) {
        if (message === "fail") throw new RangeError("Expected another message");
        await sleep(1);
        return { message, count };
      },
    };
  },
});
