/**
 * Notifications of the driver.
 *
 * @module
 */

import { createTimerfd, drainEventfd } from "../../linux/mod.ts";
import type { EngineHost } from "./engine_host.ts";

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
