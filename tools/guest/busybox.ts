/**
 * Busybox: the guest's userland in one file, and a few tools on this side.
 *
 * @module
 */

import { cached } from "./cache.ts";
import { unpackPackages } from "./apt.ts";

/**
 * The path of a busybox that needs no libraries.
 *
 * It is not installed: that would replace this machine's own busybox.
 */
export async function busybox(): Promise<string> {
  const directory = await cached(
    "busybox",
    "busybox-static",
    (path) => unpackPackages(["busybox-static"], path),
  );
  return `${directory}/bin/busybox`;
}
