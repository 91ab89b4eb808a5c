/**
 * Sockets as systemd passes them, for tests.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { libc } from "../../../src/linux/libc.ts";
import type { Fd } from "../../../src/linux/mod.ts";

const F_SETFD = 2;

/** Starts what follows as systemd does: with sockets from descriptor 3 on. */
export function activation(sockets: readonly Fd[], pid = "$$"): readonly string[] {
  for (const { number } of sockets) assertEquals(libc.fcntl(number, F_SETFD, 0), 0);
  // By way of high numbers: what is passed may itself be among 3, 4, …
  const high = sockets.map(({ number }, i) => `${50 + i}<&${number}`);
  const low = sockets.map((_, i) => `${3 + i}<&${50 + i} ${50 + i}<&-`);
  const script = `exec ${high.join(" ")}; exec ${low.join(" ")}; export LISTEN_PID=${pid}; ` +
    'exec "$@"';
  return ["bash", "-c", script, "bash"];
}
