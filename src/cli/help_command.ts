/**
 * `vhostd --help` and `vhostd --version`.
 *
 * @module
 */

import { loadDevice } from "./devices.ts";
import { deviceHelp, programHelp } from "./help.ts";
import { version } from "./version.ts";

/** Prints the help of the program, or of a device. */
export async function helpCommand([name]: readonly string[]): Promise<number> {
  const text = name === undefined ? programHelp() : deviceHelp(await loadDevice(name), name);
  console.log(text.trimEnd());
  return 0;
}

/** Prints the version. */
export async function versionCommand(): Promise<number> {
  console.log(`vhostd ${await version()}`);
  return 0;
}
