/**
 * `vhostd --version`.
 *
 * @module
 */

import type { CommandShape } from "./command.ts";
import { version } from "./version.ts";

/** For completion. */
export const shape: CommandShape = { options: {} };

/** Prints the version. */
export async function run(): Promise<number> {
  console.log(`vhostd ${await version()}`);
  return 0;
}
