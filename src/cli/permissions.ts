/**
 * The permissions of Deno that serving a device needs.
 *
 * `--allow-ffi` permits all of libc, so they do not stop an attacker. They stop mistakes of vhostd,
 * a device or its packages that go through Deno.
 *
 * @module
 */

import type { AnyDevice } from "../virtio/mod.ts";
import { ACTIVATION_VARIABLES, TRACE_VARIABLE } from "./variables.ts";

/** Permissions and their purpose. */
export interface PermissionNeed {
  /** Their purpose. */
  for: string;
  /** The flags of `deno run`. */
  flags: string[];
}

/** The permissions that serving a device needs. */
export function permissionsOf(device: AnyDevice): PermissionNeed[] {
  const needs: PermissionNeed[] = [{ for: "always", flags: ["--allow-ffi"] }];
  const directory = vhostdDirectory();
  const modules = [directory, ...modulePath(device.module, directory)].filter((path) =>
    path !== undefined
  );
  if (modules.length > 0) {
    needs.push({
      // Queue threads and the guard of such memory are Workers
      for: device.threads === "main" ? "guest memory in files that can shrink" : "queue threads",
      flags: [`--allow-read=${modules.join(",")}`],
    });
  }
  needs.push(
    {
      for: "a socket from systemd",
      flags: [`--allow-env=${ACTIVATION_VARIABLES.join(",")}`],
    },
    { for: `${TRACE_VARIABLE}=1`, flags: [`--allow-env=${TRACE_VARIABLE}`] },
  );
  return needs;
}

/** The directory of vhostd; undefined if it came over the network: that needs no permission. */
function vhostdDirectory(): string | undefined {
  return localPath(new URL("../../", import.meta.url))?.replace(/\/$/, "");
}

/** The directory of a module outside vhostd's. */
function modulePath(module: string, directory: string | undefined): string[] {
  const path = localPath(new URL("./", module))?.replace(/\/$/, "");
  const isInside = directory !== undefined && `${path}/`.startsWith(`${directory}/`);
  return path === undefined || isInside ? [] : [path];
}

function localPath(url: URL): string | undefined {
  return url.protocol === "file:" ? decodeURIComponent(url.pathname) : undefined;
}
