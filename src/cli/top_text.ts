/**
 * The busiest queues of devices as a table.
 *
 * @module
 */

import { type LatencyRecord, summarize } from "../runtime/latency.ts";
import type { QueueRecord, RecordJson } from "../runtime/record.ts";
import { shown } from "../runtime/shown.ts";
import { makeInk, type Style } from "./ink.ts";
import type { LiveRead } from "./live_records.ts";
import { latenciesSince } from "./record_latency_text.ts";
import { type Cell, table } from "./table.ts";
import { formatBytes } from "../virtio/format_bytes.ts";
import { formatCount, formatMicroseconds } from "./units.ts";

/** The layout of the table. */
export interface TopOptions {
  /** The height, in lines. @default {all queues} */
  rows?: number;
  /** The width, in characters. @default {no limit} */
  columns?: number;
  /** @default {false} */
  coloured?: boolean;
}

const COLUMNS = [
  { title: "device" },
  { title: "#", align: "right" },
  { title: "queue", drop: 1 },
  { title: "state", drop: 2 },
  { title: "requests/s", align: "right" },
  { title: "in flight", align: "right", drop: 3 },
  { title: "to device/s", align: "right", drop: 5 },
  { title: "to driver/s", align: "right", drop: 4 },
  { title: "p50", align: "right" },
  { title: "p99", align: "right" },
  { title: "longest", align: "right", drop: 6 },
  { title: "kicks/s", align: "right", drop: 7 },
] as const;

/** A queue that does something, and how much since the read before. */
interface QueueRate {
  readonly device: string;
  readonly queue: QueueRecord;
  readonly before: QueueRecord;
  readonly seconds: number;
  readonly requests: number;
}

/** The busiest queues since the read before; the first line has the sums. */
export function topText(
  { records, silent }: LiveRead,
  previous: LiveRead | undefined,
  { rows = Infinity, columns, coloured = false }: TopOptions = {},
): string[] {
  const ink = makeInk(coloured);
  const rates: QueueRate[] = [];
  const processors = new Map<number, number>();
  for (const { socket, record } of records) {
    const before = previous?.records.find((other) =>
      other.socket === socket && other.record.device.instance === record.device.instance
    )?.record;
    // Another start of the device has counters of its own
    if (before === undefined || before.since !== record.since) continue;
    const seconds = (record.at - before.at) / 1000;
    if (seconds <= 0) continue;
    const { process } = record;
    if (process !== undefined && before.process !== undefined) {
      const used = process.cpuSeconds - before.process.cpuSeconds;
      processors.set(process.pid, Math.max(used, 0) / seconds);
    }
    rates.push(...ratesOf(record, before, seconds));
  }
  rates.sort((a, b) =>
    Number(b.queue.broken) - Number(a.queue.broken) || b.requests - a.requests ||
    b.queue.starts - a.queue.starts
  );
  const total = rates.reduce((sum, { requests }) => sum + requests, 0);
  const cpu = [...processors.values()].reduce((sum, used) => sum + used, 0);
  const devices = `${records.length} device${records.length === 1 ? "" : "s"}`;
  const gone = silent.length === 0 ? "" : `, ${silent.length} silent: ${shown(silent[0])}`;
  const title = previous === undefined
    ? `${devices}${gone}`
    : `${devices}, ${formatCount(total)} requests/s, ${(cpu * 100).toFixed(0)} % CPU${gone}`;
  const used = rates.filter(({ queue }) => queue.starts > 0 || queue.requests > 0 || queue.broken);
  const lines = used.length === 0 ? [] : table(COLUMNS, used.map(row), { ink, width: columns });
  const room = rows - 2;
  const over = lines.length - 1 - room;
  const fitting = over > 0 ? [...lines.slice(0, room), `  … ${over + 1} queues more`] : lines;
  return [ink("bold", title), ...fitting];
}

function ratesOf(record: RecordJson, earlier: RecordJson, seconds: number): QueueRate[] {
  const { name, instance } = record.device;
  const device = shown(instance === undefined ? name : `${name}/${instance}`);
  return record.queues.flatMap((queue) => {
    const before = earlier.queues.find(({ index }) => index === queue.index);
    if (before === undefined) return [];
    const requests = (queue.requests - before.requests) / seconds;
    return [{ device, queue, before, seconds, requests }];
  });
}

function row({ device, queue, before, seconds, requests }: QueueRate): Cell[] {
  const rate = (name: "bytesRead" | "bytesWritten" | "kicks") =>
    (queue[name] - before[name]) / seconds;
  const [state, style]: [string, Style] = queue.broken
    ? ["broken", "red"]
    : queue.running
    ? ["running", "green"]
    : ["stopped", "dim"];
  const latency = together(latenciesSince(queue, before));
  const time = (us: number | undefined) => us === undefined ? "–" : formatMicroseconds(us);
  return [
    device,
    String(queue.index),
    shown(queue.name),
    [state, style],
    formatCount(requests),
    queue.inFlight === 0 ? ["0", "dim"] : String(queue.inFlight),
    formatBytes(Math.round(rate("bytesRead"))),
    formatBytes(Math.round(rate("bytesWritten"))),
    time(latency?.p50Us),
    time(latency?.p99Us),
    [time(latency?.buckets.at(-1)?.[0]), "dim"],
    [formatCount(rate("kicks")), "dim"],
  ];
}

/** The latencies of all kinds together; undefined without samples. */
function together(latencies: readonly LatencyRecord[]): LatencyRecord | undefined {
  if (latencies.length === 0) return undefined;
  const counts = new Map<number, number>();
  for (const [upToUs, count] of latencies.flatMap(({ buckets }) => buckets)) {
    counts.set(upToUs, (counts.get(upToUs) ?? 0) + count);
  }
  const totalUs = latencies.reduce((total, one) => total + one.totalUs, 0);
  return summarize("all", [...counts].sort(([a], [b]) => a - b), totalUs, Infinity);
}
