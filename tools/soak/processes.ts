/** What processes hold over time, and whether they leak. */
import { type Holding, holding } from "../lib/backend.ts";

const MIB = 2 ** 20;

/**
 * How a process may grow from the third to the last quarter of its life. The first half is for code
 * to be compiled and for heaps to find their size.
 */
export const LEAK = {
  /** Its resident memory, as a part of what it was. */
  memoryPart: 0.05,
  /** And in addition, in bytes: the garbage collector's moods. */
  memoryBytes: 8 * MIB,
  fds: 2,
  /** Its threads: the platform's own pool comes and goes. */
  threads: 2,
  /** Processes that lived shorter say nothing, in samples. */
  leastSamples: 60,
} as const;

/** What a process holds, and when: in seconds since the beginning. */
export type Sample = Holding & { atS: number };

/** A process and what it held. */
export interface Process {
  readonly name: string;
  readonly pid: number;
  readonly samples: Sample[];
  /** It is gone, or about to be. */
  hasEnded: boolean;
}

/** All processes of a soak. */
export class ProcessTable {
  readonly all: Process[] = [];

  add(name: string, pid: number): Process {
    const process: Process = { name, pid, samples: [], hasEnded: false };
    this.all.push(process);
    return process;
  }

  sample(atS: number): void {
    for (const process of this.all) {
      if (process.hasEnded) continue;
      const held = holding(process.pid);
      if (held !== undefined) process.samples.push({ atS, ...held });
    }
  }
}

/** What leaks, in a line each. */
export function findLeaks(processes: readonly Process[]): string[] {
  return processes.flatMap(({ name, pid, samples }) => {
    if (samples.length < LEAK.leastSamples) return [];
    const quarter = Math.floor(samples.length / 4);
    const before = samples.slice(-2 * quarter, -quarter);
    const after = samples.slice(-quarter);
    const found: string[] = [];
    const compare = (
      what: string,
      of: (sample: Sample) => number,
      limit: (before: number) => number,
      text: (value: number) => string = String,
    ) => {
      const was = median(before.map(of)), is = median(after.map(of));
      if (is <= limit(was)) return;
      found.push(`${name} (pid ${pid}) went from ${text(was)} to ${text(is)} ${what}`);
    };
    compare(
      "of memory",
      ({ residentBytes }) => residentBytes,
      (was) => was * (1 + LEAK.memoryPart) + LEAK.memoryBytes,
      (bytes) => `${(bytes / MIB).toFixed(1)} MiB`,
    );
    compare("descriptors", ({ fds }) => fds, (was) => was + LEAK.fds);
    compare("threads", ({ threads }) => threads, (was) => was + LEAK.threads);
    return found;
  });
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}
