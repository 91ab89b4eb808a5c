/**
 * Notices guest memory that is not shared: what the guest writes then goes to
 * a copy of its own, rings stay empty for ever, and nothing else tells why.
 *
 * @module
 */

import type { DeviceHost } from "../device_host.ts";
import { SHARE } from "../notices.ts";
import type { Ring } from "../ring.ts";

/** When a ring is looked at after its start, in milliseconds: a driver may begin late. */
const LOOKS_MS = [1000, 2000, 4000, 8000, 16_000, 32_000];

/**
 * How often a ring is notified by its driver, most likely: QEMU notifies it once
 * itself when it starts, some more often. So memory is looked at elsewhere too.
 */
const NOTIFIED = 2;

/** What a driver writes first: a descriptor. */
const DESCRIPTOR_BYTES = 16;

/** Looks after the rings of one connection. */
export class SharingCheck implements Disposable {
  readonly #host: DeviceHost;
  /** The next look at each queue, since its last start. */
  readonly #looks = new Map<Ring, ReturnType<typeof setTimeout>>();

  /** @param host The device whose memory is looked at. */
  constructor(host: DeviceHost) {
    this.#host = host;
  }

  /**
   * A ring is about to start. What its driver makes available it has written
   * into descriptors, the first of which is never zero then.
   *
   * @param index Where its descriptors are in the span.
   */
  starting(queue: Ring, index: number): void {
    clearTimeout(this.#looks.get(queue));
    this.#looks.delete(queue);
    const { counters } = queue;
    const { kicks, requests, inFlight } = counters;
    const { memory } = this.#host;
    const isEmpty = () =>
      counters.requests === requests && counters.inFlight === inFlight &&
      memory.isZero(index, DESCRIPTOR_BYTES);
    if (!isEmpty()) return;
    const look = (turn: number) => {
      const timer = setTimeout(() => {
        this.#looks.delete(queue);
        if (!isEmpty()) return;
        if (counters.kicks - kicks >= NOTIFIED && memory.isUntouched) this.#tell(queue);
        else if (turn + 1 < LOOKS_MS.length) look(turn + 1);
      }, LOOKS_MS[turn]);
      Deno.unrefTimer(timer);
      this.#looks.set(queue, timer);
    };
    look(0);
  }

  #tell({ index, name }: Ring): void {
    this.#host.notices.add({
      what: `Guest memory seems not to be shared with queue ${index} (${name})`,
      why: "the driver notifies the device, and its ring was never written to",
      remedy: SHARE,
    });
  }

  /** Ends it. */
  [Symbol.dispose](): void {
    for (const timer of this.#looks.values()) clearTimeout(timer);
    this.#looks.clear();
  }
}
