/** `deno task bench net`: network devices beside what else there is, in pairs. */
import type { Scratch } from "../../lib/scratch.ts";
import { isExpected } from "../../lib/tool.ts";
import { type Goal, goalText, isMet } from "../goals.ts";
import { digits, ratioText, table, thousands } from "../markdown.ts";
import type { Options } from "../options.ts";
import { ratioSummary, summary } from "../statistics.ts";
import { systemCallCounter } from "../system_calls.ts";
import type { NetCell } from "./cell.ts";
import { guestCells } from "./guest_cells.ts";
import { NetBench, type NetSample } from "./net_bench.ts";
import { switchCells } from "./switch_cells.ts";
import { tapCells } from "./tap_cells.ts";
import {
  handlerCells,
  type NetCollections,
  netCollections,
  testpmdCells,
} from "./testpmd_cells.ts";

/** All cells. */
export function netCells(): NetCell[] {
  return [...testpmdCells(), ...handlerCells(), ...switchCells(), ...tapCells(), ...guestCells()];
}

/** A cell's runs. */
export interface NetResult {
  cell: NetCell;
  own: NetSample[];
  peer: NetSample[];
}

/** Measures the cells whose names contain one of `filters`, all without any; prints a table. */
export async function benchNet(
  options: Options,
  filters: readonly string[],
  scratch: Scratch,
  progress: (message: string) => void,
): Promise<number> {
  const counter = await systemCallCounter();
  const bench = new NetBench(options, scratch, counter);
  const results: NetResult[] = [];
  let failures = 0;
  for (const cell of netCells()) {
    if (filters.length > 0 && !filters.some((filter) => cell.name.includes(filter))) continue;
    try {
      results.push(await measure(bench, cell, progress));
    } catch (error) {
      if (!isExpected(error)) throw error;
      progress(`${cell.name} could not be measured: ${error.message}`);
      failures++;
    }
  }
  const collections = filters.length + failures === 0 ? await netCollections(bench) : [];
  console.log(
    options.json ? JSON.stringify({ results, collections }, null, 2) : netTable(results),
  );
  if (!options.json) console.log(collections.map(collectionsText).join(""));
  if (counter !== undefined && !options.json) console.log(`\nSystem calls are ${counter.about}.`);
  return failures === 0 ? 0 : 1;
}

function collectionsText({ name, collections, packets }: NetCollections): string {
  return `\n${name}: ${collections} garbage collections of ${thousands(packets)} packets`;
}

async function measure(
  bench: NetBench,
  cell: NetCell,
  progress: (message: string) => void,
): Promise<NetResult> {
  const result: NetResult = { cell, own: [], peer: [] };
  const { runs } = bench.options;
  for (let run = 0; run < runs; run++) {
    progress(`${cell.name}, run ${run + 1} of ${runs}`);
    // The second side finds the machine as the first one left it.
    const sides = run % 2 === 0 ? ["own", "peer"] as const : ["peer", "own"] as const;
    for (const side of sides) {
      const sample = await cell[side]?.measure(bench, run === 0);
      if (sample !== undefined) result[side].push(sample);
    }
  }
  return result;
}

/** A table of the medians and ratios. */
function netTable(results: readonly NetResult[]): string {
  return table([
    ["cell", "against", "units/s", "ratio", "CPU µs/unit", "ratio", "syscalls/unit", "goals"],
    ...results.map(({ cell, own, peer }) => {
      const of = (side: NetSample[], name: keyof NetSample) =>
        summary(side.map((sample) => sample[name] ?? NaN))?.median;
      const both = (name: keyof NetSample, show: (value: number) => string) =>
        [own, peer].filter((side) => side.length > 0)
          .map((side) => of(side, name)).map((value) => value === undefined ? "–" : show(value))
          .join(" / ");
      const ratio = (name: "rate" | "cpuUs") =>
        peer.length === 0
          ? undefined
          : ratioSummary(own.map((one) => one[name]), peer.map((one) => one[name]));
      const ratios = { rate: ratio("rate"), cpuUs: ratio("cpuUs") };
      return [
        cell.name,
        cell.peer?.name ?? "–",
        `${both("rate", thousands)} ${cell.unit}`,
        ratios.rate ? ratioText(ratios.rate) : "–",
        both("cpuUs", digits),
        ratios.cpuUs ? ratioText(ratios.cpuUs) : "–",
        both("systemCalls", digits),
        [
          goal("", cell.goals.rate, of(own, "rate"), thousands),
          goal("ratio ", cell.goals.ratio, ratios.rate?.median, digits),
          goal("CPU ", cell.goals.cpu, ratios.cpuUs?.median, digits),
          goal("syscalls ", cell.goals.systemCalls, of(own, "systemCalls"), digits),
        ].filter(Boolean).join(", "),
      ];
    }),
  ]);
}

function goal(
  name: string,
  goal: Goal | undefined,
  value: number | undefined,
  show: (value: number) => string,
): string {
  if (goal === undefined || value === undefined) return "";
  return `${name}${goalText(goal, show)} ${isMet(goal, value) ? "met" : "**not met**"}`;
}
