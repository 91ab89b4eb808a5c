/** What a cell of `deno task bench net` is. */
import type { Goal } from "../goals.ts";
import type { NetBench, NetSample } from "./net_bench.ts";

/** What is measured in a cell. */
export interface NetSide {
  name: string;
  measure(bench: NetBench, withSystemCalls: boolean): Promise<NetSample>;
}

export interface NetCell {
  /** Such as `null/64/split`. */
  name: string;
  /** What is counted. */
  unit: "packet" | "Mbit";
  own: NetSide;
  peer?: NetSide;
  goals: NetGoals;
}

export interface NetGoals {
  /** Units per second, of ours. */
  rate?: Goal;
  /** Units per second, as a ratio. */
  ratio?: Goal;
  /** Processor time per unit, as a ratio. */
  cpu?: Goal;
  /** System calls per unit, of ours. */
  systemCalls?: Goal;
}
