/** The cells of `deno task bench net`. */
import type { Goal } from "../goals.ts";
import type { NetBench } from "./net_bench.ts";
import { testpmdCells } from "./testpmd_cells.ts";

/** A run of a side. */
export interface NetSample {
  /** Units per second. */
  rate: number;
  /** Processor time of the back-end per unit, in microseconds. */
  cpuUs: number;
  /** System calls of the back-end per unit. */
  systemCalls?: number;
}

/** What is measured in a cell. */
export interface NetSide {
  name: string;
  measure(bench: NetBench, withSystemCalls: boolean): Promise<NetSample>;
}

export interface NetCell {
  /** Such as `null/64/split`. */
  name: string;
  /** What is counted. */
  unit: "packet";
  own: NetSide;
  peer?: NetSide;
  goals: NetGoals;
}

export interface NetGoals {
  /** Units per second, of ours. */
  rate?: Goal;
  /** Units per second, as a ratio. */
  ratio?: Goal;
  /** System calls per unit, of ours. */
  systemCalls?: Goal;
}

export function netCells(): NetCell[] {
  return testpmdCells();
}
