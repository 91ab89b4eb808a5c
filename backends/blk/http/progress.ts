/**
 * How much of a remote file was fetched.
 *
 * @module
 */

import { formatBytes } from "../../../mod.ts";

const FETCHED = 0, REQUESTS = 1, RETRIES = 2, COUNTS = 3;

/** Counts that one queue thread writes and the main thread reads. */
export class Progress {
  readonly #counts: Float64Array<SharedArrayBuffer>;

  /** @param memory That of the other thread. */
  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(COUNTS * 8)) {
    this.#counts = new Float64Array(memory);
  }

  /** What the other thread gets. */
  get memory(): SharedArrayBuffer {
    return this.#counts.buffer;
  }

  /** Bytes that came from the server. */
  get fetched(): number {
    return this.#counts[FETCHED];
  }
  set fetched(bytes: number) {
    this.#counts[FETCHED] = bytes;
  }

  /** Chunks that were asked for. */
  get requests(): number {
    return this.#counts[REQUESTS];
  }
  set requests(count: number) {
    this.#counts[REQUESTS] = count;
  }

  /** Requests that failed and were repeated. */
  get retries(): number {
    return this.#counts[RETRIES];
  }
  set retries(count: number) {
    this.#counts[RETRIES] = count;
  }
}

/** A line says how much was fetched after this much more, and not before this time has passed. */
const STEP_BYTES = 67_108_864, STEP_MS = 10_000;

/** Says at times how much of a disk was fetched. */
export class ProgressLines {
  readonly #of: number;
  readonly #log: (line: string) => void;
  #told = 0;
  #toldAt: number;

  /** @param of The size of the disk, in bytes. */
  constructor(of: number, now: number, log: (line: string) => void) {
    this.#of = of;
    this.#log = log;
    this.#toldAt = now;
  }

  /** Tells at 64 MiB, at twice as much as before or a tenth of the disk more, and at the end. */
  look({ fetched, requests, retries }: Progress, now: number, isEnd = false): void {
    const news = fetched - this.#told, ms = now - this.#toldAt;
    const step = Math.max(STEP_BYTES, Math.min(this.#told, this.#of / 10));
    if (isEnd ? news === 0 : news < step || ms < STEP_MS) return;
    const rate = isEnd ? "" : `, now ${formatBytes(news / ms * 1000)}/s`;
    const repeated = retries > 0 ? `, ${retries} repeated` : "";
    this.#log(
      `Fetched ${formatBytes(fetched)} of ${
        formatBytes(this.#of)
      } in ${requests} requests${repeated}` +
        rate,
    );
    this.#told = fetched;
    this.#toldAt = now;
  }
}
