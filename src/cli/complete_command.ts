/**
 * `vhostd complete`: answers the scripts of `vhostd completion`, for each word.
 *
 * @module
 */

import type { CommandShape, CommandTable } from "./command.ts";
import { complete, completionLines } from "./completion.ts";
import type { DeviceTable } from "./devices.ts";

/** The arguments are words to complete, so it has no flags. */
export const shape: CommandShape = { options: {} };

/** Prints the candidates for the last of the words. */
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
