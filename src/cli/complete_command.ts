/**
 * `vhostd complete`: what the scripts of `vhostd completion` ask for each word.
 *
 * @module
 */

import type { CommandShape, CommandTable } from "./command.ts";
import { complete, completionLines } from "./completion.ts";
import type { DeviceTable } from "./devices.ts";

/** Takes words as they are typed, so no flag is its own. */
export const shape: CommandShape = { options: {} };

/** Prints what can be offered for the last of the words. */
export async function run(
  args: readonly string[],
  devices: DeviceTable,
  commands: CommandTable,
): Promise<number> {
  const { complete: _itself, ...offered } = commands;
  const lines = completionLines(await complete(args, offered, devices));
  await Deno.stdout.write(new TextEncoder().encode(lines));
  return 0;
}
