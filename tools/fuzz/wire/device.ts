/**
 * A device to be talked to by hostile front-ends: it answers whatever it gets, at once, and has a
 * config space that can be written.
 */
import { defineDevice, packed, u32, u8 } from "../../../mod.ts";

export default defineDevice({
  name: "target",
  deviceId: 42,
  about: "Answers with the request's own bytes",
  module: import.meta.url,
  queues: {
    requestq: { about: "Requests", family: "requestq", size: 256 },
    eventq: { about: "Buffers that are given back empty", sender: "device" },
  },
  features: { SHOUT: { bit: 0, about: "Is offered" } },
  config: packed({ serial: u32("A number"), volume: u8("A level", { access: "rw" }) }),
  open({ announceConfig }) {
    return {
      queues: { requestq: 2 },
      onConfigWrite({ fields }) {
        if (fields.some(({ after }) => after[0] > 200)) throw new RangeError("Expected up to 200");
      },
      onConfigWritten: announceConfig,
    };
  },
  handlers() {
    return {
      queues: {
        requestq(chain) {
          const bytes = new Uint8Array(Math.min(chain.readableBytes, chain.writableBytes, 4096));
          chain.readable.read(0, bytes);
          return chain.writable.write(0, bytes);
        },
        eventq(queue) {
          const chain = queue.take();
          if (chain) queue.complete(chain, 0);
          queue.flush();
        },
      },
    };
  },
});
