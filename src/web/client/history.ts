/**
 * The last minutes of each device, from which rates come.
 *
 * @module
 */

import type { RecordJson } from "../../runtime/record.ts";
import type { DeviceEntry, PageState } from "../device_hub.ts";

/** Time between two samples. */
const PERIOD_MS = 500;

/** Number of samples that are kept: two minutes. */
const SAMPLES = 240;

/** Samples over which a rate is taken. */
const RATE_SAMPLES = 2;

/** The counts of a device at a time. */
interface Sample {
  at: number;
  cpuSeconds: number;
  requests: number[];
  bytes: number[];
  /** Measured requests by the upper limit of their latency, in microseconds. */
  latencies: Map<number, number>;
}

/** The rates of a device, per second. */
export interface Rates {
  requests: number;
  bytes: number;
  /** Processors in use: 1 is a whole one. */
  cpu: number;
  /** Requests of each queue. */
  queues: number[];
}

/** Samples of one device. */
export class History {
  readonly #samples: Sample[] = [];
  /**
   * Times in seconds and, per second, requests, bytes and percent of a processor; of latency the
   * median and what 99 % do not exceed, in microseconds. New with each sample.
   */
  lines: Record<"requests" | "bytes" | "cpu" | "latency", (number | null)[][]> = {
    requests: [[], []],
    bytes: [[], []],
    cpu: [[], []],
    latency: [[], [], []],
  };
  rates: Rates = { requests: 0, bytes: 0, cpu: 0, queues: [] };

  /** Takes the state of the device, if it is time for a sample. */
  take({ live }: DeviceEntry): void {
    if (live === null) return;
    const { record: { at, queues, process: { cpuSeconds } = { cpuSeconds: 0 } } } = live;
    const last = this.#samples.at(-1);
    if (last !== undefined && at - last.at < PERIOD_MS && at >= last.at) return;
    // A new process counts from 0
    if (last !== undefined && cpuSeconds < last.cpuSeconds) this.#samples.length = 0;
    this.#samples.push({
      at,
      cpuSeconds,
      requests: queues.map(({ requests }) => requests),
      bytes: queues.map(({ bytesRead, bytesWritten }) => bytesRead + bytesWritten),
      latencies: latenciesOf(queues),
    });
    if (this.#samples.length > RATE_SAMPLES + 1) this.#samples.shift();
    this.rates = this.#ratesNow();
    const { requests, bytes, cpu } = this.rates;
    const add = (lines: (number | null)[][], ...values: (number | null)[]) =>
      lines.map((line, i) => [...line.slice(1 - SAMPLES), [at / 1000, ...values][i]]);
    this.lines = {
      requests: add(this.lines.requests, requests),
      bytes: add(this.lines.bytes, bytes),
      cpu: add(this.lines.cpu, cpu * 100),
      latency: add(this.lines.latency, ...this.#percentiles()),
    };
  }

  /** The latencies of the latest requests: the median, and what 99 % do not exceed. */
  #percentiles(): (number | null)[] {
    const [first, last] = [this.#samples[0], this.#samples[this.#samples.length - 1]];
    const counts = [...last.latencies].map(([upToUs, count]) =>
      [upToUs, count - (first.latencies.get(upToUs) ?? 0)] as const
    ).filter(([, count]) => count > 0).sort(([a], [b]) => a - b);
    const total = counts.reduce((sum, [, count]) => sum + count, 0);
    return [0.5, 0.99].map((part) => {
      let left = total * part;
      return counts.find(([, count]) => (left -= count) <= 0)?.[0] ?? null;
    });
  }

  #ratesNow(): Rates {
    const first = this.#samples[0];
    const last = this.#samples[this.#samples.length - 1];
    const seconds = Math.max((last.at - first.at) / 1000, 1e-3);
    const per = (name: "requests" | "bytes") =>
      last[name].map((count, i) => Math.max(0, count - (first[name][i] ?? 0)) / seconds);
    const sum = (rates: number[]) => rates.reduce((total, rate) => total + rate, 0);
    const queues = per("requests");
    return {
      requests: sum(queues),
      bytes: sum(per("bytes")),
      cpu: (last.cpuSeconds - first.cpuSeconds) / seconds,
      queues,
    };
  }
}

/** The latencies of all queues and kinds together. */
function latenciesOf(queues: RecordJson["queues"]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const { latencies = [] } of queues) {
    for (const [upToUs, count] of latencies.flatMap(({ buckets }) => buckets)) {
      counts.set(upToUs, (counts.get(upToUs) ?? 0) + count);
    }
  }
  return counts;
}

const histories = new Map<string, History>();

/** The history of a device. */
export function historyOf(id: string): History {
  let history = histories.get(id);
  if (history === undefined) histories.set(id, history = new History());
  return history;
}

/** Takes the state of all devices. */
export function sample({ devices }: PageState): void {
  for (const [id, entry] of Object.entries(devices)) historyOf(id).take(entry);
}
