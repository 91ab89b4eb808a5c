/**
 * One cell of the table: its pairs of runs.
 *
 * @module
 */

import type { Bench } from "./bench.ts";
import { BenchError } from "./bench_error.ts";
import { type Cell, type Drive, OPERATIONS } from "./cells.ts";
import { type CellGoals, goalsOf, isMet } from "./goals.ts";
import { measure, type Sample } from "./measure.ts";
import { ownSide, peerSides, type Side } from "./sides.ts";
import { ratioSummary, type Summary, summary } from "./statistics.ts";

/** How long each mode of the peer is tried. */
const PROBE_SECONDS = 0.25;

/** What a side did in a cell. */
export interface SideResult {
  name: string;
  mode: string;
  drive: Drive;
  iops: Summary;
  p50Us: Summary;
  p99Us: Summary;
  cpuUs: Summary;
  loadUs: Summary;
  kicks: Summary;
  systemCalls?: Summary;
}

/** A goal, and what came of it. */
export interface GoalResult {
  is: string;
  limit: number;
  isMet: boolean;
}

/** A cell's results. */
export interface CellResult {
  name: string;
  subject: SideResult;
  reference: SideResult;
  /** Ratios of the subject to the reference, pair by pair. */
  iopsRatio: Summary;
  cpuRatio: Summary;
  goals: { [name in keyof CellGoals]?: GoalResult };
}

/** Measures a cell. */
export async function compare(
  bench: Bench,
  cell: Cell,
  peers: PeerModes,
  progress: (message: string) => void,
): Promise<CellResult> {
  const { own, runs } = bench.options;
  const referenceDrive = cell.against === "peer" ? cell.drive : cell.against;
  const sides = [
    { side: ownSide(cell.drive, own), drive: cell.drive, samples: new Array<Sample>() },
    {
      side: cell.against === "peer"
        ? await peers.best(cell, progress)
        : ownSide(referenceDrive, own),
      drive: referenceDrive,
      samples: new Array<Sample>(),
    },
  ];
  for (let run = 0; run < runs; run++) {
    progress(`${cell.name}, run ${run + 1} of ${runs}`);
    // Who comes second finds the machine as the first one left it.
    for (const at of run % 2 === 0 ? [0, 1] : [1, 0]) {
      const { side, drive, samples } = sides[at];
      samples.push(
        await measure(bench, {
          ...{ side, drive, store: cell.store, operation: cell.operation },
          seconds: bench.options.seconds,
          warmSeconds: bench.options.warmSeconds,
          withSystemCalls: run === 0,
          writer: `${side.name} in ${cell.name}, run ${run + 1},`,
        }),
      );
    }
  }
  const [subject, reference] = sides;
  const ratio = (pick: (sample: Sample) => number) =>
    ratioSummary(subject.samples.map(pick), reference.samples.map(pick))!;
  const result = {
    name: cell.name,
    subject: sideResult(subject),
    reference: sideResult(reference),
    iopsRatio: ratio(({ iops }) => iops),
    cpuRatio: ratio(({ cpuUs }) => cpuUs),
  };
  return { ...result, goals: goalResults(goalsOf(cell), result) };
}

function sideResult(
  { side, drive, samples }: { side: Side; drive: Drive; samples: Sample[] },
): SideResult {
  const of = (pick: (sample: Sample) => number | undefined) =>
    summary(samples.map((sample) => pick(sample) ?? NaN));
  return {
    name: side.name,
    mode: side.mode,
    drive,
    iops: of(({ iops }) => iops)!,
    p50Us: of(({ p50Us }) => p50Us)!,
    p99Us: of(({ p99Us }) => p99Us)!,
    cpuUs: of(({ cpuUs }) => cpuUs)!,
    loadUs: of(({ loadUs }) => loadUs)!,
    kicks: of(({ kicks }) => kicks)!,
    systemCalls: of(({ systemCalls }) => systemCalls),
  };
}

function goalResults(
  wanted: CellGoals,
  { iopsRatio, cpuRatio, subject }: Omit<CellResult, "goals">,
): CellResult["goals"] {
  const values = {
    iops: iopsRatio.median,
    cpu: cpuRatio.median,
    systemCalls: subject.systemCalls?.median,
  };
  const results: CellResult["goals"] = {};
  for (const name of Object.keys(values) as (keyof CellGoals)[]) {
    const goal = wanted[name], value = values[name];
    if (goal && value !== undefined) results[name] = { ...goal, isMet: isMet(goal, value) };
  }
  return results;
}

/** The peer's best mode where it matters, each found by a short run. */
export class PeerModes {
  readonly #bench: Bench;
  readonly #best = new Map<string, Side>();

  constructor(bench: Bench) {
    this.#bench = bench;
  }

  /** The mode with the most requests per second for a cell's like. */
  async best(cell: Cell, progress: (message: string) => void): Promise<Side> {
    const { store, operation, drive } = cell;
    const key = this.#bench.options.isQuick ? store : `${store}/${operation}/qd${drive.depth}`;
    const known = this.#best.get(key);
    if (known) return known;
    const isWrite = OPERATIONS[operation].isWrite;
    let best: { side: Side; iops: number } | undefined;
    let failure: unknown;
    for (const side of await peerSides(store)) {
      progress(`${cell.name}, trying the peer with ${side.mode}`);
      try {
        const { iops } = await measure(this.#bench, {
          ...{ side, store, operation, drive: { ...drive, queues: 1 } },
          seconds: PROBE_SECONDS,
          warmSeconds: isWrite ? PROBE_SECONDS : 0.1,
          writer: `${side.name} in a trial of ${side.mode}`,
        });
        if (!best || iops > best.iops) best = { side, iops };
      } catch (error) {
        // Not every build has every mode.
        if (!(error instanceof BenchError)) throw error;
        progress(`${side.mode} cannot be had: ${error.message}`);
        failure = error;
      }
    }
    if (!best) throw failure;
    this.#best.set(key, best.side);
    return best.side;
  }
}
