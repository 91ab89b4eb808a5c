/**
 * Sockets passed as systemd does, for tests.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { libc } from "../../../src/linux/libc.ts";
import type { Fd } from "../../../src/linux/mod.ts";

const F_SETFD = 2;

/** A shell script that starts a program as systemd does: with sockets from descriptor 3 on. */
export function activation(sockets: readonly Fd[], pid = "$$"): readonly string[] {
  for (const { number } of sockets) assertEquals(libc.fcntl(number, F_SETFD, 0), 0);
  // First to high numbers: the sockets' own descriptors may be among 3, 4, …
  const high = sockets.map(({ number }, i) => `${50 + i}<&${number}`);
  const low = sockets.map((_, i) => `${3 + i}<&${50 + i} ${50 + i}<&-`);
  const script = `exec ${high.join(" ")}; exec ${low.join(" ")}; export LISTEN_PID=${pid}; ` +
    'exec "$@"';
  return ["bash", "-c", script, "bash"];
}
