/**
 * The options of every device: QEMU's conventions for back-end programs
 * (`docs/interop/vhost-user.rst`, "Backend program conventions"), and vhostd's.
 *
 * @module
 */

import { DEFAULT_POLL_US, WIRE_MAX_BYTES } from "../runtime/defaults.ts";
import { type AnyDevice, flagName, type Options, type OptionValues } from "../virtio/mod.ts";
import type { OptionTable } from "./arguments.ts";
import { accessOptions, endpointOptions } from "./endpoint_options.ts";
import { traceOptions } from "./trace_options.ts";

/** The flag of every command. */
export const helpOption = { help: { type: "flag", about: "Show this" } } as const satisfies Options;

/** The flags of every device. */
export const sharedOptions = {
  ...endpointOptions,
  ...accessOptions,
  threads: {
    type: "number",
    placeholder: "N",
    least: 1,
    most: 256,
    about: "Run the queues on up to N threads; by default one per processor, at most 8",
  },
  pollUs: {
    type: "number",
    placeholder: "N",
    most: 10_000,
    default: DEFAULT_POLL_US,
    about:
      "Poll for new requests up to N microseconds before sleeping, if that finds some; 0 for never",
  },
  controlPath: {
    type: "text",
    placeholder: "PATH",
    about: "Serve the record and the device's commands over HTTP on a Unix socket",
  },
  record: { type: "text", placeholder: "FILE", about: "Write the record as JSON at exit" },
  ...traceOptions,
  wire: {
    type: "text",
    placeholder: "FILE",
    about: "Capture the vhost-user messages into a pcapng file",
  },
  wireMax: {
    type: "number",
    unit: "bytes",
    placeholder: "SIZE",
    least: 4096,
    default: WIRE_MAX_BYTES,
    about: "End that file at this size",
    needs: "wire",
  },
  printCapabilities: {
    type: "flag",
    about: "Print the capabilities of this back-end as JSON, and exit",
  },
  ...helpOption,
} as const satisfies Options;

/** The values of the shared options. */
export type SharedValues = OptionValues<typeof sharedOptions>;

/**
 * The flags that have an effect on a device: `--threads` only where its queues can have several, and
 * an endpoint only where its instances have none of their own.
 */
export function sharedOptionsOf(device: AnyDevice): OptionTable {
  if (device.instances !== undefined) {
    const { socketPath: _path, connect: _connect, fd: _fd, threads: _n, ...others } = sharedOptions;
    return others;
  }
  const { threads: _threads, ...withoutThreads } = sharedOptions;
  const { pollUs: _pollUs, ...others } = withoutThreads;
  return { each: sharedOptions, one: withoutThreads, main: others }[device.threads ?? "each"];
}

/**
 * All options of a device's command.
 *
 * @throws {Error} When an option of the device has the name of a shared one.
 */
export function optionsOf(device: AnyDevice): OptionTable {
  const own = (device.options ?? {}) as OptionTable;
  const taken = Object.keys(own).find((name) => name in sharedOptions);
  if (taken !== undefined) {
    throw new Error(
      `Expected device ${device.name} to leave --${flagName(taken)} to vhostd; rename its option`,
    );
  }
  return { ...own, ...sharedOptionsOf(device) };
}
