/**
 * Where front-ends come from, as the command line has it.
 *
 * @module
 */

import type { Endpoint } from "../runtime/mod.ts";
import { activatedSocket, permittedEnvironment } from "./activation.ts";
import type { endpointOptions } from "./endpoint_options.ts";
import { UsageError } from "./usage_error.ts";
import { ACTIVATION_VARIABLES, isPermitted } from "./variables.ts";

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
  // Without leave to look, there may be one.
  const leave = ACTIVATION_VARIABLES.every(isPermitted)
    ? ""
    : ` (which takes --allow-env=${ACTIVATION_VARIABLES.join(",")})`;
  throw new UsageError(
    `Expected --socket-path, --connect or --fd, or a socket from systemd${leave}, got none; ` +
      `try vhostd ${name} --socket-path=/tmp/${
        name.replace(/^.*\//, "").replace(/\..*$/, "")
      }.sock`,
  );
}
