/** Who takes part in a soak. */
import type { Random } from "../lib/random.ts";
import type { ProcessTable } from "./processes.ts";
import type { Tally } from "./tally.ts";

/** What all that take part share. */
export interface World {
  /** Where sockets and images on a disk are. */
  readonly directory: string;
  readonly processes: ProcessTable;
  /** Aborted when the time is up, or something was found. */
  readonly over: AbortSignal;
  /** Random numbers of one's own, from the seed. */
  random(name: string): Random;
  /** Notes that something was done to a device. */
  fault(tally: Tally, kind: string): void;
}

/** A device, its load and what is done to it. */
export interface Actor extends AsyncDisposable {
  readonly tally: Tally;
  /** Starts what takes part. */
  start(): Promise<void>;
  /**
   * Goes on until it is over, then looks at everything once more.
   *
   * @throws When something is wrong
   */
  run(): Promise<void>;
}

/** Waits, but no longer than the soak goes on. */
export async function sleep(milliseconds: number, over: AbortSignal): Promise<void> {
  if (over.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  const wake = () => resolve();
  over.addEventListener("abort", wake);
  await promise;
  over.removeEventListener("abort", wake);
  clearTimeout(timer);
}
