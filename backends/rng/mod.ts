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
      needs: "maxBytes",
      about: "The period of --max-bytes",
    },
  },
  handlers({ options: { maxBytes = Infinity, period } }) {
    let left = maxBytes;
    let isOver = true; // the period
    let next = Promise.withResolvers<number | undefined>(); // settled when chains may go on
    /** Lets chains that wait go on: as far as the limit goes, or with a number of bytes each. */
    function release(bytes?: number): void {
      next.resolve(bytes);
      next = Promise.withResolvers();
    }
    function renew(): void {
      left = maxBytes;
      isOver = true;
      release();
    }

    function fill(chain: Chain, most = left): number | Promise<number> {
      if (most <= 0) return next.promise.then((bytes) => fill(chain, bytes));
      let written = 0;
      for (const part of chain.writable) {
        const bytes = part.subarray(0, Math.min(most, 65_536)); // what getRandomValues takes at once
        crypto.getRandomValues(bytes);
        most -= bytes.length;
        written += bytes.length;
        if (bytes.length < part.length) break; // fewer than asked for are fine: virtio 1.3, 5.4.6.2
      }
      left -= written;
      if (isOver && written > 0 && maxBytes !== Infinity) {
        isOver = false;
        setTimeout(renew, period);
      }
      return written;
    }
    // A stop waits for all chains: each gets one byte, the least there is, whatever the limit.
    return { queues: { requestq: (chain) => fill(chain) }, onStop: () => release(1) };
  },
});
