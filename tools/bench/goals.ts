/** What the data path must reach, as ratios to what it is compared with. */
import { type Cell, type Drive, OPERATIONS, type StoreName } from "./cells.ts";

export interface Goal {
  /** On which side of the limit it is met. */
  is: "at least" | "at most" | "below";
  limit: number;
}

export interface CellGoals {
  /** Requests per second, as a ratio. */
  iops?: Goal;
  /** Processor time per request, as a ratio. */
  cpu?: Goal;
  /** System calls per request, of ours. */
  systemCalls?: Goal;
}

const atLeast = (limit: number): Goal => ({ is: "at least", limit });
const atMost = (limit: number): Goal => ({ is: "at most", limit });

/** The goals of a cell; none for most of them. */
export function goalsOf({ name, store, operation, drive, against }: Cell): CellGoals {
  const isPolling = drive.isPolling ?? false;
  if (against !== "peer") return goalsAgainstOurs(name, store, drive);
  if (drive.queues > 1 || !operation.endsWith("4k")) return {};
  if (store === "null") {
    if (drive.depth === 1) return { iops: atLeast(isPolling ? 2 : 1), cpu: atMost(1) };
    return {
      iops: atLeast(isPolling && drive.depth > 32 ? 1.2 : 1.3),
      cpu: atMost(isPolling ? 0.8 : 0.6),
      ...drive.depth === 32 && { systemCalls: { is: "below", limit: 0.1 } },
    };
  }
  if (drive.depth !== 32) return {};
  const [reading, writing] = GOALS_OF_FILES[store];
  return OPERATIONS[operation].isWrite ? writing : reading;
}

/** Goals at queue depth 32, of reading and of writing 4 KiB, whatever the load generator does. */
const GOALS_OF_FILES = {
  tmpfs: [{ iops: atLeast(3), cpu: atMost(0.2) }, { iops: atLeast(2.5), cpu: atMost(0.3) }],
  disk: [{ iops: atLeast(1.5), cpu: atMost(0.7) }, { iops: atLeast(1), cpu: atMost(0.7) }],
  nbd: [{ iops: atLeast(1.3), cpu: atMost(0.7) }, { iops: atLeast(1.3), cpu: atMost(0.7) }],
  rbd: [{ iops: atLeast(1), cpu: atMost(0.8) }, { iops: atLeast(1), cpu: atMost(0.8) }],
  overlay: [{ iops: atLeast(2), cpu: atMost(0.4) }, { iops: atLeast(2), cpu: atMost(0.4) }],
  "overlay-base": [{ iops: atLeast(2), cpu: atMost(0.4) }, {}],
  "disk-direct": [{ iops: atLeast(1.1), cpu: atMost(0.8) }, { iops: atLeast(1), cpu: atMost(0.8) }],
} as const;

function goalsAgainstOurs(name: string, store: StoreName, drive: Drive): CellGoals {
  const variants = name.split("/");
  if (variants.includes("inflight") || variants.includes("typescript")) {
    return { iops: atLeast(0.95) };
  }
  if (variants.includes("promise")) return { iops: atLeast(0.2) };
  if (variants.includes("packed") && store === "null" && drive.depth === 32) {
    return drive.isPolling ? { iops: atLeast(1), cpu: atMost(1.05) } : { iops: atLeast(0.95) };
  }
  // A disk is the limit itself.
  return variants.includes("2threads") && store === "tmpfs" ? { iops: atLeast(1.5) } : {};
}

export const goals = {
  /** Milliseconds from the start of the process until it listens. */
  startUpMs: atMost(80),
  /** Resident memory of a process with one device, in MB. */
  residentMb: { is: "below", limit: 90 },
  /** Processor time of an idle device above that of one that never polls, in percent of a core. */
  idlePercent: atMost(0.1),
  /** Garbage collections per million requests. */
  collections: atMost(0),
} as const satisfies Record<string, Goal>;

/** Whether a goal is met, as exactly as it is shown: with two decimals. */
export function isMet({ is, limit }: Goal, value: number): boolean {
  const shown = Math.round(value * 100) / 100;
  if (is === "below") return shown < limit;
  return is === "at least" ? shown >= limit : shown <= limit;
}

/** A goal as it stands in the table. */
export function goalText({ is, limit }: Goal, show: (limit: number) => string = String): string {
  return `${is === "at least" ? "≥" : is === "at most" ? "≤" : "<"} ${show(limit)}`;
}
