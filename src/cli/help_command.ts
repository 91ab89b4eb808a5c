/**
 * `vhostd --help` and `vhostd --version`.
 *
 * @module
 */

import { type DeviceTable, loadDevice } from "./devices.ts";
import { deviceHelp, programHelp } from "./help.ts";
import { version } from "./version.ts";

/** Prints the help of the program, or of a device. */
export async function helpCommand(
  [name]: readonly string[],
  devices: DeviceTable,
): Promise<number> {
  const text = name === undefined
    ? programHelp(Object.keys(devices))
    : deviceHelp(await loadDevice(devices, name), name);
  console.log(text.trimEnd());
  return 0;
}

/** Prints the version. */
export async function versionCommand(): Promise<number> {
  console.log(`vhostd ${await version()}`);
  return 0;
}
