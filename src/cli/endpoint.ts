/**
 * Reads the endpoint of a device from the command line.
 *
 * @module
 */

import type { SocketAccess } from "../linux/mod.ts";
import { groupId, userId } from "../linux/account.ts";
import type { Endpoint } from "../runtime/mod.ts";
import { flagName, type OptionValues } from "../virtio/mod.ts";
import { activatedSocket, permittedEnvironment } from "./activation.ts";
import type { accessOptions, endpointOptions } from "./endpoint_options.ts";
import { UsageError } from "./usage_error.ts";
import { ACTIVATION_VARIABLES, isPermitted } from "./variables.ts";

/** The values of the flags that were given. */
export type EndpointValues = Partial<OptionValues<typeof endpointOptions & typeof accessOptions>>;

/**
 * The endpoint that the flags name, or a socket from systemd.
 *
 * @param name The device's name on the command line.
 * @throws {UsageError} When there is not exactly one.
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
  const socketAccess = accessOf(values);
  if (socketPath !== undefined) return { socketPath, socketAccess };
  if (connect !== undefined) return { connectPath: connect };
  if (fd !== undefined) return { fd };
  const activated = activatedSocket(permittedEnvironment, Deno.pid);
  if (activated !== undefined) return { fd: activated };
  // Without the permission, there may be one from systemd
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

/** An instance of a device, as the command line names it. */
export interface InstanceValue {
  readonly name: string;
  readonly endpoint: Endpoint;
  /** The value of its option. */
  readonly value: string;
}

/**
 * The instances of a device by the values of their option: each is the path of a socket, and what
 * the device makes of the rest. The name is that of the socket's file without `.sock`.
 *
 * @throws {UsageError} When there is none, or two have the same name.
 */
export function instancesOf(
  given: readonly string[],
  values: EndpointValues,
  option: string,
  name: string,
): InstanceValue[] {
  const flag = `--${flagName(option)}`;
  if (given.length === 0) {
    throw new UsageError(
      `Expected ${flag} for each instance, got none; try vhostd ${name} ${flag}=/tmp/a.sock ` +
        `${flag}=/tmp/b.sock`,
    );
  }
  const instances = given.map((value): InstanceValue => {
    const [socketPath] = value.split(",");
    const socketAccess = accessOf({ ...values, socketPath });
    const name = socketPath.replace(/^.*\//, "").replace(/\.sock$/, "");
    return { name, endpoint: { socketPath, socketAccess }, value };
  });
  for (const [i, { name, value }] of instances.entries()) {
    const other = instances.findIndex((instance) => instance.name === name);
    if (other < i) {
      throw new UsageError(
        `Expected sockets with different names, got ${instances[other].value} and ${value}`,
      );
    }
    if (!/^[\w.@+-]+$/.test(name)) {
      throw new UsageError(
        `Expected a socket whose name has letters, digits and .@+_- only, got ${value}`,
      );
    }
  }
  return instances;
}

/** The owner and permissions of the socket, from the flags. */
function accessOf({ socketPath, socketMode, socketOwner }: EndpointValues): SocketAccess {
  if (socketPath === undefined && (socketMode ?? socketOwner) !== undefined) {
    throw new UsageError(
      `Expected --socket-path with --socket-${socketMode === undefined ? "owner" : "mode"}: ` +
        "other sockets have the access that their maker gave them",
    );
  }
  return {
    ...socketMode !== undefined && { mode: modeOf(socketMode) },
    ...socketOwner !== undefined && ownerOf(socketOwner),
  };
}

function modeOf(text: string): number {
  if (/^0?[0-7]{3}$/.test(text)) return parseInt(text, 8);
  throw new UsageError(`--socket-mode takes three octal digits, such as 660, got ${text}`);
}

function ownerOf(text: string): SocketAccess {
  const [, user, group] = /^([^:]*)(?::([^:]+))?$/.exec(text) ?? [];
  if (!user && !group) {
    throw new UsageError(`--socket-owner takes USER, USER:GROUP or :GROUP, got ${text}`);
  }
  return {
    ...user && { uid: numberOf(user, "user", userId) },
    ...group && { gid: numberOf(group, "group", groupId) },
  };
}

/** The largest id of a user or group: the next one means none (chown(2)). */
const MAX_ID = 2 ** 32 - 2;

function numberOf(
  text: string,
  kind: string,
  byName: (name: string) => number | undefined,
): number {
  // Names come first, even if they look like numbers, as in chown(1)
  const id = byName(text) ?? (/^\d+$/.test(text) ? Number(text) : undefined);
  if (id !== undefined && id <= MAX_ID) return id;
  throw new UsageError(`--socket-owner takes a ${kind} that exists, or its number, got ${text}`);
}
