/** The report, and its text as Markdown for people and for the README. */
import { PROCESSORS, type Processors } from "./awake.ts";
import type { CellResult, GoalResult, SideResult } from "./compare.ts";
import type { Collections, Resident, RngResult } from "./extras.ts";
import type { IndependentResult } from "./independent.ts";
import type { LowRate } from "./low_rates.ts";
import type { Machine } from "./machine.ts";
import type { Summary } from "./statistics.ts";
import { type Goal, goals, goalText, isMet } from "./goals.ts";

/** What is measured beside the cells; what could not be is missing. */
export interface Extras {
  startUpMs?: { own: Summary; peer: Summary };
  residentBytes?: { own: Resident; peer: Resident };
  collections?: Collections;
  rng?: RngResult[];
  /** Processor time while little is asked for. */
  lowRates?: LowRate[];
  /** What a load generator that is none of ours finds. */
  independent?: IndependentResult[];
  /** Nanoseconds per request of the load generator with an echo, by queue depth. */
  generatorNs?: Record<number, Summary>;
}

/** A result of `deno task bench`, as `--json` prints it. */
export interface Report {
  version: 2;
  date: string;
  machine: Machine;
  runs: number;
  seconds: number;
  /** How long it takes to wake a thread, in microseconds, by what processors do meanwhile. */
  wakeUpUs: Partial<Record<Processors, number>>;
  chains: "direct" | "indirect";
  /** How system calls were counted; missing where they were not. */
  systemCalls?: string;
  cells: CellResult[];
  extras: Extras;
  /** What could not be measured, and why. */
  failures: { what: string; reason: string }[];
}

export function markdown(report: Report): string {
  return [
    head(report),
    ...(Object.keys(PROCESSORS) as Processors[]).flatMap((processors) => {
      const cells = report.cells.filter((cell) => cell.processors === processors);
      return cells.length > 0 ? [world(processors, report), cellTable(cells)] : [];
    }),
    ...report.cells.length > 0 ? [notes(report)] : [],
    independentTable(report),
    lowRateTable(report),
    extraTable(report),
    report.failures.map(({ what, reason }) => `- ${what} could not be measured: ${reason}`)
      .join("\n"),
  ].filter((part) => part !== "").join("\n\n") + "\n";
}

/** Rows with columns as wide as what is in them. */
export function table(rows: readonly (readonly string[])[]): string {
  const [head] = rows;
  const widths = head.map((_, i) => Math.max(3, ...rows.map((row) => row[i].length)));
  const line = (row: readonly string[]) =>
    `| ${
      row.map((text, i) => i === 0 ? text.padEnd(widths[i]) : text.padStart(widths[i])).join(" | ")
    } |`;
  const rule = `| ${
    widths.map((width, i) => "-".repeat(width - (i && 1)) + (i ? ":" : "")).join(" | ")
  } |`;
  return [line(head), rule, ...rows.slice(1).map(line)].join("\n");
}

/** What heads the cells that were measured in one world. */
function world(processors: Processors, { wakeUpUs }: Report): string {
  const text = PROCESSORS[processors];
  const us = wakeUpUs[processors];
  return `${text[0].toUpperCase()}${text.slice(1)}${
    us === undefined ? "" : `; waking a thread takes ${digits(us)} µs`
  }:`;
}

function head({ date, machine, runs, seconds, chains }: Report): string {
  const { processor, cores, memoryBytes, kernel, disk, loadAverage, versions } = machine;
  return `Measured on ${date.slice(0, 16).replace("T", " ")} UTC: ${processor}, ${cores} cores, ${
    Math.round(memoryBytes / 2 ** 30)
  } GiB; ${kernel}; disk: ${disk}; load average before: ${
    loadAverage.toFixed(2)
  }. vhostd ${versions.vhostd} on Deno ${versions.deno} (V8 ${versions.v8}), qemu-storage-daemon ${
    versions.peers.join(" and ")
  }. Medians of ${runs} ${
    runs === 1 ? "run" : "runs"
  } of ${seconds} s each; the load generator sleeps until it is notified, in cells that end in client-polls it polls; its chains are ${chains}. A disk on tmpfs is read once before.`;
}

function cellTable(cells: readonly CellResult[]): string {
  const hasOlder = cells.some(({ older }) => older.length > 0);
  return table([
    [
      ...["cell", "against", "IOPS", "ratio", "CPU µs/req", "ratio", "p50 µs", "p99 µs"],
      ...["syscalls/req", "goals"],
      ...hasOlder ? ["older peer: IOPS, CPU"] : [],
    ],
    ...cells.map((cell) => {
      const { subject, reference } = cell;
      const both = (pick: (side: SideResult) => string) => `${pick(subject)} / ${pick(reference)}`;
      return [
        cell.name,
        against(cell),
        both(({ iops }) => thousands(iops.median)),
        ratioText(cell.iopsRatio),
        both(({ cpuUs }) => digits(cpuUs.median)),
        ratioText(cell.cpuRatio),
        both(({ p50Us }) => digits(p50Us.median)),
        both(({ p99Us }) => digits(p99Us.median)),
        both(({ systemCalls }) => systemCalls ? digits(systemCalls.median) : "–"),
        goalsText(cell),
        ...hasOlder
          ? [
            cell.older.map(({ reference, iopsRatio, cpuRatio }) =>
              `${reference.name.split(" ").pop()}: ${iopsRatio.median.toFixed(2)}, ${
                cpuRatio.median.toFixed(2)
              }`
            ).join("; "),
          ]
          : [],
      ];
    }),
  ]);
}

/** What the subject is compared with. */
function against({ subject, reference }: CellResult): string {
  if (reference.name !== subject.name) return reference.mode;
  const { queues, depth, isPacked, hasRecord, pollUs } = reference.drive;
  const { drive } = subject;
  if (drive.typescript !== undefined) return "our --null";
  if (drive.isPacked && !isPacked) return "our split";
  if (drive.hasRecord && !hasRecord) return "ours, no record";
  if (drive.pollUs === undefined && pollUs === 0) return "ours that never polls";
  return `our ${queues} × QD ${depth}`;
}

/** A ratio with the least and most of all pairs. */
export function ratioText({ median, least, most }: Summary): string {
  return `${median.toFixed(2)} (${least.toFixed(2)}–${most.toFixed(2)})`;
}

function goalsText({ goals }: CellResult): string {
  const labels = { iops: "IOPS", cpu: "CPU", systemCalls: "syscalls" };
  return (Object.keys(labels) as (keyof typeof labels)[]).flatMap((name) => {
    const goal = goals[name];
    return goal ? [`${labels[name]} ${outcome(goal)}`] : [];
  }).join(", ");
}

function outcome({ is, limit, isMet }: GoalResult): string {
  return `${goalText({ is, limit } as Goal)} ${isMet ? "met" : "**not met**"}`;
}

function notes({ systemCalls }: Report): string {
  return [
    "Pairs are ours / what it is compared with; ratios have the least and most of all pairs. " +
    "CPU is the back-end process's processor time, all threads, by the scheduler's own clock.",
    systemCalls
      ? `System calls of the back-end are ${systemCalls}.`
      : "System calls were not counted: neither perf nor strace can here.",
  ].join(" ");
}

function independentTable({ extras: { independent = [] } }: Report): string {
  if (independent.length === 0) return "";
  const rows = independent.map(({ name, iops, cpuUs }) => [
    name,
    `${thousands(iops.own.median)} / ${thousands(iops.peer.median)}`,
    ratioText(iops.ratio),
    `${digits(cpuUs.own.median)} / ${digits(cpuUs.peer.median)}`,
    ratioText(cpuUs.ratio),
  ]);
  return [
    "By an independent client, `qemu-img bench` through libblkio, one block after the other, on processors that may sleep:",
    table([["load", "IOPS", "ratio", "CPU µs/req", "ratio"], ...rows]),
  ].join("\n\n");
}

function lowRateTable({ extras: { lowRates = [] } }: Report): string {
  if (lowRates.length === 0) return "";
  const rows = lowRates.map(({ rate, polling, sleeping }) => {
    const { idlePercent: goal } = goals;
    const met = isMet(goal, polling.percent - sleeping.percent);
    return [
      String(rate),
      `${polling.iops.toFixed(0)} / ${sleeping.iops.toFixed(0)}`,
      ...[polling, sleeping].map(({ percent }) => `${percent.toFixed(2)} %`),
      rate === 0 ? `${outcome({ ...goal, isMet: met })} (more, in %)` : "",
    ];
  });
  return [
    "Processor time at low rates, of vhostd with a null store, in percent of a core:",
    table([["requests/s", "reached", "polls (default)", "never polls", "goal"], ...rows]),
  ].join("\n\n");
}

function extraTable({ extras, cells }: Report): string {
  const { startUpMs, residentBytes, collections, rng = [], generatorNs } = extras;
  const rows: string[][] = [];
  const add = (what: string, own: string, peer = "", goal?: Goal, value = 0) =>
    rows.push([what, own, peer, goal ? outcome({ ...goal, isMet: isMet(goal, value) }) : ""]);
  if (startUpMs) {
    const { own, peer } = startUpMs;
    const text = ({ median, least, most }: Summary) =>
      `${median.toFixed(0)} ms (${least.toFixed(0)}–${most.toFixed(0)})`;
    add("start to listening socket", text(own), text(peer), goals.startUpMs, own.median);
  }
  if (residentBytes) {
    const { own, peer } = residentBytes;
    const text = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;
    for (const [name, what] of [["idle", "idle"], ["loaded", "under load"]] as const) {
      add(
        `resident memory, ${what}`,
        ...[text(own[name]), text(peer[name])] as const,
        ...[goals.residentMb, own[name] / 1e6] as const,
      );
    }
  }
  if (collections) {
    const { perMillion, requests } = collections;
    const text = `${perMillion.toFixed(2)} (of ${(requests / 1e6).toFixed(1)} million)`;
    add("garbage collections per million requests", text, "", goals.collections, perMillion);
  }
  for (const { bytes, megabytesPerSecond, cpuUs } of rng) {
    add(
      `rng, requests of ${bytes} bytes, QD 32`,
      `${digits(megabytesPerSecond.median)} MB/s, ${digits(cpuUs.median)} µs CPU/req`,
    );
  }
  for (const [depth, { median }] of Object.entries(generatorNs ?? {})) {
    add(
      `load generator with a trivial echo, QD ${depth}`,
      `${median.toFixed(0)} ns/req, ${thousands(1e9 / median)} IOPS`,
    );
  }
  if (generatorNs && cells.length > 0) {
    const most = cells.reduce((a, b) => a.subject.iops.median > b.subject.iops.median ? a : b);
    add(
      `load generator, CPU in ${most.name}`,
      `${digits(most.subject.loadUs.median)} µs/req`,
      `${digits(most.reference.loadUs.median)} µs/req`,
    );
  }
  if (rows.length === 0) return "";
  return table([["beside the cells", "vhostd", "qemu-storage-daemon", "goal"], ...rows]);
}

/** `123 k`, `1.23 M`. */
export function thousands(count: number): string {
  if (count >= 999_500) return `${(count / 1e6).toFixed(2)} M`;
  if (count >= 99_950) return `${(count / 1e3).toFixed(0)} k`;
  return `${(count / 1e3).toFixed(1)} k`;
}

/** Three digits, as far as they are behind the point. */
export function digits(value: number): string {
  if (value >= 99.95) return value.toFixed(0);
  if (value >= 9.995) return value.toFixed(1);
  return value >= 0.0995 || value === 0 ? value.toFixed(2) : value.toFixed(3);
}
