/** A thread that drives one queue. */
import {
  type DriverMemory,
  type DriverQueueHandle,
  openDriverQueue,
  type SharedRegionHandle,
  viewSharedMemory,
} from "../../src/frontend/mod.ts";
import { BlkRequests, type BlkRequestsOptions } from "./blk_requests.ts";
import { runLoad } from "./load_loop.ts";
import { LoadControl, LoadCounters } from "./load_state.ts";
import { PacedRequests, RngRequests, type RngRequestsOptions } from "./requests.ts";
import { PollingWaiter, SleepingWaiter } from "./waiter.ts";

/** What a load thread is to do. */
export interface LoadOrder {
  /** The memory of ring and requests: the same one each time. */
  memory: SharedRegionHandle[];
  queue: DriverQueueHandle;
  requests:
    | { kind: "blk"; options: BlkRequestsOptions }
    | { kind: "rng"; options: RngRequestsOptions };
  /** So many requests per second; as many as come back without it. */
  rate?: number;
  isPolling: boolean;
  /** A {@linkcode LoadControl}'s. */
  control: SharedArrayBuffer;
  /** A {@linkcode LoadCounters}'. */
  counters: SharedArrayBuffer;
}

/** What became of it. */
export type LoadOutcome =
  | { error: string }
  /** The queue as it stands now: of a packed one, its memory does not tell. */
  | { queue: DriverQueueHandle };

declare const self: {
  onmessage: (event: MessageEvent<LoadOrder>) => void;
  postMessage(outcome: LoadOutcome): void;
};

/** One view for all orders: each of its kind is a reason to compile again. */
let memory: DriverMemory | undefined;

self.onmessage = ({ data }) => {
  try {
    self.postMessage({ queue: run(data) });
  } catch (error) {
    const { name, message, stack } = error as Error;
    self.postMessage({ error: name === "ToolError" ? message : stack ?? message });
  }
};

function run(order: LoadOrder): DriverQueueHandle {
  memory ??= viewSharedMemory(order.memory);
  const control = new LoadControl(order.control);
  using ring = openDriverQueue(memory, order.queue);
  using waiter = order.isPolling
    ? new PollingWaiter(ring, control)
    : new SleepingWaiter(ring, order.queue.callFd, control);
  const all = order.requests.kind === "blk"
    ? new BlkRequests(memory, order.requests.options)
    : new RngRequests(order.requests.options);
  const requests = order.rate === undefined ? all : new PacedRequests(all, order.rate);
  runLoad({ ring, requests, waiter, control, counters: new LoadCounters(order.counters) });
  return ring.handle;
}
