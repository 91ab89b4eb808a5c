/**
 * Rings: the device's side, the driver's, and both. Times are of a batch of chains of three parts.
 */
import { BATCH, RING_KINDS, RingLoop } from "./lib/ring_loop.ts";

/** The steps of a round, in order; each has its own benchmark. */
const STEPS = {
  push: `driver: push ${BATCH} chains and publish`,
  take: `device: take ${BATCH} chains`,
  put: `device: put ${BATCH} chains and publish`,
  poll: `driver: poll ${BATCH} chains`,
} as const;

for (const [step, group] of Object.entries(STEPS)) {
  for (const [name, kind] of Object.entries(RING_KINDS)) {
    const loop = new RingLoop(kind);
    Deno.bench(name, { group, baseline: name === "split, direct" }, (b) => {
      for (const each of Object.keys(STEPS) as (keyof typeof STEPS)[]) {
        if (each === step) b.start();
        loop[each]();
        if (each === step) b.end();
      }
    });
  }
}

for (const [name, kind] of Object.entries(RING_KINDS)) {
  const loop = new RingLoop(kind);
  const group = `${BATCH} chains there and back`;
  Deno.bench(name, { group, baseline: name === "split, direct" }, () => {
    loop.push();
    loop.take();
    loop.put();
    loop.poll();
  });
}
