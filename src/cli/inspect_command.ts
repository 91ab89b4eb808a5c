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

/** Time between two reads of a watched record. */
const WATCH_PERIOD_MS = 1000;

/** Clears the screen, turns wrapping off so that long lines are cut, and hides the cursor. */
const SCREEN_BEGIN = "\x1b[2J\x1b[?7l\x1b[?25l";

/** Turns wrapping on and shows the cursor. */
const SCREEN_END = "\x1b[?7h\x1b[?25h";

/** Shows a record. */
export async function run(args: readonly string[]): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const { values, operand } = parsed;
  using source = await openRecordSource(operand);
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
  const stop = Promise.withResolvers<"stop">();
  const onSignal = () => stop.resolve("stop");
  Deno.addSignalListener("SIGINT", onSignal);
  Deno.addSignalListener("SIGTERM", onSignal);
  const isScreen = !json && Deno.stdout.isTerminal();
  let current = first;
  let previous: RecordsRead | undefined;
  if (isScreen) print(SCREEN_BEGIN);
  try {
    for (;;) {
      if (isScreen) print(screenful(current, previous));
      else print(json ? `${shownJson(current.json)}\n` : `${textFor(current, previous)}\n`);
      if (await Promise.race([stop.promise, later(WATCH_PERIOD_MS)]) === "stop") return;
      previous = current;
      try {
        current = await source.read();
      } catch (error) {
        if (!source.isLive) throw error;
        return; // The server is gone; the last record stays on the screen
      }
    }
  } finally {
    if (isScreen) print(SCREEN_END);
    Deno.removeSignalListener("SIGINT", onSignal);
    Deno.removeSignalListener("SIGTERM", onSignal);
  }
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function textFor({ records }: RecordsRead, previous?: RecordsRead): string {
  const columns = Deno.stdout.isTerminal() ? Deno.consoleSize().columns : undefined;
  const coloured = isColoured(Deno.stdout);
  return records.map((record, i) =>
    recordText(record, { coloured, columns, previous: previous?.records[i] })
  ).join("\n");
}

/** Puts records at the top of the screen, each with its share of it, and clears the rest. */
function screenful({ records }: RecordsRead, previous?: RecordsRead): string {
  const { rows, columns } = Deno.consoleSize();
  const coloured = isColoured(Deno.stdout);
  // The last line has the cursor
  const share = Math.floor((rows - 1) / records.length);
  const lines = records.flatMap((record, i) =>
    recordScreen(record, { rows: share, columns, coloured, previous: previous?.records[i] })
  );
  return `\x1b[H${lines.map((line) => `${line}\x1b[K\n`).join("")}\x1b[J`;
}

function print(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}
