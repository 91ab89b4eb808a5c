/**
 * The latencies of queues as a table.
 *
 * @module
 */

import { type LatencyRecord, summarize } from "../runtime/latency.ts";
import type { QueueRecord } from "../runtime/record.ts";
import type { SectionContext } from "./record_section.ts";
import { type Cell, table } from "./table.ts";
import { formatCount, formatMicroseconds } from "./units.ts";

const COLUMNS = [
  { title: "#", align: "right" },
  { title: "latency" },
  { title: "sampled", align: "right", drop: 2 },
  { title: "mean", align: "right", drop: 1 },
  { title: "p50", align: "right" },
  { title: "p90", align: "right", drop: 3 },
  { title: "p99", align: "right" },
  { title: "p99.9", align: "right", drop: 4 },
  { title: "longest", align: "right", drop: 5 },
] as const;

/**
 * The latencies of queues by kind of request, from when the device gets a request until the driver
 * can see its completion; since the previous record if there is one.
 */
export function latencyTable(
  { ink, width, previous }: SectionContext,
  queues: readonly QueueRecord[],
): string[] {
  const rows = queues.flatMap((queue) => {
    const before = previous?.queues.find(({ index }) => index === queue.index);
    return latenciesSince(queue, before).map((latency) => row(queue, latency));
  });
  return rows.length === 0 ? [] : table(COLUMNS, rows, { ink, width });
}

function row({ index }: QueueRecord, latency: LatencyRecord): Cell[] {
  const { kind, samples, totalUs, p50Us, p90Us, p99Us, p999Us, maxUs } = latency;
  return [
    String(index),
    kind,
    [formatCount(samples), "dim"],
    formatMicroseconds(totalUs / samples),
    ...[p50Us, p90Us, p99Us, p999Us].map(formatMicroseconds),
    [formatMicroseconds(maxUs), "dim"],
  ];
}

/** The latencies of what was sampled after an earlier record; kinds without samples are left out. */
export function latenciesSince(
  { latencies = [] }: QueueRecord,
  before: QueueRecord | undefined,
): LatencyRecord[] {
  return latencies.flatMap((latency) => {
    const earlier = before?.latencies?.find(({ kind }) => kind === latency.kind);
    if (earlier === undefined) return latency;
    const counts = new Map(earlier.buckets);
    const buckets = latency.buckets
      .map(([upTo, count]): [number, number] => [upTo, count - (counts.get(upTo) ?? 0)])
      .filter(([, count]) => count > 0);
    if (buckets.length === 0) return [];
    return summarize(latency.kind, buckets, latency.totalUs - earlier.totalUs, latency.maxUs);
  });
}
