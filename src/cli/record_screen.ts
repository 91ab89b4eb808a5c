/**
 * Lays a record out for a screen: it fits, and sections that change come first.
 *
 * @module
 */

import type { QueueRecord, RecordJson } from "../runtime/record.ts";
import { recordText, type SectionName } from "./record_text.ts";

/** A screen, with its last content. */
export interface ScreenOptions {
  /** The width and height, in characters. */
  columns: number;
  rows: number;
  /** @default {false} */
  coloured?: boolean;
  /** The last record that was shown. */
  previous?: RecordJson;
}

/** Sections that change come first; those that are settled early come last, and may not fit. */
const ORDER: readonly SectionName[] = [
  "device",
  "queues",
  "errors",
  "report",
  "steps",
  "status",
  "connections",
  "config",
  "features",
];

/** Number of the latest changes of status, errors and connections to show. */
const LATEST = 3;

/** Number of the driver's latest steps in config space to show. */
const LATEST_STEPS = 8;

/** Lines that are kept for the sections below the queues. */
const BELOW_QUEUES = 12;

/** The smallest number of queues to show. */
const MIN_QUEUES = 4;

/** Lays a record out in at most `rows` lines. */
export function recordScreen(record: RecordJson, options: ScreenOptions): string[] {
  const { columns, rows, coloured, previous } = options;
  const most = Math.max(MIN_QUEUES, rows - BELOW_QUEUES);
  const queues = busiest(record, previous, most);
  const { config } = record;
  const text = recordText({
    ...record,
    queues,
    config: { ...config, steps: config.steps && latestSteps(config.steps) },
    connections: { ...record.connections, latest: record.connections.latest.slice(-1) },
    errors: { ...record.errors, latest: record.errors.latest.slice(-LATEST) },
    status: { ...record.status, timeline: record.status.timeline.slice(-LATEST) },
  }, { coloured, columns, previous, sections: ORDER, narrow: true });
  const lines = text.trimEnd().split("\n");
  if (lines.length <= rows) return lines;
  return [...lines.slice(0, rows - 1), `… ${lines.length - rows + 1} lines more`];
}

function latestSteps(steps: RecordJson["config"]["steps"]): RecordJson["config"]["steps"] {
  return { ...steps, latest: steps.latest.slice(-LATEST_STEPS) };
}

/** The busiest queues in the order of their indexes, each with its last fault. */
function busiest(
  record: RecordJson,
  previous: RecordJson | undefined,
  most: number,
): QueueRecord[] {
  const before = new Map(previous?.queues.map(({ index, requests }) => [index, requests]));
  const moved = ({ index, requests }: QueueRecord) => requests - (before.get(index) ?? 0);
  return [...record.queues]
    .sort((a, b) => Number(b.broken) - Number(a.broken) || moved(b) - moved(a) || a.index - b.index)
    .slice(0, most)
    .sort((a, b) => a.index - b.index)
    .map((queue) => ({ ...queue, faults: queue.faults.slice(-1) }));
}
