/**
 * A disk for tests that completes requests in any order: some at once, some shuffled at the end of
 * their batch, and some by a promise.
 *
 * @module
 */

import { type Chain, defineDevice, LATER, packed, type QueueHandle, u64 } from "../../../mod.ts";
import { Random } from "../../../tools/lib/random.ts";

const SECTOR_BYTES = 512, HEADER_BYTES = 16;
const OUT = 1; // virtio 1.3, 5.2.6

/** The shuffled disk. */
export default defineDevice({
  name: "shuffled",
  deviceId: 2,
  about: "A disk that completes requests in any order",
  module: import.meta.url,
  queues: { requestq: { about: "Requests", family: "requestq" } },
  config: packed({ capacity: u64("Sectors") }),
  options: {
    size: { type: "number", placeholder: "N", default: 1 << 20, about: "Bytes" },
    numQueues: { type: "number", placeholder: "N", default: 2, about: "Request queues" },
  },
  open: ({ options }) => ({
    queues: { requestq: options.numQueues },
    shared: new SharedArrayBuffer(options.size),
    config: { capacity: BigInt(options.size / SECTOR_BYTES) },
  }),
  handlers({ shared }) {
    const disk = new Uint8Array(shared);
    const scratch = new Uint8Array(1 << 16);
    const random = new Random(1);
    const waiting = new Map<QueueHandle, Chain[]>();

    function answer(chain: Chain): number {
      const type = chain.readable.u32(0);
      const at = chain.readable.u64(8) * SECTOR_BYTES;
      const bytes = type === OUT ? chain.readableBytes - HEADER_BYTES : chain.writableBytes - 1;
      const data = scratch.subarray(0, bytes);
      if (type === OUT) {
        chain.readable.read(HEADER_BYTES, data);
        disk.set(data, at);
      } else {
        data.set(disk.subarray(at, at + bytes));
        chain.writable.write(0, data);
      }
      chain.writable.setU8(chain.writableBytes - 1, 0);
      return type === OUT ? 1 : chain.writableBytes;
    }

    return {
      queues: {
        requestq(chain, queue) {
          switch (random.below(32)) {
            case 0:
              return answer(chain);
            case 1:
              return new Promise((resolve) => setTimeout(() => resolve(answer(chain)), 0));
            default: {
              const chains = waiting.get(queue);
              if (chains === undefined) waiting.set(queue, [chain]);
              else chains.push(chain);
              return LATER;
            }
          }
        },
      },
      onBatch(queue) {
        const chains = waiting.get(queue) ?? [];
        while (chains.length > 0) {
          const [chain] = chains.splice(random.below(chains.length), 1);
          queue.complete(chain, answer(chain));
        }
      },
    };
  },
});
