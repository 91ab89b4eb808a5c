/**
 * Writes the record as text.
 *
 * All times are counted from the record's start, so that sections can be compared.
 *
 * @module
 */

import type { ErrorRecord, FeatureRecord, QueueRecord, RecordJson } from "../runtime/record.ts";
import { shownDeep } from "../runtime/shown.ts";
import { formatBytes } from "../virtio/format_bytes.ts";
import { makeInk, type Style } from "./ink.ts";
import { configSection, stepSection } from "./record_config_text.ts";
import { latencyTable } from "./record_latency_text.ts";
import { heading, LABEL_WIDTH, labelled, type SectionContext } from "./record_section.ts";
import { tracedSection } from "./record_trace_text.ts";
import { type Cell, table, wrap } from "./table.ts";
import { formatCount, formatDuration, formatRatio } from "./units.ts";

/** Settings of the text. */
export interface RecordTextOptions {
  /** @default {false} */
  coloured?: boolean;
  /** The width at which lists are wrapped, in characters. @default {100} */
  columns?: number;
  /** An earlier state of the record, for the rates of queues. */
  previous?: RecordJson;
  /** The sections, in this order. @default {all} */
  sections?: readonly SectionName[];
  /** Whether tables leave out columns that do not fit into `columns`. @default {false} */
  narrow?: boolean;
}

/** The sections of the text, in their order. */
const SECTIONS = {
  device: deviceSection,
  connections: connectionSection,
  features: featureSection,
  config: configSection,
  steps: stepSection,
  traced: tracedSection,
  status: statusSection,
  queues: queueSection,
  errors: errorSection,
  report: reportSection,
} as const;

/** The name of a section. */
export type SectionName = keyof typeof SECTIONS;

/** Writes a record as text, which ends in a line feed. */
export function recordText(record: RecordJson, options: RecordTextOptions = {}): string {
  const context: SectionContext = {
    record: shownDeep(record),
    previous: options.previous,
    ink: makeInk(options.coloured ?? false),
    columns: options.columns ?? 100,
    width: options.narrow ? options.columns : undefined,
    when: (at) => `+${formatDuration(at - record.since)}`,
  };
  const { sections = Object.keys(SECTIONS) as SectionName[] } = options;
  return sections.map((name) => SECTIONS[name](context)).filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n") + "\n").join("\n");
}

function deviceSection({ record, ink }: SectionContext): string[] {
  const { name, instance, id, about } = record.device;
  const title = instance === undefined ? name : `${name}/${instance}`;
  const since = new Date(record.since).toISOString().replace("T", " ").slice(0, 19);
  return [
    `${ink("bold", title)}  ${about} (virtio device ${id})`,
    ink("dim", `record of ${formatDuration(record.at - record.since)}, since ${since} UTC`),
  ];
}

function connectionSection(context: SectionContext): string[] {
  const { record: { connections }, ink, when, columns } = context;
  const { total, latest } = connections;
  if (total === 0) return [heading(context, "Connections", "none yet")];
  const first = total - latest.length + 1;
  const rows = latest.map((connection, i): Cell[] => {
    const { connectedAt, disconnectedAt, reason, frontend, messages } = connection;
    return [
      [`#${first + i}`, "dim"],
      frontend === null ? ["unknown process", "yellow"] : frontend.command,
      frontend === null ? "" : `pid ${frontend.pid}`,
      when(connectedAt),
      disconnectedAt === null
        ? ["connected", "green"]
        : `${formatDuration(disconnectedAt - connectedAt)} long`,
      `${formatCount(messages)} messages`,
      [reason ?? "", "dim"],
    ];
  });
  const lines = [
    heading(context, "Connections", total > latest.length ? `${total}, the latest:` : `${total}`),
    ...table(Array<{ title: string }>(7).fill({ title: "" }), rows, { ink, titles: false }),
  ];
  const { protocolFeatures = [] } = latest.at(-1) ?? {};
  if (protocolFeatures.length > 0) {
    const list = wrap(protocolFeatures, { width: columns, indent: LABEL_WIDTH });
    lines.push(labelled(context, "protocol", list));
  }
  return lines;
}

/** LOG_ALL and PROTOCOL_FEATURES, which no driver sees. */
const VHOST_BITS = [26, 30];

function featureSection(context: SectionContext): string[] {
  const { features } = context.record;
  const driver = features.filter(({ bit }) => !VHOST_BITS.includes(bit));
  const isNegotiated = driver.some(({ acknowledged }) => acknowledged !== null);
  const sources = [...new Set(features.map(({ source }) => source))].join(", ");
  const states: [string, Style, (feature: FeatureRecord) => boolean][] = isNegotiated
    ? [
      ["acknowledged", "green", ({ acknowledged }) => acknowledged === true],
      ["left", "yellow", ({ offered, acknowledged }) => offered && !acknowledged],
    ]
    : [["offered", "cyan", ({ offered }) => offered]];
  states.push(["not offered", "dim", ({ offered, acknowledged }) => !offered && !acknowledged]);

  const lines = [heading(context, "Features", isNegotiated ? sources : "not negotiated yet")];
  for (const [label, style, isIn] of states) {
    const those = driver.filter(isIn);
    if (those.length === 0 && label !== "left") continue;
    let title = label;
    if (those.length === 0) lines.push(labelled(context, label, context.ink("dim", "none")));
    for (const owner of ["device", "transport"] as const) {
      const own = those.filter((feature) => feature.owner === owner);
      if (own.length === 0) continue;
      lines.push(labelled(context, title, `${owner.padEnd(11)}${bitList(context, own, style)}`));
      title = "";
    }
  }
  const vhost = features.filter(({ bit }) => VHOST_BITS.includes(bit));
  if (vhost.length > 0) {
    const note = context.ink("dim", "with the front-end only");
    lines.push(labelled(context, "vhost", `${bitList(context, vhost, "dim")}  ${note}`));
  }
  return lines;
}

function bitList(context: SectionContext, features: readonly FeatureRecord[], style: Style) {
  const items = features.map(({ bit, name, offered, acknowledged }) => {
    const text = /^bit /.test(name) ? name : `${name}(${bit})`;
    // The framework refuses such a bit, so this would be a bug
    return acknowledged && !offered ? `${text}, not offered!` : text;
  });
  const indent = LABEL_WIDTH + 11;
  const wrapped = wrap(items, { width: context.columns, indent });
  // Line by line, so that the indent is not coloured
  return wrapped.split("\n").map((line) => {
    const text = line.trimStart();
    return " ".repeat(line.length - text.length) + context.ink(style, text);
  }).join("\n");
}

function statusSection(context: SectionContext): string[] {
  const { record: { status, connections }, ink, when } = context;
  if (status.timeline.length === 0 && connections.total === 0) {
    return [heading(context, "Status", "none yet")];
  }
  const lines = [heading(context, "Status", `${status.source}: ${status.note}`)];
  if (status.timeline.length === 0) lines.push(labelled(context, "", ink("dim", "none seen")));
  if (status.dropped > 0) lines.push(ink("dim", `  ${status.dropped} earlier ones are dropped`));
  const columns = [{ title: "", align: "right" }, ...Array(4).fill({ title: "" })] as const;
  const rows = status.timeline.map(({ at, status: value, names, source }, i): Cell[] => {
    const before = status.timeline[i - 1];
    const style = value & 0x80 ? "red" : value & 4 ? "green" : value === 0 ? "yellow" : "cyan";
    return [
      when(at),
      before === undefined ? "" : [`after ${formatDuration(at - before.at)}`, "dim"],
      `0x${value.toString(16).padStart(2, "0")}`,
      [names.join(" "), style],
      [source === status.source ? "" : source, "dim"],
    ];
  });
  return [...lines, ...table(columns, rows, { ink, titles: false })];
}

const QUEUE_COLUMNS = [
  { title: "#", align: "right" },
  { title: "queue" },
  { title: "size", align: "right", drop: 8 },
  { title: "state" },
  { title: "requests", align: "right" },
  { title: "per s", align: "right" },
  { title: "in flight", align: "right", drop: 1 },
  { title: "to device", align: "right", drop: 2 },
  { title: "to driver", align: "right", drop: 3 },
  { title: "kicks", align: "right", drop: 4 },
  { title: "/req", align: "right", drop: 6 },
  { title: "notified", align: "right", drop: 5 },
  { title: "/req", align: "right", drop: 7 },
  { title: "faults", align: "right" },
] as const;

function queueSection(context: SectionContext): string[] {
  const { record: { queues }, ink, when, width } = context;
  const used = queues.filter(isUsed);
  const lines = [heading(context, "Queues", queues.length === 0 ? "none" : "reported")];
  if (used.length > 0) {
    lines.push(
      ...table(QUEUE_COLUMNS, used.map((queue) => queueRow(context, queue)), { ink, width }),
    );
  }
  for (const [first, last] of runs(queues.filter((queue) => !isUsed(queue)), ({ name }) => name)) {
    const which = first.index === last.index ? `${first.index}` : `${first.index}–${last.index}`;
    lines.push(ink("dim", `  ${which}  ${first.name}  never started`));
  }
  lines.push(...latencyTable(context, used));
  for (const [first, last] of runs(used, recoveryText)) {
    const text = recoveryText(first);
    if (text === "") continue;
    const which = first.index === last.index ? `${first.index}` : `${first.index}–${last.index}`;
    lines.push(`  ${which}  ${text}`);
  }
  for (const { faults } of queues) {
    for (const fault of faults) lines.push(`  ${ink("red", faultText(fault, when))}`);
  }
  return lines;
}

function isUsed({ starts, requests, kicks, faults }: QueueRecord): boolean {
  return starts > 0 || requests > 0 || kicks > 0 || faults.length > 0;
}

function queueRow({ previous, record }: SectionContext, queue: QueueRecord): Cell[] {
  const { index, requests, kicks, notifications, inFlight, errors } = queue;
  const before = previous?.queues.find((other) => other.index === index);
  const seconds = previous === undefined ? 0 : (record.at - previous.at) / 1000;
  const rate = before === undefined || seconds <= 0 ? "" : formatCount(
    (requests - before.requests) / seconds,
  );
  const restarts: Cell = queue.starts > 1 ? ` (start ${queue.starts})` : "";
  const [state, style]: [string, Style] = queue.broken
    ? ["broken", "red"]
    : !queue.running
    ? ["stopped", "dim"]
    : queue.enabled
    ? ["running", "green"]
    : ["disabled", "yellow"];
  return [
    String(index),
    queue.name,
    String(queue.size),
    [state + restarts, style],
    formatCount(requests),
    rate,
    inFlight === 0 ? ["0", "dim"] : String(inFlight),
    formatBytes(queue.bytesRead),
    formatBytes(queue.bytesWritten),
    formatCount(kicks),
    [formatRatio(kicks, requests), "dim"],
    formatCount(notifications),
    [formatRatio(notifications, requests), "dim"],
    errors === 0 ? ["0", "dim"] : [formatCount(errors), "red"],
  ];
}

/** The in-flight records for the next back-end, and the resumed requests. */
function recoveryText({ tracked, resumed, resubmitted }: QueueRecord): string {
  const parts = [
    ...tracked ? ["in-flight requests are recorded for another back-end"] : [],
    ...resumed ? ["resumed a ring that was in use before"] : [],
    ...resubmitted > 0 ? [`${formatCount(resubmitted)} requests submitted again`] : [],
  ];
  return parts.join("; ");
}

/** The first and last queue of each run of neighbouring indexes with the same key. */
function runs(
  queues: readonly QueueRecord[],
  key: (queue: QueueRecord) => string,
): [first: QueueRecord, last: QueueRecord][] {
  const result: [QueueRecord, QueueRecord][] = [];
  for (const queue of queues) {
    const run = result.at(-1);
    const isAlike = run !== undefined && key(run[1]) === key(queue);
    if (isAlike && run[1].index === queue.index - 1) run[1] = queue;
    else result.push([queue, queue]);
  }
  return result;
}

function errorSection(context: SectionContext): string[] {
  const { record: { errors }, ink, when } = context;
  if (errors.total === 0) return [heading(context, "Errors", "none")];
  const shown = errors.total > errors.latest.length ? ", the latest:" : "";
  return [
    heading(context, "Errors", `${errors.total} refused${shown}`),
    ...errors.latest.map((error) => `  ${ink("red", faultText(error, when))}`),
  ];
}

function faultText(fault: ErrorRecord, when: (at: number) => string): string {
  const where = fault.queue === null ? "" : `  queue ${fault.queue}`;
  const section = fault.section === null ? "" : ` (${fault.section})`;
  // Many messages begin with the rule's name
  const rule = section === "" && fault.message.startsWith(fault.rule)
    ? ""
    : `${fault.rule}${section}: `;
  return `${when(fault.at)}${where}  ${rule}${fault.message}`;
}

function reportSection(context: SectionContext): string[] {
  const entries = Object.entries(context.record.report);
  if (entries.length === 0) return [];
  const names = entries.map(([name]) => [name]);
  const width = Math.max(...names.map(([name]) => name.length));
  return [
    heading(context, "Device"),
    ...entries.flatMap(([, value], i) => {
      const [first, ...more] = valueLines(value);
      const label = context.ink("dim", names[i][0].padEnd(width));
      return [`  ${label}  ${first}`, ...more.map((line) => `  ${" ".repeat(width)}  ${line}`)];
    }),
  ];
}

/** The lines of a value in the report: one, or one per object in a list. */
function valueLines(value: unknown): string[] {
  if (Array.isArray(value) && value.some((item) => typeof item === "object" && item !== null)) {
    return value.map(valueText);
  }
  return [valueText(value)];
}

function valueText(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) return value.length === 0 ? "none" : value.map(valueText).join(", ");
  if (typeof value === "object") {
    if (Object.keys(value).length === 0) return "none";
    return Object.entries(value).map(([name, inner]) => {
      const text = typeof inner === "object" ? `(${valueText(inner)})` : valueText(inner);
      return `${name} ${text}`;
    }).join(", ");
  }
  return String(value);
}
