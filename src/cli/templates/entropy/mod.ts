/**
 * An entropy device: the driver sends buffers, and the device fills them.
 *
 * @module
 */

import { defineDevice } from "@vhostd/vhostd";

export default defineDevice({
  name: "my-device",
  deviceId: 4, // virtio 1.3, 5.4.1
  about: "Entropy from the host",
  module: import.meta.url,

  queues: { requestq: { about: "Buffers to fill with random bytes" } },

  options: {
    chunk: {
      type: "number",
      placeholder: "N",
      about: "Give at most N bytes per request",
      least: 1,
      most: 65_536,
      default: 65_536,
    },
  },

  handlers: ({ options }) => ({
    queues: {
      requestq(chain) {
        // Guest memory, in place. Fewer bytes than asked for are fine: virtio 1.3, 5.4.6.2.
        const bytes = chain.writable.at(0).subarray(0, options.chunk);
        crypto.getRandomValues(bytes);
        return bytes.length;
      },
    },
  }),
});
