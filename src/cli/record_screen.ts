/**
 * A record on a screen that somebody watches: what moves comes first, and all of it fits.
 *
 * @module
 */

import type { QueueRecord, RecordJson } from "../runtime/record.ts";
import { recordText, type SectionName } from "./record_text.ts";

/** A screen, and what was on it before. */
export interface ScreenOptions {
  /** Its width and height, in characters. */
  columns: number;
  rows: number;
  /** @default {false} */
  coloured?: boolean;
  /** The state that was shown last. */
  previous?: RecordJson;
}

/** What moves comes first; what was settled at the start comes last, and goes where there is no room. */
const ORDER: readonly SectionName[] = [
  "device",
  "queues",
  "errors",
  "report",
  "status",
  "connections",
  "config",
  "features",
];

/** How many of the latest changes of status, errors and connections are shown. */
const LATEST = 3;

/** The lines that stay for what is below the queues, of a screen of usual height. */
const BELOW_QUEUES = 12;

/** The least number of queues that are shown. */
const MIN_QUEUES = 4;

/** Writes a record for a screen: at most `rows` lines. */
export function recordScreen(record: RecordJson, options: ScreenOptions): string[] {
  const { columns, rows, coloured, previous } = options;
  const most = Math.max(MIN_QUEUES, rows - BELOW_QUEUES);
  const queues = busiest(record, previous, most);
  const text = recordText({
    ...record,
    queues,
    connections: { ...record.connections, latest: record.connections.latest.slice(-1) },
    errors: { ...record.errors, latest: record.errors.latest.slice(-LATEST) },
    status: { ...record.status, timeline: record.status.timeline.slice(-LATEST) },
  }, { coloured, columns, previous, sections: ORDER, narrow: true });
  const lines = text.trimEnd().split("\n");
  if (lines.length <= rows) return lines;
  return [...lines.slice(0, rows - 1), `… ${lines.length - rows + 1} lines more`];
}

/** So many queues, the busiest, in the order of their indexes; each with its last fault. */
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
