/**
 * A misbehaving device for tests. The first byte of a request chooses how.
 *
 * @module
 */

import { libc } from "../../../src/linux/libc.ts";
import { type Chain, defineDevice, LATER, type QueueHandle } from "../../../mod.ts";

/** The first byte of a request. */
export const Misdeed = {
  /** None: echoes. */
  NONE: 0,
  UNDEFINED: 1,
  TEXT: 2,
  NAN: 3,
  HALF: 4,
  OBJECT: 5,
  PROMISE_OF_TEXT: 6,
  /** Keeps the chain; `late.complete` completes it. */
  KEEP: 7,
  /** Never settles a promise. */
  UNSETTLED: 8,
  /** Does not return until the next byte changes in the memory that it sees. */
  SPIN: 9,
  /** Makes the kernel read from a pipe that stays empty. */
  KERNEL: 10,
} as const;

/** The first byte of the answer to a request that the device started and does not complete. */
export const STARTED = 1;

/** The chain that the device keeps, and functions that use it; on the main plane. */
export const late: {
  chain?: Chain;
  queue?: QueueHandle;
  /** Views of guest memory that the device made. */
  readable?: Uint8Array<ArrayBuffer>;
  writable?: Uint8Array<ArrayBuffer>;
  events: Chain[];
  settle?: (bytes: number) => void;
} = { events: [] };

/** A new pipe whose ends both stay open. */
function pipe(): [reader: number, writer: number] {
  const ends = new Int32Array(2);
  libc.pipe2(ends, 0);
  return [ends[0], ends[1]];
}

/** The device. */
export default defineDevice({
  name: "late",
  deviceId: 42,
  about: "Does not do what it has to",
  module: import.meta.url,
  queues: {
    requestq: { about: "Requests", family: "requestq" },
    eventq: { about: "Buffers that it holds", sender: "device" },
  },
  options: { queues: { type: "number", placeholder: "N", default: 1, about: "Request queues" } },
  open: ({ options }) => ({ queues: { requestq: options.queues } }),
  handlers: ({ io, memory, queues }) => ({
    queues: {
      eventq(queue) {
        for (let chain = queue.take(); chain !== null; chain = queue.take()) {
          late.events.push(chain);
        }
      },
      // deno-lint-ignore no-explicit-any
      requestq(chain, queue): any {
        switch (chain.readable.u8(0)) {
          case Misdeed.UNDEFINED:
            return undefined;
          case Misdeed.TEXT:
            return "1";
          case Misdeed.NAN:
            return NaN;
          case Misdeed.HALF:
            return 0.5;
          case Misdeed.OBJECT:
            return {};
          case Misdeed.PROMISE_OF_TEXT:
            return Promise.resolve("1");
          case Misdeed.KEEP:
            chain.writable.setU8(0, STARTED);
            late.chain = chain;
            late.queue = queue;
            late.readable = chain.readable.at(0);
            late.writable = chain.writable.at(0);
            return LATER;
          case Misdeed.UNSETTLED:
            late.writable = chain.writable.at(0);
            return new Promise<number>((resolve) => late.settle = resolve);
          case Misdeed.KERNEL: {
            const [reader] = pipe();
            const user = io!.serve({
              completed(_operation, result) {
                // ECANCELED
                chain.writable.setU8(0, result === -125 ? 125 : 1);
                queue.complete(chain, 1);
              },
              batchEnded: () => queues.requestq.forEach((queue) => queue.flush()),
            });
            io!.ring.read(reader, memory.base + chain.writable.index(0), 1, 0, user.data(3));
            return LATER;
          }
          case Misdeed.SPIN: {
            const bytes = chain.readable.at(0);
            chain.writable.setU8(0, STARTED);
            while (Atomics.load(bytes, 1) === 1);
            // Through the old view: into memory that is not the guest's any more.
            chain.writable.setU8(0, 99);
            return 1;
          }
          default: {
            const bytes = new Uint8Array(chain.readableBytes);
            chain.readable.read(0, bytes);
            return chain.writable.write(0, bytes);
          }
        }
      },
    },
  }),
});
