/**
 * `vhostd --help`.
 *
 * @module
 */

import type { CommandShape } from "./command.ts";
import { type DeviceTable, loadDevice } from "./devices.ts";
import { deviceHelp, programHelp } from "./help.ts";

/** For completion. */
export const shape: CommandShape = { options: {}, operand: "device" };

/** Prints the help of the program, or of a device. */
export async function run([name]: readonly string[], devices: DeviceTable): Promise<number> {
  const text = name === undefined
    ? programHelp(Object.keys(devices))
    : deviceHelp(await loadDevice(devices, name), name);
  console.log(text.trimEnd());
  return 0;
}
