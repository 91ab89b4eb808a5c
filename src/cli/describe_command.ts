/**
 * `vhostd describe`: prints the definition of a device.
 *
 * @module
 */

import { shownJson } from "../runtime/shown.ts";
import { describeDevice, describeText } from "./describe_text.ts";
import { type DeviceTable, loadDevice } from "./devices.ts";
import type { CommandShape } from "./command.ts";
import { type CommandLine, parseCommand } from "./help.ts";
import { isColoured } from "./ink.ts";
import { libvirtDescription } from "./qemu.ts";
import { helpOption } from "./shared_options.ts";
import { UsageError } from "./usage_error.ts";
import { version } from "./version.ts";

const options = {
  json: { type: "flag", about: "As JSON" },
  libvirt: {
    type: "flag",
    about: "Print the JSON description by which management programs find the back-end",
  },
  binary: {
    type: "text",
    placeholder: "PATH",
    about: "With --libvirt: the program (default /usr/local/libexec/vhostd-DEVICE)",
  },
  ...helpOption,
} as const;

/** For completion. */
export const shape: CommandShape = { options, operand: "device" };

const COMMAND: CommandLine = {
  usage: "describe [--json | --libvirt [--binary=PATH]] <device>",
  about: `Describes a device: its queues, feature bits, config fields, and the permissions it takes.

A disk of libvirt's connects to a socket that exists: start the device yourself, and name its \
socket in the domain (README, With libvirt).

What --libvirt prints is a description for /etc/qemu/vhost-user/NN-NAME.json. Programs that \
manage virtual machines find back-ends there by type, and start them with --socket-path or --fd; \
libvirt does so for gpu and fs only. That program is a script:

  #!/bin/sh
  exec vhostd <device> "$@"`,
  options,
  operand: "one device to describe",
};

/** Describes a device. */
export async function run(args: readonly string[], devices: DeviceTable): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const { values, operand } = parsed;
  if (values.json && values.libvirt) {
    throw new UsageError("Expected --json or --libvirt, got both; give one of them");
  }
  if (values.binary !== undefined && !values.libvirt) {
    throw new UsageError("Expected --libvirt with --binary; add it");
  }
  const device = await loadDevice(devices, operand);
  if (values.libvirt) {
    const binary = String(values.binary ?? `/usr/local/libexec/vhostd-${device.name}`);
    if (!binary.startsWith("/")) {
      throw new UsageError(`Expected an absolute path as --binary, got ${binary}`);
    }
    console.log(shownJson(libvirtDescription(device, binary, await version()), 2));
  } else if (values.json) {
    console.log(shownJson(describeDevice(device), 2));
  } else {
    console.log(describeText(device, isColoured(Deno.stdout)).trimEnd());
  }
  return 0;
}
