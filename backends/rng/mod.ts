/**
 * The entropy device: virtio 1.3, 5.4.
 *
 * @module
 */

import { type Chain, defineDevice } from "../../mod.ts";

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
      about: "The period of --max-bytes",
    },
  },
  handlers({ options: { maxBytes = Infinity, period } }) {
    let left = maxBytes;
    let next = Promise.withResolvers<void>(); // settled when a new period starts
    const renew = () => (left = maxBytes, next.resolve(), next = Promise.withResolvers());

    function fill(chain: Chain): number | Promise<number> {
      if (left <= 0) return next.promise.then(() => fill(chain));
      let written = 0;
      for (const part of chain.writable) {
        if (written === 0 && left === maxBytes && maxBytes !== Infinity) setTimeout(renew, period);
        const bytes = part.subarray(0, Math.min(left, 65_536)); // what getRandomValues takes at once
        crypto.getRandomValues(bytes);
        left -= bytes.length;
        written += bytes.length;
        if (bytes.length < part.length) break; // fewer than asked for are fine: virtio 1.3, 5.4.6.2
      }
      return written;
    }
    return { requestq: fill, stop: renew };
  },
});
