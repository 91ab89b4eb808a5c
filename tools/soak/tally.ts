/** What a soak has done so far. */

/** What was done with one device. */
export class Tally {
  /** What it is called in the report. */
  readonly name: string;
  /** Requests that came back. */
  requests = 0;
  /** Bytes that were read and found right. */
  checkedBytes = 0;
  /** Requests that failed while something was wrong with the storage, as they should. */
  refused = 0;
  /** How often each thing was done to it. */
  readonly faults = new Map<string, number>();
  /** How long requests stood still after a kill, in milliseconds. */
  readonly pausesMs: number[] = [];

  /** Begins at nothing. */
  constructor(name: string) {
    this.name = name;
  }

  /** Notes that something was done to it. */
  fault(kind: string): void {
    this.faults.set(kind, (this.faults.get(kind) ?? 0) + 1);
  }
}

/** Something that happened at a moment, for the plot. */
export interface Mark {
  atS: number;
  kind: string;
}
