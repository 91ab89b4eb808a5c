/**
 * What surrounds the queues of an engine.
 *
 * @module
 */

import {
  createTimerfd,
  drainEventfd,
  type Readiness,
  type ThreadIo,
  type Watch,
} from "../../linux/mod.ts";
import type { MemoryView } from "../../memory/mod.ts";
import type { AnyDevice, DataHalf } from "../../virtio/mod.ts";
import type { BatchBudget } from "./batch_budget.ts";
import type { LateChains } from "./late_chains.ts";
import type { EngineEvent } from "./messages.ts";
import type { Poller } from "./poller.ts";
import type { RequestSampler } from "./request_sampler.ts";

/** Where an engine lives: on the main thread or on a queue thread. */
export interface EngineHost {
  /** Says when the thread looks at its queues before it sleeps. */
  readonly poller: Poller;
  /** Calls `callback` whenever a descriptor is ready. */
  watch(fd: number, readiness: Readiness, callback: () => void): Watch;
  /** Calls `callback` each time an eventfd is signalled, without reading it. */
  watchSignals(fd: number, callback: () => void): Disposable;
  /** Signals an eventfd of the front-end's, without ever waiting. */
  signal(fd: number): void;
  /** Calls `callback` soon, after others had their turn. */
  defer(callback: () => void): void;
  /** The thread's io_uring, where it has one. */
  readonly io?: ThreadIo;
  /** Asks the kernel to cancel its operations. */
  cancel?(): void;
  /** Whether the control plane waits for an answer. Asked after each chain. */
  isAwaited?(): boolean;
  /** Tells the control plane something. */
  emit(event: EngineEvent): void;
}

/** What the queues of an engine share. */
export interface QueueOwner {
  readonly device: AnyDevice;
  readonly half: DataHalf;
  readonly host: EngineHost;
  readonly memory: MemoryView;
  readonly budget: BatchBudget;
  readonly poller: Poller;
  readonly late: LateChains;
  readonly sampler: RequestSampler;
  /** Requests that were handled since the poller was told last. */
  handled: number;
  /** Promises and paused queues, for which the thread's event loop must turn. */
  pending: number;
  /** A promise is pending. */
  began(): void;
  /** A promise has settled. */
  settled(): void;
  /** Counts a promise among them. */
  keep<T>(promise: Promise<T>): Promise<T>;
}

/** How often a ring without a kick descriptor is looked at. */
const POLL_PERIOD_MS = 1;

/**
 * Calls `kicked` for each notification. A ring without a kick descriptor is looked at again and
 * again instead, with `look`: vhost-user.rst, SET_VRING_KICK, bit 8.
 */
export function watchKick(
  host: EngineHost,
  kick: number,
  kicked: () => void,
  look: () => void,
): Disposable {
  if (kick >= 0) return host.watchSignals(kick, kicked);
  const timer = createTimerfd(POLL_PERIOD_MS);
  const watch = host.watch(timer.number, "readable", () => {
    drainEventfd(timer.number);
    look();
  });
  return {
    [Symbol.dispose]() {
      watch[Symbol.dispose]();
      timer.close();
    },
  };
}
