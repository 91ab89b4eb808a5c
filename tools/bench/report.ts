/** Everything that was found. */
import type { Processors } from "./awake.ts";
import type { CellResult } from "./compare.ts";
import type { Collections, Resident, RngResult } from "./extras.ts";
import type { IndependentResult } from "./independent.ts";
import type { LowRate } from "./low_rates.ts";
import type { Machine } from "./machine.ts";
import type { Summary } from "./statistics.ts";

/** What is measured beside the cells; what could not be is missing. */
export interface Extras {
  startUpMs?: { own: Summary; peer: Summary };
  residentBytes?: { own: Resident; peer: Resident };
  collections?: Collections;
  rng?: RngResult[];
  /** Processor time while little is asked for. */
  lowRates?: LowRate[];
  /** What a load generator that is none of ours finds. */
  independent?: IndependentResult[];
  /** Nanoseconds per request of the load generator with an echo, by queue depth. */
  generatorNs?: Record<number, Summary>;
}

/** A result of `deno task bench`, as `--json` prints it. */
export interface Report {
  version: 2;
  date: string;
  machine: Machine;
  runs: number;
  seconds: number;
  /** How long it takes to wake a thread, in microseconds, by what processors do meanwhile. */
  wakeUpUs: Partial<Record<Processors, number>>;
  chains: "direct" | "indirect";
  /** How system calls were counted; missing where they were not. */
  systemCalls?: string;
  cells: CellResult[];
  extras: Extras;
  /** What could not be measured, and why. */
  failures: { what: string; reason: string }[];
}
