/**
 * `vhostd compare`: compares two records.
 *
 * @module
 */

import { shown, shownJson } from "../runtime/shown.ts";
import type { CommandShape } from "./command.ts";
import { EXIT_FAILURE } from "./failure.ts";
import { type CommandLine, parseCommand } from "./help.ts";
import { isColoured, makeInk } from "./ink.ts";
import { openRecordSource, type RecordsRead } from "./record_file.ts";
import { differencesOf, type Fact, type FactDifference, factsOf } from "./record_facts.ts";
import { helpOption } from "./shared_options.ts";
import { table } from "./table.ts";
import { UsageError } from "./usage_error.ts";

const options = {
  counts: { type: "flag", about: "Compare counters too, such as requests and reads of a field" },
  json: { type: "flag", about: "As JSON" },
  ...helpOption,
} as const;

/** For completion. */
export const shape: CommandShape = { options, operand: "file" };

const COMMAND: CommandLine = {
  usage: "compare A B [--counts] [--json]",
  about: `Shows what one driver negotiated, read or did with a device that another did not: two \
kernels, two drivers, two versions of a device. A and B are control sockets (--control-path) or \
files that --record wrote. Times, processes and counters are not compared: a queue had requests \
or not, a field was read or not.

Exits with 0 if the records are equal, 1 if they differ, 2 if one cannot be read.`,
  options,
  operand: "two records, each a control socket or a record file",
  operands: 2,
};

/** Compares two records. */
export async function run(args: readonly string[]): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const { values, operands: [pathA, pathB] } = parsed;
  const [a, b] = await Promise.all(
    [pathA, pathB].map((path) => read(path, values.counts === true)),
  );
  const differences = differencesOf(a, b);
  const equal = a.length - differences.filter(({ a }) => a !== null).length;
  if (values.json) {
    console.log(shownJson({ a: pathA, b: pathB, equal, differences }, 2));
  } else {
    console.log(text(pathA, pathB, differences, equal));
  }
  return differences.length === 0 ? 0 : EXIT_FAILURE;
}

/** The facts of a record, or of those of several instances. */
async function read(path: string, counts: boolean): Promise<Fact[]> {
  try {
    const source = await openRecordSource(path);
    return allFacts(await source.read(), counts);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new UsageError((cause as Error).message, { cause });
  }
}

function allFacts({ records }: RecordsRead, counts: boolean): Fact[] {
  if (records.length === 1) return factsOf(records[0], counts);
  return records.flatMap((record, i) =>
    factsOf(record, counts).map(({ subject, value }) => ({
      subject: `${record.device.instance ?? i}: ${subject}`,
      value,
    }))
  );
}

function text(
  pathA: string,
  pathB: string,
  differences: readonly FactDifference[],
  equal: number,
): string {
  if (differences.length === 0) return `Equal: ${equal} facts`;
  const columns = [{ title: "" }, { title: "A" }, { title: "B" }];
  const cell = (value: string | null) => value === null ? "-" : shown(value);
  const rows = differences.map(({ subject, a, b }) => [shown(subject), cell(a), cell(b)]);
  return [
    `A  ${shown(pathA)}`,
    `B  ${shown(pathB)}`,
    "",
    ...table(columns, rows, { ink: makeInk(isColoured(Deno.stdout)), indent: "" }),
    "",
    `${differences.length} different, ${equal} equal`,
  ].join("\n");
}
