/**
 * `vhostd top`: shows the busiest queues of devices.
 *
 * @module
 */

import type { CommandShape } from "./command.ts";
import { type CommandLine, parseCommand, PATHS_HELP } from "./help.ts";
import { isColoured } from "./ink.ts";
import { LiveRecords } from "./live_records.ts";
import { screenful, watchStates } from "./screen.ts";
import { helpOption } from "./shared_options.ts";
import { topText } from "./top_text.ts";

const options = { ...helpOption } as const;

/** For completion. */
export const shape: CommandShape = { options, operand: "file" };

const COMMAND: CommandLine = {
  usage: "top [PATH…]",
  about: `Shows the busiest queues of devices each second: requests, latencies and bytes, until \
SIGINT or until all devices are gone. Without a terminal it prints a table per second.

${PATHS_HELP}`,
  options,
  operand: "control sockets or directories",
  operands: "any",
};

/** Shows the busiest queues. */
export async function run(args: readonly string[]): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const { operands } = parsed;
  const records = await LiveRecords.open(operands.length > 0 ? operands : ["."]);
  const first = await records.read();
  if (first.records.length === 0) {
    throw new Error(
      `Expected a control socket that answers, got none${
        first.silent.length > 0 ? ` of ${first.silent.length}: ${first.silent[0]}` : ""
      }; serve devices with --control-path`,
    );
  }
  const isScreen = Deno.stdout.isTerminal();
  await watchStates(first, {
    isScreen,
    async read() {
      const read = await records.read();
      return read.records.length > 0 ? read : undefined;
    },
    text(current, previous) {
      if (!isScreen) {
        return previous === undefined ? "" : `${topText(current, previous).join("\n")}\n\n`;
      }
      const { rows, columns } = Deno.consoleSize();
      const coloured = isColoured(Deno.stdout);
      // The last line has the cursor
      return screenful(topText(current, previous, { rows: rows - 1, columns, coloured }));
    },
  });
  return 0;
}
