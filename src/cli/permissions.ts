/**
 * The permissions of Deno that serving a device takes, and no more.
 *
 * `--allow-ffi` lets a program call all of libc, so these do not hold an attacker: they hold what
 * vhostd, a device or a package of its does by mistake through Deno.
 *
 * @module
 */

import type { AnyDevice } from "../virtio/mod.ts";
import { ACTIVATION_VARIABLES, TRACE_VARIABLE } from "./variables.ts";

/** Permissions, and what they are for. */
export interface PermissionNeed {
  /** What needs them. */
  for: string;
  /** The flags of `deno run`. */
  flags: string[];
}

/**
 * What serving a device needs.
 *
 * @param directory The directory of vhostd; undefined where it came over the network, which needs
 * no leave to be read.
 */
export function permissionsOf(
  device: AnyDevice,
  directory: string | undefined = vhostdDirectory(),
): PermissionNeed[] {
  const needs: PermissionNeed[] = [{ for: "always", flags: ["--allow-ffi"] }];
  const modules = [directory, ...modulePath(device.module, directory)].filter((path) =>
    path !== undefined
  );
  if (modules.length > 0) {
    needs.push({
      // Queue threads and the guard of such memory are Workers.
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

/** Where vhostd's modules are. */
function vhostdDirectory(): string | undefined {
  return localPath(new URL("../../", import.meta.url))?.replace(/\/$/, "");
}

/** The directory of a module that is elsewhere. */
function modulePath(module: string, directory: string | undefined): string[] {
  const path = localPath(new URL("./", module))?.replace(/\/$/, "");
  const isInside = directory !== undefined && `${path}/`.startsWith(`${directory}/`);
  return path === undefined || isInside ? [] : [path];
}

function localPath(url: URL): string | undefined {
  return url.protocol === "file:" ? decodeURIComponent(url.pathname) : undefined;
}
