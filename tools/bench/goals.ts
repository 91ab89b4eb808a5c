/**
 * What the data path must reach, as ratios to what it is compared with.
 *
 * @module
 */

import type { Cell } from "./cells.ts";

/** A limit. */
export interface Goal {
  /** On which side of the limit it is met. */
  is: "at least" | "at most" | "below";
  /** The limit. */
  limit: number;
}

/** The goals of a cell. */
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
  if (against !== "peer") {
    if (name.endsWith("/poll")) return { iops: atLeast(2) };
    if (name.endsWith("/inflight")) return { iops: atLeast(0.95) };
    if (name.endsWith("/packed") && store === "null" && drive.depth === 32) {
      return { iops: atLeast(1), cpu: atMost(1) };
    }
    return name.endsWith("/2threads") ? { iops: atLeast(1) } : {};
  }
  if (store === "null") {
    if (drive.depth === 1) return { iops: atLeast(1), cpu: atMost(1) };
    return {
      iops: atLeast(1.2),
      cpu: atMost(0.7),
      ...drive.depth === 32 && { systemCalls: { is: "below", limit: 0.1 } },
    };
  }
  if (store === "tmpfs") {
    if (operation.endsWith("128k")) return { iops: atLeast(1.2), cpu: atMost(0.6) };
    return drive.depth > 1 ? { iops: atLeast(3.5), cpu: atMost(0.2) } : {};
  }
  return drive.depth === 32 ? { iops: atLeast(1), cpu: atMost(0.6) } : {};
}

/** The goals beside the cells. */
export const goals = {
  /** Milliseconds from the start of the process until it listens. */
  startUpMs: atMost(150),
  /** Resident memory of a process with one device, in MB. */
  residentMb: { is: "below", limit: 90 },
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
export function goalText({ is, limit }: Goal): string {
  return `${is === "at least" ? "≥" : is === "at most" ? "≤" : "<"} ${limit}`;
}
