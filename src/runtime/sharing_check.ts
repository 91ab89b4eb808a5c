/**
 * Notices guest memory that is not shared: what the guest writes then goes to
 * a copy of its own, rings stay empty for ever, and nothing else tells why.
 *
 * @module
 */

import type { DeviceHost, HostQueue } from "./device_host.ts";
import { SHARE } from "./notices.ts";

/** How long a driver that has notified the device may leave its ring empty, in milliseconds. */
const EMPTY_MS = 1000;

/** Looks after the rings of one connection. */
export class SharingCheck implements Disposable {
  readonly #host: DeviceHost;
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();

  /** @param host The device whose memory is looked at. */
  constructor(host: DeviceHost) {
    this.#host = host;
  }

  /**
   * A ring is about to start, and nobody here has touched it. A driver cleared
   * it, so its pages are there, unless it lies in memory that is not ours.
   *
   * @param index Where a part of the ring is in the span.
   */
  starting(queue: HostQueue, index: number): void {
    if (this.#host.memory.isResident(index)) return;
    const { counters } = queue;
    const { kicks, requests } = counters;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (counters.kicks === kicks || counters.requests + counters.inFlight > requests) return;
      this.#host.notices.add({
        what: `Guest memory seems not to be shared with queue ${queue.index} (${queue.name})`,
        why: "the driver notifies the device, and its ring was never written to",
        remedy: SHARE,
      });
    }, EMPTY_MS);
    this.#timers.add(timer);
  }

  /** Ends it. */
  [Symbol.dispose](): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }
}
