/**
 * Sockets that systemd passes to the service that it starts for them.
 *
 * Source: sd_listen_fds(3), systemd.socket(5).
 *
 * @module
 */

import { setCloseOnExec } from "../linux/mod.ts";
import { UsageError } from "./usage_error.ts";
import { ACTIVATION_VARIABLES, isPermitted } from "./variables.ts";

/** SD_LISTEN_FDS_START: the number of the first socket that is passed. */
const FIRST_FD = 3;

/** The largest number of passed sockets. */
const MAX_SOCKETS = 1024;

/** Access to variables, like `Deno.env`. */
export type Environment = Pick<typeof Deno.env, "get" | "delete">;

/**
 * Takes the one socket that systemd passed to this process. Deletes the variables and keeps
 * children from inheriting the socket.
 *
 * @param pid The id of this process.
 * @returns The socket's descriptor; undefined if systemd passed none.
 * @throws {UsageError} When systemd passed anything but one socket for this process.
 */
export function activatedSocket(env: Environment, pid: number): number | undefined {
  const [count, forPid, names = ""] = ACTIVATION_VARIABLES.map((name) => env.get(name));
  if (count === undefined) return undefined;
  for (const name of ACTIVATION_VARIABLES) env.delete(name);
  if (forPid !== String(pid)) {
    throw new UsageError(
      `Expected the sockets of LISTEN_FDS for this process, ${pid}, got LISTEN_PID=${
        forPid ?? ""
      }; have systemd start deno itself, or by a script that ends in exec deno …`,
    );
  }
  const sockets = Number(count);
  if (!Number.isInteger(sockets) || sockets < 1 || sockets > MAX_SOCKETS) {
    throw new UsageError(`Expected LISTEN_FDS to be 1 to ${MAX_SOCKETS}, got ${count}`);
  }
  for (let fd = FIRST_FD; fd < FIRST_FD + sockets; fd++) setCloseOnExec(fd);
  if (sockets > 1) {
    throw new UsageError(
      `Expected one socket from systemd, got ${sockets}${
        names === "" ? "" : ` (${names.split(":").join(", ")})`
      }; give each its own .service`,
    );
  }
  return FIRST_FD;
}

/** The variables that this process is permitted to read; it never asks for permission. */
export const permittedEnvironment: Environment = {
  get: (name) => isPermitted(name) ? Deno.env.get(name) : undefined,
  delete: (name) => isPermitted(name) && Deno.env.delete(name),
};
