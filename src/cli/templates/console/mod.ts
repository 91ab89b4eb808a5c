/**
 * A console that says everything again: a device that sends on its own.
 *
 * @module
 */

import { defineDevice, packed, u16 } from "@vhostd/vhostd";

/** What waits for the driver's buffers; more is dropped. */
const MAX_WAITING_BYTES = 65_536;

export default defineDevice({
  name: "my-device",
  deviceId: 3, // virtio 1.3, 5.3.1
  about: "A console that says everything again",
  module: import.meta.url,

  // virtio 1.3, 5.3.2 Virtqueues
  queues: {
    receiveq: { about: "Buffers for what the device says", sender: "device" },
    transmitq: { about: "What the driver says" },
  },

  // virtio 1.3, 5.3.3 Feature bits
  features: { SIZE: { bit: 0, about: "Tells the console's size" } },

  // virtio 1.3, 5.3.4 Device configuration layout
  config: packed({
    cols: u16("Columns", { feature: "SIZE" }),
    rows: u16("Rows", { feature: "SIZE" }),
  }),

  open: () => ({ config: { cols: 80, rows: 24 } }),

  handlers({ queues }) {
    const waiting: Uint8Array[] = [];
    let waitingBytes = 0;

    /** Gives the driver what waits for it, as far as it has buffers. */
    function send(): void {
      const [receiveq] = queues.receiveq;
      while (waiting.length > 0) {
        const chain = receiveq.take();
        if (chain === null) break; // The handler of receiveq is called when there are more.
        const written = chain.writable.write(0, waiting[0]);
        waitingBytes -= written;
        waiting[0] = waiting[0].subarray(written);
        if (waiting[0].length === 0) waiting.shift();
        receiveq.complete(chain, written);
      }
      receiveq.flush();
    }

    return {
      queues: {
        receiveq: send,
        transmitq(chain) {
          const room = MAX_WAITING_BYTES - waitingBytes;
          const bytes = new Uint8Array(Math.min(chain.readableBytes, room));
          chain.readable.read(0, bytes); // Copied: the guest's memory is the guest's again soon.
          if (bytes.length > 0) waiting.push(bytes);
          waitingBytes += bytes.length;
          send();
          return 0;
        },
      },
    };
  },
});
