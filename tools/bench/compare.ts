/** One cell of the table: its pairs of runs. */
import type { Processors } from "./awake.ts";
import type { Bench } from "./bench.ts";
import { type Cell, type Drive, OPERATIONS } from "./cells.ts";
import { type CellGoals, goalsOf, isMet } from "./goals.ts";
import { measure, type Sample } from "./measure.ts";
import { ownSide, type Peer, type Side } from "./sides.ts";
import { ratioSummary, type Summary, summary } from "./statistics.ts";
import { ToolError } from "../lib/tool_error.ts";

/** How long each mode of the peer is tried. */
const PROBE_SECONDS = 0.25;

/** How long a cluster is loaded before it is measured: V8 has to see some 20,000 requests. */
const RBD_WARM_SECONDS = 5;

/** What of a side's samples is summed up. */
const MEASURED = ["iops", "p50Us", "p99Us", "cpuUs", "loadUs", "kicks"] as const;

export interface SideResult extends Record<typeof MEASURED[number], Summary> {
  name: string;
  mode: string;
  drive: Drive;
  systemCalls?: Summary;
}

/** A goal, and what came of it. */
export interface GoalResult {
  is: string;
  limit: number;
  isMet: boolean;
}

/** What the subject is compared with, and how it compares. */
export interface Comparison {
  reference: SideResult;
  /** Ratios of the subject to the reference, pair by pair. */
  iopsRatio: Summary;
  cpuRatio: Summary;
}

export interface CellResult extends Comparison {
  name: string;
  /** What processors did while nothing ran on them. */
  processors: Processors;
  subject: SideResult;
  /** The same with older versions of the peer. */
  older: Comparison[];
  goals: { [name in keyof CellGoals]?: GoalResult };
}

/** A side that is measured in a cell. */
interface Contender {
  side: Side;
  drive: Drive;
  samples: Sample[];
}

/** Measures a cell; the newest of the peers comes first. */
export async function compare(
  bench: Bench,
  cell: Cell,
  processors: Processors,
  peers: readonly PeerModes[],
  progress: (message: string) => void,
): Promise<CellResult> {
  const { own, runs } = bench.options;
  const contender = (side: Side, drive: Drive): Contender => ({ side, drive, samples: [] });
  const contenders = [contender(ownSide(cell.drive, own), cell.drive)];
  if (cell.against !== "peer") {
    contenders.push(contender(ownSide(cell.against, own), cell.against));
  } else {
    for (const modes of peers) {
      contenders.push(contender(await modes.best(cell, processors, progress), cell.drive));
    }
  }
  for (let run = 0; run < runs; run++) {
    progress(`${cell.name}, run ${run + 1} of ${runs}`);
    // The second side finds the machine as the first one left it.
    for (const { side, drive, samples } of run % 2 === 0 ? contenders : contenders.toReversed()) {
      samples.push(
        await measure(bench, {
          ...{ side, drive, store: cell.store, operation: cell.operation },
          seconds: bench.options.seconds,
          warmSeconds: Math.max(
            bench.options.warmSeconds,
            cell.store === "rbd" ? RBD_WARM_SECONDS : 0,
          ),
          withSystemCalls: run === 0,
          writer: `${side.name} in ${cell.name}, run ${run + 1},`,
        }),
      );
    }
  }
  const [subject, ...references] = contenders;
  const [newest, ...older] = references.map((reference) => comparison(subject, reference));
  const result = { name: cell.name, processors, subject: sideResult(subject), ...newest, older };
  return { ...result, goals: goalResults(goalsOf(cell), result) };
}

function comparison(subject: Contender, reference: Contender): Comparison {
  const of = ({ samples }: Contender, name: "iops" | "cpuUs") => samples.map((one) => one[name]);
  const ratio = (name: "iops" | "cpuUs") => ratioSummary(of(subject, name), of(reference, name))!;
  return { reference: sideResult(reference), iopsRatio: ratio("iops"), cpuRatio: ratio("cpuUs") };
}

function sideResult({ side, drive, samples }: Contender): SideResult {
  const of = (name: keyof Sample) => summary(samples.map((sample) => sample[name] ?? NaN));
  const measured = Object.fromEntries(MEASURED.map((name) => [name, of(name)]));
  const { name, mode } = side;
  return { name, mode, drive, ...measured, systemCalls: of("systemCalls") } as SideResult;
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

/** A peer's best mode where it matters, each found by a short run. */
export class PeerModes {
  readonly #best = new Map<string, Side>();

  constructor(readonly bench: Bench, readonly peer: Peer) {}

  /** The mode with the most requests per second for a cell's like. */
  async best(
    { name, store, operation, drive }: Cell,
    processors: Processors,
    progress: (message: string) => void,
  ): Promise<Side> {
    const { depth, isPolling } = drive;
    const key = JSON.stringify([store, operation, depth, isPolling, processors]);
    const known = this.#best.get(key);
    if (known) return known;
    const isWrite = OPERATIONS[operation].isWrite;
    let best: { side: Side; iops: number } | undefined;
    let failure: unknown;
    for (const side of await this.peer.sides(store)) {
      progress(`${name}, trying the peer with ${side.mode}`);
      try {
        const { iops } = await measure(this.bench, {
          ...{ side, store, operation, drive: { ...drive, queues: 1 } },
          seconds: PROBE_SECONDS,
          warmSeconds: isWrite ? PROBE_SECONDS : 0.1,
          writer: `${side.name} in a trial of ${side.mode}`,
        });
        if (!best || iops > best.iops) best = { side, iops };
      } catch (error) {
        // Not every build has every mode.
        if (!(error instanceof ToolError)) throw error;
        progress(`${side.mode} cannot be had: ${error.message}`);
        failure = error;
      }
    }
    if (!best) throw failure;
    this.#best.set(key, best.side);
    return best.side;
  }
}
