/** What a soak found, as text. */
import { makeInk } from "../../src/cli/ink.ts";
import { table } from "../../src/cli/table.ts";
import { LEAK, type Process } from "./processes.ts";
import { type Mark, type Tally, total } from "./actor.ts";

const MIB = 2 ** 20;

/** The most rows of the table over time. */
const MAX_ROWS = 12;

/** All processes of ours together, at a moment. */
export interface Moment {
  atS: number;
  /** Requests that have come back until now. */
  requests: number;
  residentBytes: number;
  fds: number;
  threads: number;
}

export interface Report {
  version: number;
  date: string;
  seed: number;
  /** The command that does the same once more. */
  command: string;
  seconds: number;
  tallies: readonly Tally[];
  moments: readonly Moment[];
  marks: readonly Mark[];
  processes: readonly Process[];
  /** What is wrong, in a line each; none if nothing is. */
  findings: readonly string[];
}

export function describe(report: Report): string {
  const { tallies, seconds, seed, command, findings } = report;
  const faults = new Map<string, number>();
  for (const [kind, count] of tallies.flatMap((tally) => [...tally.faults])) {
    faults.set(kind, (faults.get(kind) ?? 0) + count);
  }
  return [
    `Soak of ${seconds.toFixed(0)} s, seed ${seed}: ${
      total(tallies, ({ requests }) => requests)
    } requests done, ${total(tallies, ({ faultCount }) => faultCount)} faults injected, ${
      (total(tallies, ({ checkedBytes }) => checkedBytes) / MIB).toFixed(0)
    } MiB checked`,
    "",
    ...columns(
      ["device", "requests", "refused", "MiB checked", "faults", "pause p50", "p99", "most"],
      tallies.map((tally) => [
        tally.name,
        `${tally.requests}`,
        `${tally.refused}`,
        (tally.checkedBytes / MIB).toFixed(1),
        `${tally.faultCount}`,
        ...[0.5, 0.99, 1].map((part) => milliseconds(tally.pausesMs, part)),
      ]),
    ),
    "",
    ...columns(["fault", "times"], [...faults].sort().map(([kind, count]) => [kind, `${count}`])),
    "",
    ...columns(
      ["second", "requests/s", "MiB resident", "descriptors", "threads"],
      rowsOverTime(report),
    ),
    "",
    ...columns(
      ["process", "lives", "MiB first", "MiB last", "most", "descriptors", "threads"],
      rowsOfProcesses(report),
    ),
    "",
    ...findings.length === 0
      ? [
        `Nothing wrong. Memory is flat: no process that lived ${LEAK.leastSamples} s had in its ` +
        `last quarter a median of more than ${LEAK.memoryPart * 100} % and ` +
        `${LEAK.memoryBytes / MIB} MiB above that of its third quarter, nor more than ` +
        `${LEAK.fds} descriptors or ${LEAK.threads} threads above.`,
      ]
      : [...findings.map((finding) => `WRONG: ${finding}`), `repeat it by: ${command}`],
  ].join("\n");
}

function rowsOverTime({ moments }: Report): string[][] {
  const step = Math.max(1, Math.ceil(moments.length / MAX_ROWS));
  const rows: string[][] = [];
  for (let at = step - 1, before = 0; at < moments.length; before = at, at += step) {
    const { atS, requests, residentBytes, fds, threads } = moments[at];
    const from = moments[before];
    const rate = at === before ? requests / atS : (requests - from.requests) / (atS - from.atS);
    rows.push([
      atS.toFixed(0),
      rate.toFixed(0),
      (residentBytes / MIB).toFixed(0),
      `${fds}`,
      `${threads}`,
    ]);
  }
  return rows;
}

function rowsOfProcesses({ processes }: Report): string[][] {
  const byName = Map.groupBy(
    processes.filter(({ samples }) => samples.length > 0),
    ({ name }) => name,
  );
  return [...byName].map(([name, all]) => {
    const samples = all.flatMap(({ samples }) => samples);
    const mib = (bytes: number) => (bytes / MIB).toFixed(0);
    const most = (of: (sample: typeof samples[number]) => number) => Math.max(...samples.map(of));
    return [
      name,
      `${processes.filter((process) => process.name === name).length}`,
      mib(samples[0].residentBytes),
      mib(samples.at(-1)!.residentBytes),
      mib(most(({ residentBytes }) => residentBytes)),
      `${most(({ fds }) => fds)}`,
      `${most(({ threads }) => threads)}`,
    ];
  });
}

function milliseconds(values: readonly number[], part: number): string {
  if (values.length === 0) return "";
  const sorted = [...values].sort((a, b) => a - b);
  return `${sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))].toFixed(0)} ms`;
}

/** Columns: the first to the left, the others to the right. */
function columns([first, ...others]: string[], rows: string[][]): string[] {
  const right = others.map((title) => ({ title, align: "right" }) as const);
  return table([{ title: first }, ...right], rows, { ink: makeInk(false), indent: "" });
}
