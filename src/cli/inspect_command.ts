/**
 * `vhostd inspect`: shows a record.
 *
 * @module
 */

import type { RecordJson } from "../runtime/record.ts";
import { shownJson } from "../runtime/shown.ts";
import { parseArguments } from "./arguments.ts";
import type { CommandShape } from "./command.ts";
import { commandHelp } from "./help.ts";
import { isColoured } from "./ink.ts";
import { openRecordSource, type RecordSource } from "./record_file.ts";
import { recordScreen } from "./record_screen.ts";
import { recordText } from "./record_text.ts";
import { helpOption } from "./shared_options.ts";
import { UsageError } from "./usage_error.ts";

const options = {
  watch: { type: "flag", about: "Keep it current, until SIGINT or until the server is gone" },
  json: { type: "flag", about: "As JSON; with --watch, one record per line" },
  ...helpOption,
} as const;

/** What may follow it. */
export const shape: CommandShape = { options, operand: "file" };

const USAGE = "inspect PATH [--watch] [--json]";

const ABOUT =
  "Shows what a front-end and the guest's driver did with a device. PATH is a control " +
  "socket (--control-path) or a file that --record wrote.";

/** How often a watched record is read. */
const WATCH_PERIOD_MS = 1000;

/** Clears the screen; lines that are too long are cut, so that they do not move others. */
const SCREEN_BEGIN = "\x1b[2J\x1b[?7l\x1b[?25l";

/** Lets lines wrap again, and shows the cursor. */
const SCREEN_END = "\x1b[?7h\x1b[?25h";

/** Shows a record. */
export async function run(args: readonly string[]): Promise<number> {
  const { values, positional } = parseArguments(args, options, "vhostd inspect --help");
  if (values.help) {
    console.log(commandHelp(USAGE, ABOUT, options).trimEnd());
    return 0;
  }
  if (positional.length !== 1) {
    throw new UsageError(
      `Expected the path of a control socket or a record file, got ${
        positional.length || "none"
      }; vhostd ${USAGE}`,
    );
  }
  using source = await openRecordSource(positional[0]);
  const record = await source.read();
  if (values.watch) {
    await watch(source, record, values.json === true);
  } else {
    print(values.json ? `${shownJson(record, 2)}\n` : textFor(record));
  }
  return 0;
}

/** Shows a record again and again; a terminal keeps the last state on its screen. */
async function watch(source: RecordSource, first: RecordJson, json: boolean): Promise<void> {
  const stop = Promise.withResolvers<"stop">();
  const onSignal = () => stop.resolve("stop");
  Deno.addSignalListener("SIGINT", onSignal);
  Deno.addSignalListener("SIGTERM", onSignal);
  const isScreen = !json && Deno.stdout.isTerminal();
  let record = first;
  let previous: RecordJson | undefined;
  if (isScreen) print(SCREEN_BEGIN);
  try {
    for (;;) {
      if (isScreen) print(screenful(record, previous));
      else print(json ? `${shownJson(record)}\n` : `${textFor(record, previous)}\n`);
      if (await Promise.race([stop.promise, later(WATCH_PERIOD_MS)]) === "stop") return;
      previous = record;
      try {
        record = await source.read();
      } catch (error) {
        if (!source.isLive) throw error;
        return; // The server is gone; what is shown is the last that it said.
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

function textFor(record: RecordJson, previous?: RecordJson): string {
  const columns = Deno.stdout.isTerminal() ? Deno.consoleSize().columns : undefined;
  return recordText(record, { coloured: isColoured(Deno.stdout), columns, previous });
}

/** Puts a record at the top of the screen, and clears the rest. */
function screenful(record: RecordJson, previous?: RecordJson): string {
  const { rows, columns } = Deno.consoleSize();
  const coloured = isColoured(Deno.stdout);
  // The line below the last one has the cursor.
  const lines = recordScreen(record, { rows: rows - 1, columns, coloured, previous });
  return `\x1b[H${lines.map((line) => `${line}\x1b[K\n`).join("")}\x1b[J`;
}

function print(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}
