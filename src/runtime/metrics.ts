/**
 * Records as metrics for Prometheus.
 *
 * Source: https://prometheus.io/docs/instrumenting/exposition_formats/, text format 0.0.4; names and
 * units follow https://prometheus.io/docs/practices/naming/.
 *
 * @module
 */

import type { LatencyRecord } from "./latency.ts";
import type { QueueRecord, RecordJson } from "./record.ts";
import { shownLines } from "./shown.ts";

/** The media type of the text. */
export const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** The upper limits of the histograms' buckets in microseconds: doublings from 1.024 µs to 17 s. */
const LIMITS_US = Array.from({ length: 25 }, (_, i) => 1.024 * 2 ** i);

/** The most numbers of a device's own report that become metrics. */
const MAX_REPORTED = 256;

type Labels = Readonly<Record<string, string | number>>;

/** A record, and the labels that tell its metrics from those of others. */
export interface MeteredRecord {
  readonly record: RecordJson;
  readonly labels?: Labels;
}

/** The values of a metric: labels, a number, and the suffix of the metric's name. */
type Sample = readonly [labels: Labels, value: number, suffix?: string];

/** A metric: its name without `vhostd_`, its type, its meaning, and its values in a record. */
type Metric = readonly [
  name: string,
  type: "counter" | "gauge" | "histogram" | "untyped",
  help: string,
  samples: (record: RecordJson) => Sample[],
];

/** A value of each queue. */
function perQueue(value: (queue: QueueRecord) => number): (record: RecordJson) => Sample[] {
  return ({ queues }) => queues.map((queue) => [labelsOf(queue), value(queue)]);
}

function labelsOf({ index, name }: QueueRecord): Labels {
  return { queue: index, name };
}

const METRICS: readonly Metric[] = [
  [
    "device_info",
    "gauge",
    "The device, by its name and the number of its type.",
    ({ device: { id, about } }) => [[{ id, about }, 1]],
  ],
  [
    "start_time_seconds",
    "gauge",
    "When the device was opened, in seconds since 1970.",
    ({ since }) => [[{}, since / 1000]],
  ],
  [
    "connections_total",
    "counter",
    "Front-ends that connected.",
    ({ connections }) => [[{}, connections.total]],
  ],
  [
    "connected",
    "gauge",
    "Whether a front-end is connected.",
    ({ connections: { latest } }) => [[
      {},
      Number(latest.length > 0 && latest[latest.length - 1].disconnectedAt === null),
    ]],
  ],
  [
    "refused_messages_total",
    "counter",
    "Messages of front-ends that were refused.",
    ({ errors }) => [[{}, errors.total]],
  ],
  [
    "queue_requests_total",
    "counter",
    "Requests that the device completed.",
    perQueue((queue) => queue.requests),
  ],
  [
    "queue_requests_in_flight",
    "gauge",
    "Requests that the device has not completed.",
    perQueue((queue) => queue.inFlight),
  ],
  [
    "queue_read_bytes_total",
    "counter",
    "Bytes of requests from the driver to the device.",
    perQueue((queue) => queue.bytesRead),
  ],
  [
    "queue_written_bytes_total",
    "counter",
    "Bytes that the device wrote for the driver.",
    perQueue((queue) => queue.bytesWritten),
  ],
  [
    "queue_kicks_total",
    "counter",
    "Notifications from the driver.",
    perQueue((queue) => queue.kicks),
  ],
  [
    "queue_notifications_total",
    "counter",
    "Notifications to the driver.",
    perQueue((queue) => queue.notifications),
  ],
  [
    "queue_faults_total",
    "counter",
    "Faults that broke the queue.",
    perQueue((queue) => queue.errors),
  ],
  ["queue_starts_total", "counter", "Starts of the ring.", perQueue((queue) => queue.starts)],
  [
    "queue_running",
    "gauge",
    "Whether the ring is started.",
    perQueue((queue) => Number(queue.running)),
  ],
  [
    "queue_broken",
    "gauge",
    "Whether a fault broke the queue.",
    perQueue((queue) => Number(queue.broken)),
  ],
  [
    "request_duration_seconds",
    "histogram",
    "Time from the device's getting a request until the driver can see its completion, of a sample of the requests.",
    ({ queues }) =>
      queues.flatMap((queue) =>
        (queue.latencies ?? []).flatMap((latency) => histogram(labelsOf(queue), latency))
      ),
  ],
  [
    "process_cpu_seconds_total",
    "counter",
    "Processor time of the process that serves the device.",
    ({ process }) => process === undefined ? [] : [[{ pid: process.pid }, process.cpuSeconds]],
  ],
  ["report", "untyped", "A number of the device's own report.", ({ report }) => reported(report)],
];

function histogram(labels: Labels, { kind, samples, totalUs, buckets }: LatencyRecord): Sample[] {
  const upTo = (limitUs: number) =>
    // Edges are products of floats
    buckets.reduce((sum, [upToUs, count]) => upToUs <= limitUs * 1.001 ? sum + count : sum, 0);
  const own = { ...labels, kind };
  return [
    ...LIMITS_US.map((us): Sample => [
      { ...own, le: Number((us / 1e6).toPrecision(12)) },
      upTo(us),
      "_bucket",
    ]),
    [{ ...own, le: "+Inf" }, samples, "_bucket"],
    [own, totalUs / 1e6, "_sum"],
    [own, samples, "_count"],
  ];
}

/** The numbers in a report, by their paths. */
function reported(report: Record<string, unknown>): Sample[] {
  const samples: Sample[] = [];
  const visit = (value: unknown, path: string) => {
    if (samples.length >= MAX_REPORTED) return;
    if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") {
      samples.push([{ item: path }, Number(value)]);
    } else if (typeof value === "object" && value !== null) {
      for (const [name, inner] of Object.entries(value)) {
        visit(inner, path === "" ? name : `${path}.${name}`);
      }
    }
  };
  visit(report, "");
  return samples;
}

/**
 * Writes the metrics of records.
 *
 * @param sockets Whether each control socket answered, by its path.
 */
export function metricsText(
  metered: readonly MeteredRecord[],
  sockets: readonly (readonly [path: string, isUp: number])[] = [],
): string {
  const up = sockets.map(([socket, isUp]) => `vhostd_up{${labelText({ socket })}} ${isUp}\n`);
  const head = "# HELP vhostd_up Whether the control socket answered.\n# TYPE vhostd_up gauge\n";
  const metrics = METRICS.flatMap(([name, type, help, samplesOf]) => {
    const lines = metered.flatMap(({ record, labels }) => {
      const { name: device, instance } = record.device;
      const common = { ...labels, device, ...instance !== undefined && { instance } };
      return samplesOf(record).map(([own, value, suffix = ""]) =>
        `vhostd_${name}${suffix}{${labelText({ ...common, ...own })}} ${value}\n`
      );
    });
    if (lines.length === 0) return [];
    return [`# HELP vhostd_${name} ${help}\n# TYPE vhostd_${name} ${type}\n`, ...lines];
  });
  return [...up.length > 0 ? [head, ...up] : [], ...metrics].join("");
}

function labelText(labels: Labels): string {
  const escapes: Record<string, string> = { "\\": "\\\\", '"': '\\"', "\n": "\\n" };
  // A terminal may show texts of other processes
  const escaped = (value: string) =>
    shownLines(value).replace(/[\\"\n]/g, (character) => escapes[character]);
  return Object.entries(labels).map(([name, value]) => `${name}="${escaped(String(value))}"`)
    .join(",");
}
