/** Those that take part in a soak, and what they share. */
import type { Random } from "../lib/random.ts";
import type { ProcessTable } from "./processes.ts";

/** What was done with one device. */
export class Tally {
  requests = 0;
  /** Bytes that were read and found right. */
  checkedBytes = 0;
  /** Requests that failed while something was wrong with the storage, as they should. */
  refused = 0;
  /** How often each thing was done to it. */
  readonly faults = new Map<string, number>();
  get faultCount(): number {
    return total([...this.faults.values()], (count) => count);
  }
  /** How long requests stood still after a kill, in milliseconds. */
  readonly pausesMs: number[] = [];

  /** @param name What it is called in the report */
  constructor(readonly name: string) {}

  fault(kind: string): void {
    this.faults.set(kind, (this.faults.get(kind) ?? 0) + 1);
  }
}

/** The sum of something over all things. */
export function total<T>(things: readonly T[], of: (thing: T) => number): number {
  return things.reduce((sum, thing) => sum + of(thing), 0);
}

/** Something that happened at a moment, for the plot. */
export interface Mark {
  atS: number;
  kind: string;
}

/** Something that is wrong with storage at times: a load has to know which failures are right. */
export class Trouble {
  /** Odd while it lasts; a moment, for {@linkcode Trouble.since}. */
  now = 0;

  begin(): void {
    this.now++;
  }

  end(): void {
    this.now++;
  }

  /** Whether there was any from a moment to now. */
  since(moment: number): boolean {
    return moment !== this.now || moment % 2 === 1;
  }
}

/** What all that take part share. */
export interface World {
  /** Where sockets and images on a disk are. */
  readonly directory: string;
  readonly processes: ProcessTable;
  /** Aborted when the time is up, or something was found. */
  readonly over: AbortSignal;
  /** Random numbers of one's own, from the seed. */
  random(name: string): Random;
  fault(tally: Tally, kind: string): void;
}

/** A device, its load and what is done to it. */
export interface Actor extends AsyncDisposable {
  readonly tally: Tally;
  start(): Promise<void>;
  /** Goes on until it is over, then looks at everything once more. */
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
