/** What a back-end costs while a driver asks for little: most devices do that most of the time. */
import type { Bench } from "./bench.ts";
import { drive, loadOrders, startDriver } from "./measure.ts";
import { ownSide } from "./sides.ts";

/** Requests per second that are measured. */
const RATES = [0, 100, 1_000, 10_000];

/** Long enough for ours to find out whether polling helps, and to be measured. */
const TIME = { warmSeconds: 1, seconds: 1 };

const DRIVE = { queues: 1, depth: 1 };

/** Processor time of our back-end at a rate, in percent of a core. */
export interface LowRate {
  /** Requests per second that were wanted. */
  rate: number;
  /** With polling, as it is by default, and the requests per second that came back. */
  polling: { percent: number; iops: number };
  /** The same with `--poll-us=0`. */
  sleeping: { percent: number; iops: number };
}

/** Measures all rates, with a null store and a client that sleeps. */
export async function lowRates(bench: Bench): Promise<LowRate[]> {
  const results: LowRate[] = [];
  for (const rate of RATES) {
    const polling = await driveSlowly(bench, rate, undefined);
    results.push({ rate, polling, sleeping: await driveSlowly(bench, rate, 0) });
  }
  return results;
}

async function driveSlowly(bench: Bench, rate: number, pollUs: number | undefined) {
  await using backend = await bench.serve(ownSide({ pollUs }, bench.options.own));
  await using driver = await startDriver(bench, backend, DRIVE);
  const plan = { store: "null", operation: "read4k", drive: DRIVE, writer: "" } as const;
  const orders = rate === 0 ? [] : await loadOrders(bench, plan, driver);
  const paced = orders.map((order) => ({ ...order, rate }));
  const { cpuShare, iops } = await drive(bench, TIME, backend, paced);
  return { percent: 100 * cpuShare, iops };
}
