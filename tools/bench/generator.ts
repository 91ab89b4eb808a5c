/**
 * What the load generator itself costs: driven against an echo that does no more than say that each
 * request is done.
 */
import { DriverQueue } from "../../src/frontend/mod.ts";
import type { Bench } from "./bench.ts";
import { BlkRequests } from "./blk_requests.ts";
import { OPERATIONS } from "./cells.ts";
import { EchoWaiter } from "./echo.ts";
import { runLoad } from "./load_loop.ts";
import { LoadControl, LoadCounters, phases } from "./load_state.ts";
import { type Summary, summary } from "./statistics.ts";

const REQUESTS = 1_000_000;
const RUNS = 5;

/** Nanoseconds per request at some queue depth, the echo's share among them. */
export function generatorCostNs({ memory, gpas, options }: Bench, depth: number): Summary {
  const times: number[] = [];
  for (let run = 0; run <= RUNS; run++) {
    using ring = DriverQueue.create(memory, { size: 512 });
    const control = new LoadControl();
    const counters = new LoadCounters();
    control.phase = phases.RECORD;
    const requests = new BlkRequests(memory, {
      ...OPERATIONS.read4k,
      ...{ depth, gpa: gpas[0], firstBlock: 0, blocks: 65_536, generation: 0, seed: 1 },
      isIndirect: options.indirect,
    });
    using waiter = new EchoWaiter(memory, ring, control, {
      requests: REQUESTS,
      written: OPERATIONS.read4k.bytes + 1,
    });
    const start = performance.now();
    runLoad({ ring, requests, waiter, control, counters });
    // The first run is for V8.
    if (run > 0) times.push((performance.now() - start) * 1e6 / counters.get("completed"));
  }
  return summary(times)!;
}
