/**
 * The section about config space in the record's text.
 *
 * @module
 */

import type { ConfigObservation } from "../virtio/config/observation.ts";
import type { RecordJson } from "../runtime/record.ts";
import { heading, LABEL_WIDTH, labelled, type SectionContext } from "./record_section.ts";
import { type Cell, table, wrap } from "./table.ts";
import { formatCount } from "./units.ts";

const COLUMNS = [
  { title: "field" },
  { title: "reads", align: "right" },
  { title: "first" },
  { title: "last" },
  { title: "writes", align: "right" },
  { title: "changes", align: "right" },
  { title: "first" },
  { title: "last" },
  { title: "refused", align: "right" },
  { title: "used" },
  { title: "first" },
  { title: "last" },
  { title: "bits" },
  { title: "feature" },
] as const;

/** The driver's accesses to each field of config space. */
export function configSection(context: SectionContext): string[] {
  const { record: { config }, ink, columns } = context;
  if (config.layout === null) return [heading(context, "Config space", "none")];
  const { fields, reads, writes } = config;
  const touched = fields.filter(isTouched);
  const shows = {
    reads: reads.source !== "not observable" || touched.some((field) => field.reads > 0),
    writes: touched.some((field) => field.writes > 0),
  };
  const lines = [heading(context, "Config space", `${config.layout}, ${config.bytes} bytes`)];
  if (context.record.connections.total > 0) {
    lines.push(labelled(context, "reads", known(context, reads)));
    lines.push(labelled(context, "writes", known(context, writes)));
  }
  if (touched.length > 0) {
    const rows = mergeAlike(touched).map((field) => configRow(context, field, shows));
    lines.push(...table(COLUMNS, rows, { ink }));
  }
  const others = fields.filter((field) => !isTouched(field)).map(({ name }) => name);
  if (others.length > 0) {
    const list = wrap(others, { width: columns, indent: LABEL_WIDTH });
    lines.push(labelled(context, "untouched", list));
  }
  return lines;
}

/** The driver's steps in a self-describing space, in their order. */
export function stepSection(context: SectionContext): string[] {
  // The record file of an older version has none
  const { source, total, latest } = context.record.config.steps ?? { total: 0 };
  if (total === 0) return [];
  const { ink, when } = context;
  const shown = total > latest.length ? `, the latest of ${formatCount(total)}:` : "";
  const rows = latest.map(({ at, field, step, bits }): Cell[] => [
    when(at),
    field ?? "",
    [step, step === "reset" ? "yellow" : "green"],
    [bits.join(" "), bits.includes("FAILED") ? "red" : "cyan"],
  ]);
  const columns = [{ title: "", align: "right" }, ...Array(3).fill({ title: "" })] as const;
  return [
    heading(context, "Driver's steps", `${source}${shown}`),
    ...table(columns, rows, { ink, titles: false }),
  ];
}

/** Merges neighbouring members of a group with equal observations into one: `geometry.*`. */
function mergeAlike(fields: readonly ConfigObservation[]): ConfigObservation[] {
  const result: ConfigObservation[] = [];
  for (const field of fields) {
    const last = result.at(-1);
    const name = `${field.name.replace(/[.[].*$/, "")}.*`;
    const isMember = name !== `${field.name}.*` && last?.name.replace(/[.[].*$/, ".*") === name;
    if (isMember && isAlike(last, field)) result[result.length - 1] = { ...last, name };
    else result.push(field);
  }
  return result;
}

/** Whether two observations differ only in the name. */
function isAlike(a: ConfigObservation, b: ConfigObservation): boolean {
  return JSON.stringify({ ...a, name: "" }) === JSON.stringify({ ...b, name: "" });
}

/** Whether a field has anything to show. */
function isTouched({ reads, writes, refused, used }: ConfigObservation): boolean {
  return reads + writes + refused > 0 || used !== null;
}

function known({ ink }: SectionContext, { source, note }: RecordJson["config"]["reads"]): string {
  return `${ink(source === "reported" || source === "traced" ? "green" : "yellow", source)}${
    ink("dim", `: ${note}`)
  }`;
}

function configRow(
  context: SectionContext,
  field: ConfigObservation,
  shows: { reads: boolean; writes: boolean },
): Cell[] {
  const time = (at: number | null): Cell => at === null ? "" : context.when(at);
  // With one access the last time is the first
  const last = (count: number, at: number | null): Cell => count > 1 ? time(at) : "";
  const count = (shown: boolean, n: number): Cell =>
    !shown ? "" : n === 0 ? ["–", "dim"] : formatCount(n);
  const { name, reads, writes, changes, refused, used } = field;
  return [
    reads + writes > 0 || used ? name : [name, "dim"],
    count(shows.reads, reads),
    time(field.firstRead),
    last(reads, field.lastRead),
    count(shows.writes, writes),
    count(shows.writes, changes),
    time(field.firstWrite),
    last(writes, field.lastWrite),
    refused === 0 ? "" : [formatCount(refused), "red"],
    used === null ? "" : used ? ["used", "green"] : ["not used", "dim"],
    time(field.firstUsed),
    field.lastUsed === field.firstUsed ? "" : time(field.lastUsed),
    bits(field),
    feature(context, field),
  ];
}

/** The acknowledged bits of a bit field, and the offered others. */
function bits({ acknowledged, left }: ConfigObservation): string {
  const taken = acknowledged === null || acknowledged.length === 0 ? [] : [acknowledged.join(" ")];
  const rest = left === null || left.length === 0 ? [] : [`left: ${left.join(" ")}`];
  return [...taken, ...rest].join("; ");
}

/** The feature that makes a field meaningful, with its state. */
function feature({ record }: SectionContext, { feature }: ConfigObservation): Cell {
  if (feature === null) return "";
  const bit = record.features.find(({ name }) => name === feature);
  if (bit === undefined || bit.acknowledged === null) return feature;
  if (bit.acknowledged) return [feature, "green"];
  return [`${feature} (${bit.offered ? "left" : "not offered"})`, "dim"];
}
