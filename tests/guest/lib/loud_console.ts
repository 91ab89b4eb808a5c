/**
 * A console that answers in capitals: a device type for which QEMU has no
 * front-end of its own.
 *
 * @module
 */

import { defineDevice, packed, type QueueHandle, u16, u32 } from "../../../mod.ts";

export default defineDevice({
  name: "loud-console",
  deviceId: 3, // virtio 1.3, 5.3.1
  about: "A console that answers in capitals",
  module: import.meta.url,
  threads: "main",

  queues: {
    receiveq: { about: "Buffers for what the guest reads", sender: "device" },
    transmitq: { about: "What the guest writes" },
  },
  features: { SIZE: { bit: 0, about: "The size of the console is known" } },
  // virtio 1.3, 5.3.4
  config: packed({
    cols: u16("Columns", { feature: "SIZE" }),
    rows: u16("Rows", { feature: "SIZE" }),
    max_nr_ports: u32("Ports"),
    emerg_wr: u32("Emergency write"),
  }),

  open: ({ config, announceConfig }) => ({
    config: { cols: 80, rows: 25 },
    commands: {
      widen: {
        about: "Give it 132 columns and 43 rows",
        run() {
          config.cols = 132;
          config.rows = 43;
          announceConfig();
        },
      },
    },
  }),

  handlers({ queues }) {
    const answers: Uint8Array[] = [];

    function deliver(receiveq: QueueHandle) {
      while (answers.length > 0) {
        const chain = receiveq.take();
        if (chain === null) break;
        const bytes = answers.shift()!;
        chain.writable.write(0, bytes);
        receiveq.complete(chain, bytes.length);
      }
      receiveq.flush();
    }

    return {
      queues: {
        receiveq: deliver,
        transmitq(chain) {
          const bytes = new Uint8Array(chain.readableBytes);
          chain.readable.read(0, bytes);
          answers.push(new TextEncoder().encode(new TextDecoder().decode(bytes).toUpperCase()));
          deliver(queues.receiveq[0]);
          return 0;
        },
      },
    };
  },
});
