/** Busybox: the guest's userland in one file, and a few tools on this side. */
import { unpackPackages } from "./apt.ts";
import { cached, exists } from "./cache.ts";

/** The path of a busybox that needs no libraries. */
export async function busybox(): Promise<string> {
  const directory = await cached(
    "busybox",
    "busybox-static",
    (path) => unpackPackages(["busybox-static"], path),
  );
  // From Debian 13 on.
  const merged = `${directory}/usr/bin/busybox`;
  return await exists(merged) ? merged : `${directory}/bin/busybox`;
}
