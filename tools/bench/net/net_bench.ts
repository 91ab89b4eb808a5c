/** What the cells of a network benchmark have in common. */
import { processTime } from "../../lib/clock.ts";
import type { Scratch } from "../../lib/scratch.ts";
import type { Options } from "../options.ts";
import type { SystemCallCounter } from "../system_calls.ts";

/** A run of a side. */
export interface NetSample {
  /** Units per second. */
  rate: number;
  /** Processor time of the processes that carry the packets, per unit, in microseconds. */
  cpuUs: number;
  /** System calls of the back-end per unit. */
  systemCalls?: number;
}

export class NetBench {
  readonly #directory: string;
  #sockets = 0;

  constructor(
    readonly options: Options,
    scratch: Scratch,
    readonly counter: SystemCallCounter | undefined,
  ) {
    this.#directory = scratch.directory();
  }

  /** The path of a new socket. */
  socketPath(): string {
    return `${this.#directory}/${this.#sockets++}.sock`;
  }

  /**
   * Measures a load that runs.
   *
   * @param pids The processes that carry the packets, the back-end first: only its system calls
   * are counted.
   * @param count Counts what has passed until now.
   */
  async sample(
    pids: readonly number[],
    withSystemCalls: boolean,
    count: () => Promise<number>,
  ): Promise<NetSample> {
    const { seconds, warmSeconds } = this.options;
    await pause(warmSeconds);
    const [time, processorNs] = [performance.now(), processorTime(pids)];
    const first = await count();
    await pause(seconds);
    const units = await count() - first;
    const cpuUs = (processorTime(pids) - processorNs) / 1000 / units;
    const rate = units / (performance.now() - time) * 1000;
    if (!withSystemCalls || this.counter === undefined) return { rate, cpuUs };
    const before = await count();
    const calls = await this.counter.count(pids[0], () => pause(seconds));
    return { rate, cpuUs, systemCalls: calls / (await count() - before) };
  }
}

function processorTime(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + processTime(pid), 0);
}

function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
