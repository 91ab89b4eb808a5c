/**
 * Notices guest memory that is not shared: the guest then writes to a copy of its own, rings stay
 * empty, and nothing else tells why.
 *
 * @module
 */

import type { DeviceHost } from "../device_host.ts";
import { SHARE } from "../notices.ts";
import type { Ring } from "../ring.ts";

/** Delays of the checks of a ring after its start, in milliseconds: a driver may begin late. */
const CHECKS_MS = [1000, 2000, 4000, 8000, 16_000, 32_000];

/**
 * Kicks that probably come from a driver: QEMU itself kicks a ring once when it starts, some devices
 * more often. So other memory is checked too.
 */
const NOTIFIED = 2;

/** Size of a descriptor, which a driver writes first. */
const DESCRIPTOR_BYTES = 16;

/** Checks the rings of one connection. */
export class SharingCheck implements Disposable {
  readonly #host: DeviceHost;
  /** The next check of each ring since its last start. */
  readonly #checks = new Map<Ring, ReturnType<typeof setTimeout>>();

  /** @param host The device whose memory is checked. */
  constructor(host: DeviceHost) {
    this.#host = host;
  }

  /**
   * A ring is about to start. A driver that makes buffers available has written descriptors, the
   * first of which is then not zero.
   *
   * @param index Index of its descriptors in the span.
   */
  starting(ring: Ring, index: number): void {
    clearTimeout(this.#checks.get(ring));
    this.#checks.delete(ring);
    const { counters } = ring;
    const { kicks, requests, inFlight } = counters;
    const { memory } = this.#host;
    const isEmpty = () =>
      counters.requests === requests && counters.inFlight === inFlight &&
      memory.isZero(index, DESCRIPTOR_BYTES);
    if (!isEmpty()) return;
    const check = (turn: number) => {
      const timer = setTimeout(() => {
        this.#checks.delete(ring);
        if (!isEmpty()) return;
        if (counters.kicks - kicks >= NOTIFIED && memory.isUntouched) this.#tell(ring);
        else if (turn + 1 < CHECKS_MS.length) check(turn + 1);
      }, CHECKS_MS[turn]);
      Deno.unrefTimer(timer);
      this.#checks.set(ring, timer);
    };
    check(0);
  }

  #tell({ index, name }: Ring): void {
    this.#host.notices.add({
      what: `Guest memory seems not to be shared with queue ${index} (${name})`,
      why: "the driver notifies the device, and its ring was never written to",
      remedy: SHARE,
    });
  }

  /** Ends the checks. */
  [Symbol.dispose](): void {
    for (const timer of this.#checks.values()) clearTimeout(timer);
    this.#checks.clear();
  }
}
