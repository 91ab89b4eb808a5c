/**
 * `vhostd complete`: what the scripts of `vhostd completion` ask for each word.
 *
 * @module
 */

import type { CommandShape } from "./command.ts";
import { type CommandTable, complete, completionLines } from "./completion.ts";
import type { DeviceTable } from "./devices.ts";

/** Takes words as they are typed, so no flag is its own. */
export const shape: CommandShape = { options: {} };

/** Prints what can be offered for the last of the words. */
export async function run(args: readonly string[], devices: DeviceTable): Promise<number> {
  const { commands } = await import("./program.ts");
  const { complete: _itself, ...offered } = commands as CommandTable;
  const lines = completionLines(await complete(args, offered, devices));
  await Deno.stdout.write(new TextEncoder().encode(lines));
  return 0;
}
