/**
 * The section about traced accesses of the driver in the record's text.
 *
 * @module
 */

import type { TimelineEntry } from "../runtime/driver_trace.ts";
import { nameStatus } from "../virtio/mod.ts";
import { heading, type SectionContext } from "./record_section.ts";
import { type Cell, table } from "./table.ts";
import { formatCount } from "./units.ts";

/** Accesses of the timeline in the text. */
const SHOWN = 32;

const CONFIG_COLUMNS = [
  { title: "access" },
  { title: "offset", align: "right" },
  { title: "bytes", align: "right" },
  { title: "times", align: "right" },
  { title: "first" },
  { title: "last" },
  { title: "fields" },
] as const;

/** The driver's accesses, as a watch traced them: those to config space, then the latest of all. */
export function tracedSection(context: SectionContext): string[] {
  const { record: { traced }, ink, when } = context;
  if (traced === undefined) return [];
  const { config, others, since, until, isComplete, lost, timeline } = traced;
  const end = until === null || isComplete ? "" : ` to ${when(until)}`;
  const lines = [heading(context, "Driver's accesses", `traced from ${when(since)}${end}`)];
  if (lost > 0) lines.push(`  ${ink("red", `at least ${formatCount(lost)} were lost`)}`);
  if (config.length > 0) {
    const rows = config.map(({ access, offset, bytes, count, first, last, fields }): Cell[] => [
      access,
      hex(offset),
      String(bytes),
      formatCount(count),
      when(first),
      count > 1 ? when(last) : "",
      fields.join(" "),
    ]);
    lines.push(...table(CONFIG_COLUMNS, rows, { ink }));
  }
  if (others > 0) lines.push(ink("dim", `  ${formatCount(others)} more at other places`));
  const latest = timeline.latest.slice(-SHOWN);
  const dropped = timeline.total - latest.reduce((sum, { count }) => sum + count, 0);
  if (dropped > 0) lines.push(ink("dim", `  ${formatCount(dropped)} earlier ones are not shown`));
  const rows = latest.map((entry): Cell[] => [
    when(entry.at),
    [entry.access, entry.access === "write" ? "cyan" : entry.access === "event" ? "green" : "dim"],
    placeOf(entry),
    meaningOf(context, entry),
    entry.count > 1 ? [`${formatCount(entry.count)} times`, "dim"] : "",
    [entry.source === "traced" ? "" : entry.source, "dim"],
  ]);
  const columns = [{ title: "", align: "right" }, ...Array(5).fill({ title: "" })] as const;
  return [...lines, ...table(columns, rows, { ink, titles: false })];
}

function placeOf({ register, offset, bytes, index }: TimelineEntry): string {
  if (register === "config") return `config ${hex(offset)}/${bytes}`;
  const name = index === null ? register : `${register} ${index}`;
  return offset > 0 ? `${name} +${offset}` : name;
}

/** A value: by its names where it has some. */
function meaningOf({ record }: SectionContext, entry: TimelineEntry): string {
  const { register, value, index } = entry;
  if (register === "device_status") return `${value} ${nameStatus(Number(value)).join(" ")}`;
  if (register !== "device_feature" && register !== "driver_feature" || index === null) {
    return value;
  }
  const names = record.features.filter(({ bit }) =>
    bit >> 5 === index && Number(value) >>> (bit & 31) & 1
  ).map(({ name }) => name);
  return `${value} ${names.join(" ")}`;
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(2, "0")}`;
}
