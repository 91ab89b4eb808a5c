/**
 * `vhostd inspect`: shows a record.
 *
 * @module
 */

import { shownJson } from "../runtime/shown.ts";
import type { CommandShape } from "./command.ts";
import { parseCommand } from "./help.ts";
import { isColoured } from "./ink.ts";
import { openRecordSource, type RecordSource, type RecordsRead } from "./record_file.ts";
import { recordScreen } from "./record_screen.ts";
import { recordText } from "./record_text.ts";
import { print, screenful, watchStates } from "./screen.ts";
import { helpOption } from "./shared_options.ts";

const options = {
  watch: { type: "flag", about: "Keep it current, until SIGINT or until the server is gone" },
  json: { type: "flag", about: "As JSON; with --watch, one record per line" },
  ...helpOption,
} as const;

/** For completion. */
export const shape: CommandShape = { options, operand: "file" };

const COMMAND = {
  usage: "inspect PATH [--watch] [--json]",
  about: "Shows what a front-end and the guest's driver did with a device. PATH is a control " +
    "socket (--control-path) or a file that --record wrote.",
  options,
  operand: "the path of a control socket or a record file",
};

/** Shows a record. */
export async function run(args: readonly string[]): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const { values, operand } = parsed;
  const source = await openRecordSource(operand);
  const first = await source.read();
  if (values.watch) {
    await watch(source, first, values.json === true);
  } else {
    print(values.json ? `${shownJson(first.json, 2)}\n` : textFor(first));
  }
  return 0;
}

/** Shows a record periodically; a terminal keeps the last state on its screen. */
async function watch(source: RecordSource, first: RecordsRead, json: boolean): Promise<void> {
  const isScreen = !json && Deno.stdout.isTerminal();
  await watchStates(first, {
    isScreen,
    async read() {
      try {
        return await source.read();
      } catch (error) {
        if (!source.isLive) throw error;
        return undefined; // The server is gone
      }
    },
    text(current, previous) {
      if (isScreen) return screenful(screenLines(current, previous));
      return json ? `${shownJson(current.json)}\n` : `${textFor(current, previous)}\n`;
    },
  });
}

function textFor({ records }: RecordsRead, previous?: RecordsRead): string {
  const columns = Deno.stdout.isTerminal() ? Deno.consoleSize().columns : undefined;
  const coloured = isColoured(Deno.stdout);
  return records.map((record, i) =>
    recordText(record, { coloured, columns, previous: previous?.records[i] })
  ).join("\n");
}

/** The lines of records for the screen, each with its share of it. */
function screenLines({ records }: RecordsRead, previous?: RecordsRead): string[] {
  const { rows, columns } = Deno.consoleSize();
  const coloured = isColoured(Deno.stdout);
  // The last line has the cursor
  const share = Math.floor((rows - 1) / records.length);
  return records.flatMap((record, i) =>
    recordScreen(record, { rows: share, columns, coloured, previous: previous?.records[i] })
  );
}
