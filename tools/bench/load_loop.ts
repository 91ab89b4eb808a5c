/** The load generator: as many requests in flight as it was told, for as long as it is told. */
import type { DriverRing } from "../../src/frontend/mod.ts";
import { readClock } from "../lib/clock.ts";
import { type LoadControl, type LoadCounters, phases } from "./load_state.ts";
import type { Requests } from "./requests.ts";
import type { Waiter } from "./waiter.ts";

/** What a load consists of. */
export interface Load {
  ring: DriverRing;
  requests: Requests;
  waiter: Waiter;
  control: LoadControl;
  counters: LoadCounters;
}

/**
 * Keeps requests in flight until it is told to stop. What came back together is replaced together.
 * A latency lasts from the moment before a request is published until it is found to be back.
 */
export function runLoad({ ring, requests, waiter, control, counters }: Load): void {
  const { depth } = requests;
  const { latencies } = counters;
  const slotOf = new Uint16Array(ring.size);
  const sent = new Int32Array(depth);
  const batch = new Uint16Array(depth);
  let completed = 0, kicks = 0, waits = 0;
  let phase: number = control.phase;

  waiter.begin();
  for (let slot = 0; slot < depth; slot++) {
    slotOf[requests.add(ring, slot)] = slot;
    batch[slot] = slot;
  }
  let added = depth;
  for (;;) {
    if (added > 0) {
      const now = readClock();
      for (let i = 0; i < added; i++) sent[batch[i]] = now;
      if (ring.publish()) {
        ring.kick();
        counters.set("kicks", ++kicks);
      }
      added = 0;
    }
    let head = ring.poll();
    if (head < 0) {
      if (ring.inFlight === 0) return;
      counters.set("waits", ++waits);
      waiter.wait();
      continue;
    }
    const now = readClock();
    phase = control.phase;
    do {
      const slot = slotOf[head];
      requests.check(slot, ring.written);
      if (phase === phases.RECORD) latencies.add((now - sent[slot]) >>> 0);
      completed++;
      if (phase < phases.STOP) {
        slotOf[requests.add(ring, slot)] = slot;
        batch[added++] = slot;
      }
      head = ring.poll();
    } while (head >= 0);
    counters.set("completed", completed);
  }
}
