/**
 * The last minutes of each device, from which rates come.
 *
 * @module
 */

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
  /** Times in seconds, then requests, bytes and processor use per second. */
  lines: (number | null)[][] = [[], [], [], []];
  rates: Rates = { requests: 0, bytes: 0, cpu: 0, queues: [] };

  /** Takes the state of the device, if it is time for a sample. */
  take({ live }: DeviceEntry): void {
    if (live === null) return;
    const { record: { at, queues, process: { cpuSeconds } } } = live;
    const last = this.#samples.at(-1);
    if (last !== undefined && at - last.at < PERIOD_MS && at >= last.at) return;
    // A new process counts from 0
    if (last !== undefined && cpuSeconds < last.cpuSeconds) this.#samples.length = 0;
    this.#samples.push({
      at,
      cpuSeconds,
      requests: queues.map(({ requests }) => requests),
      bytes: queues.map(({ bytesRead, bytesWritten }) => bytesRead + bytesWritten),
    });
    if (this.#samples.length > RATE_SAMPLES + 1) this.#samples.shift();
    this.rates = this.#ratesNow();
    const { requests, bytes, cpu } = this.rates;
    const values = [at / 1000, requests, bytes, cpu * 100];
    this.lines = this.lines.map((line, i) => [...line.slice(1 - SAMPLES), values[i]]);
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
