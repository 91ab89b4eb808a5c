/**
 * The flags that say where front-ends come from.
 *
 * @module
 */

import type { Endpoint } from "../runtime/mod.ts";
import type { Options } from "../virtio/mod.ts";
import { activatedSocket, permittedEnvironment } from "./activation.ts";
import { UsageError } from "./usage_error.ts";

/** The flags that say where front-ends come from. */
export const endpointOptions = {
  socketPath: {
    type: "text",
    placeholder: "PATH",
    about: "Listen on a Unix socket; a stale socket file is replaced",
  },
  connect: {
    type: "text",
    placeholder: "PATH",
    about: "Connect to a Unix socket on which QEMU listens, and again when QEMU is gone; " +
      "tries again after 20 ms, then later and later, up to a second",
  },
  fd: {
    type: "number",
    placeholder: "N",
    most: 2 ** 31 - 1,
    about: "Use the inherited Unix socket N instead, listening or connected",
  },
} as const satisfies Options;

/** The values of the flags that were given. */
export type EndpointValues = { [K in keyof typeof endpointOptions]?: string | number };

/**
 * Where front-ends come from, by the flags, or else by what systemd passed.
 *
 * @param name What the device was called on the command line.
 * @throws {UsageError} When there is not one such place.
 */
export function endpointOf(values: EndpointValues, name: string): Endpoint {
  const { socketPath, connect, fd } = values;
  const given = Object.entries({ "--socket-path": socketPath, "--connect": connect, "--fd": fd })
    .filter(([, value]) => value !== undefined).map(([flag]) => flag);
  if (given.length > 1) {
    throw new UsageError(
      `Expected one of --socket-path, --connect and --fd, got ${given.join(" and ")}`,
    );
  }
  if (socketPath !== undefined) return { socketPath: String(socketPath) };
  if (connect !== undefined) return { connectPath: String(connect) };
  if (fd !== undefined) return { fd: Number(fd) };
  const activated = activatedSocket(permittedEnvironment, Deno.pid);
  if (activated !== undefined) return { fd: activated };
  throw new UsageError(
    `Expected --socket-path, --connect or --fd, or a socket from systemd, got none; ` +
      `try vhostd ${name} --socket-path=/tmp/${
        name.replace(/^.*\//, "").replace(/\..*$/, "")
      }.sock`,
  );
}
