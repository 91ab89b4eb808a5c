/**
 * Help texts, from the declaration of options.
 *
 * @module
 */

import { shown } from "../runtime/shown.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import { flagName, type OptionDefinition } from "../virtio/options.ts";
import type { OptionTable } from "./arguments.ts";
import { endpointOptions } from "./endpoint_options.ts";
import { sharedOptions } from "./shared_options.ts";
import { wrap } from "./table.ts";

/** The width of help texts, in characters. */
const HELP_WIDTH = 100;

/** The help of the program. */
export function programHelp(deviceNames: readonly string[]): string {
  return `vhostd: virtio devices in TypeScript, served to QEMU over vhost-user

Usage:
  vhostd <device> --socket-path=PATH [options]   serve a device until SIGTERM or SIGINT
  vhostd <device> --help                         its options
  vhostd list                                    the devices, one per line
  vhostd describe <device>                       its queues, feature bits and config space
  vhostd inspect PATH                            what a guest's driver did with a device
  vhostd --version

A device is one of ${deviceNames.join(", ")}, or the path or URL of a .ts file of your own
whose default export is a device.

Signals: SIGHUP looks again at what the device stands for, SIGUSR1 prints the record on stderr.
VHOSTD_TRACE=1 prints the stack of an error.
`;
}

/** The help of a device's command. */
export function deviceHelp(device: AnyDevice, name: string): string {
  const own = (device.options ?? {}) as OptionTable;
  const others = Object.fromEntries(
    Object.entries(sharedOptions).filter(([name]) => !(name in endpointOptions)),
  );
  const width = flagWidth({ ...own, ...sharedOptions });
  const parts = [
    `${device.name}: ${device.about} (virtio device ${device.deviceId})\n`,
    `Usage: vhostd ${shown(name)} --socket-path=PATH [options]\n`,
    `Where front-ends come from, one of these, or a socket from systemd:\n${
      optionLines(endpointOptions, width)
    }`,
    ...(Object.keys(own).length > 0 ? [`The device:\n${optionLines(own, width)}`] : []),
    `Every device:\n${optionLines(others, width)}`,
  ];
  return parts.join("\n");
}

/** The help of another command. */
export function commandHelp(usage: string, about: string, options: OptionTable): string {
  return `${about}\n\nUsage: vhostd ${usage}\n\n${optionLines(options)}`;
}

/** A line for each option, or several where its text is long. */
export function optionLines(options: OptionTable, width: number = flagWidth(options)): string {
  const indent = width + 4;
  return Object.entries(options).map(([name, definition]) => {
    const words = optionText(definition).split(" ");
    const text = wrap(words, { width: HELP_WIDTH, indent, between: " " });
    return `  ${flagText(name, definition).padEnd(width)}  ${text}\n`;
  }).join("");
}

/** The width of the flags of options. */
function flagWidth(options: OptionTable): number {
  return Math.max(
    ...Object.entries(options).map(([name, option]) => flagText(name, option).length),
  );
}

/** How a flag is written: `--blk-file=PATH`. */
export function flagText(name: string, definition: OptionDefinition): string {
  const value = definition.type === "flag" ? "" : `=${definition.placeholder}`;
  return `--${flagName(name)}${value}`;
}

/** What an option does, with what its value may be. */
function optionText(definition: OptionDefinition): string {
  const notes: string[] = [];
  if (definition.type === "text" && definition.choices !== undefined) {
    const { choices, placeholder } = definition;
    if (placeholder !== choices.join("|")) notes.push(choices.join(", "));
  }
  if (definition.type === "number") {
    const { unit, least, most } = definition;
    if (unit === "bytes") notes.push("bytes, or with K, M, G or T");
    const name = unit === "ms" ? " ms" : "";
    if (most !== undefined && most < 2 ** 31 - 1) notes.push(`${least ?? 0} to ${most}${name}`);
    else if (unit === "ms") notes.push("ms");
  }
  if (definition.type !== "flag" && definition.default !== undefined) {
    notes.push(`default ${definition.default}`);
  }
  return definition.about + (notes.length > 0 ? ` (${notes.join("; ")})` : "");
}
