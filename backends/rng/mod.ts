/**
 * The entropy device: virtio 1.3, 5.4.
 *
 * @module
 */

import { defineDevice, NOT_NOW } from "../../mod.ts";

/** A virtio entropy device, filled from the platform's cryptographic random source. */
export default defineDevice({
  name: "rng",
  deviceId: 4,
  about: "Entropy from the host",
  module: import.meta.url,
  queues: { requestq: { about: "Buffers to fill with random bytes" } },
  options: {
    maxBytes: {
      type: "number",
      unit: "bytes",
      placeholder: "N",
      least: 1,
      about: "Give at most N bytes per period",
    },
    period: {
      type: "number",
      unit: "ms",
      placeholder: "MS",
      least: 1,
      most: 60_000,
      default: 1000,
      needs: "maxBytes",
      about: "The period of --max-bytes",
    },
  },
  handlers({ options: { maxBytes = Infinity, period } }) {
    let left = 0; // bytes, of the period that ends at `end`
    let end = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    return {
      queues: {
        requestq({ writable }, queue) {
          const now = performance.now();
          if (now >= end) {
            left = maxBytes;
            end = now + period;
          }
          if (left <= 0) {
            clearTimeout(timer);
            timer = setTimeout(() => queue.resume(), end - now);
            return NOT_NOW;
          }
          let written = 0;
          for (const part of writable) {
            const bytes = part.subarray(0, Math.min(left, 65_536)); // the most of getRandomValues
            crypto.getRandomValues(bytes);
            left -= bytes.length;
            written += bytes.length;
            if (bytes.length < part.length) break; // fewer bytes are fine: virtio 1.3, 5.4.6.2
          }
          return written;
        },
      },
      close: () => clearTimeout(timer),
    };
  },
});
