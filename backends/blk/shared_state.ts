/**
 * What the control half and the queue threads of a block device share while it runs: the live
 * capacity, whether writes were lost, and counts of requests.
 *
 * Numbers are aligned 64-bit floats with one writer (the control half, or the thread of a queue),
 * so a reader sees the old or the new value.
 *
 * @module
 */

import { errnoName } from "../../src/linux/mod.ts";
import { type Heat, HEAT_BYTES, HeatMap } from "./heat.ts";
import { REFUSED, statusOf, VIRTIO_BLK_S, VIRTIO_BLK_T } from "./request.ts";

const TYPES = Object.keys(VIRTIO_BLK_T) as (keyof typeof VIRTIO_BLK_T)[];
const STATUSES = Object.keys(VIRTIO_BLK_S) as (keyof typeof VIRTIO_BLK_S)[];

/** Types and statuses of what few disks have. */
const RARE = /^(ZONE_|SECURE_ERASE|GET_LIFETIME)/;

/** How many failed requests of a queue are remembered. */
const FAILURES = 8;

// Places of a queue's block, in floats
const BY_TYPE = 0; // one per type, then one for all others
const BY_STATUS = BY_TYPE + TYPES.length + 1;
const FAILED = BY_STATUS + STATUSES.length;
const LATEST = FAILED + 1; // a ring of FAILURES times at, type, sector, outcome
const FAILURE_FLOATS = 4;
const QUEUE_FLOATS = LATEST + FAILURES * FAILURE_FLOATS;

/** The floats of a queue, and the counts behind the floats of all. */
const QUEUE_BYTES = QUEUE_FLOATS * 8 + HEAT_BYTES;

const CAPACITY = 0;
const LOST = 1; // an i32, by Atomics
const QUEUES = 2;

/** Request types that have a count of their own, by number. */
const PLACES = new Uint8Array(32).fill(TYPES.length);
TYPES.forEach((name, i) => PLACES[VIRTIO_BLK_T[name]] = i);

/** The kinds of requests: those with a type of their own, and all others. */
export const REQUEST_KINDS: readonly string[] = [
  ...TYPES.map((name) =>
    ({ IN: "read", OUT: "write" } as Record<string, string>)[name] ?? name.toLowerCase()
  ),
  "other",
];

/** The kind of a request of a type. */
export function kindOf(type: number): number {
  return type >= 0 && type < PLACES.length ? PLACES[type] : TYPES.length;
}

/** A request that failed. */
export interface Failure {
  /** When, in milliseconds since 1970. */
  at: number;
  /** The queue's index. */
  queue: number;
  /** The type by name, by number if it has none; null when there was no header. */
  request: string | number | null;
  /** The sector of its header. */
  sector: number;
  /** The errno by name, or why the device refused it. */
  error: string;
}

/** Counts of requests. */
export interface RequestCounts {
  /** Requests by type. */
  requests: Record<string, number>;
  /** Requests by status. */
  statuses: Record<string, number>;
  /** The last requests that failed, oldest first. */
  failures: Failure[];
  /** The errno by name that the first flush failed with, as all do since then; null if none did. */
  lostWrites: string | null;
}

/** The shared state of one device. */
export class SharedState {
  /** The memory: what another thread makes its own object from. */
  readonly memory: SharedArrayBuffer;
  /** Counts of requests by their place, for each queue. */
  readonly #heats: readonly HeatMap[];
  readonly #floats: Float64Array<SharedArrayBuffer>;
  readonly #lost: Int32Array<SharedArrayBuffer>;

  /** Opens a view of a state's memory, or makes a state for a number of queues. */
  constructor(queues: number | SharedArrayBuffer) {
    this.memory = typeof queues === "number"
      ? new SharedArrayBuffer(QUEUES * 8 + queues * QUEUE_BYTES)
      : queues;
    const count = (this.memory.byteLength - QUEUES * 8) / QUEUE_BYTES;
    const floats = QUEUES + count * QUEUE_FLOATS;
    this.#floats = new Float64Array(this.memory, 0, floats);
    this.#heats = Array.from(
      { length: count },
      (_, i) => new HeatMap(this.memory, floats * 8 + i * HEAT_BYTES),
    );
    this.#lost = new Int32Array(this.memory, LOST * 8, 1);
  }

  /** The capacity in force, in sectors. */
  get capacitySectors(): number {
    return this.#floats[CAPACITY];
  }
  set capacitySectors(sectors: number) {
    this.#floats[CAPACITY] = sectors;
  }

  /**
   * The errno of the first flush that failed, or 0. Earlier writes may be lost, and the kernel
   * reports that once (errseq_t in Documentation/core-api/errseq.rst), so this stays until the
   * store is opened again.
   */
  get lostErrno(): number {
    return Atomics.load(this.#lost, 0);
  }

  /** Writes could not be made durable; the first errno stays. */
  lose(errno: number): void {
    Atomics.compareExchange(this.#lost, 0, 0, errno);
  }

  /** Counts a request of a queue. */
  count(queue: number, type: number, sector: number, outcome: number): void {
    const floats = this.#floats;
    const base = QUEUES + queue * QUEUE_FLOATS;
    floats[base + BY_TYPE + kindOf(type)]++;
    floats[base + BY_STATUS + statusOf(outcome)]++;
    this.#heats[queue].add(type, sector, floats[CAPACITY]);
    if (outcome === 0) return;
    const at = base + LATEST + (floats[base + FAILED] % FAILURES) * FAILURE_FLOATS;
    floats[at] = Date.now();
    floats[at + 1] = type;
    floats[at + 2] = sector;
    floats[at + 3] = outcome;
    floats[base + FAILED]++;
  }

  /** Where on the disk the requests of all queues were. */
  heat(): Heat {
    return HeatMap.total(this.#heats);
  }

  /** The counts of all queues. */
  counts(): RequestCounts {
    const floats = this.#floats;
    const queues = (floats.length - QUEUES) / QUEUE_FLOATS;
    const bases = Array.from({ length: queues }, (_, i) => QUEUES + i * QUEUE_FLOATS);
    const sum = (place: number) => bases.reduce((total, base) => total + floats[base + place], 0);
    return {
      requests: withoutRare([...TYPES, "other"].map((name, i) => [name, sum(BY_TYPE + i)])),
      statuses: withoutRare(STATUSES.map((name, i) => [name, sum(BY_STATUS + i)])),
      failures: bases.flatMap((base, queue) => this.#failures(base, queue))
        .sort((a, b) => a.at - b.at).slice(-FAILURES),
      lostWrites: this.lostErrno === 0 ? null : errnoName(this.lostErrno),
    };
  }

  #failures(base: number, queue: number): Failure[] {
    const floats = this.#floats;
    const total = floats[base + FAILED];
    const failures: Failure[] = [];
    for (let i = Math.max(0, total - FAILURES); i < total; i++) {
      const place = base + LATEST + (i % FAILURES) * FAILURE_FLOATS;
      const [at, type, sector, outcome] = floats.subarray(place, place + FAILURE_FLOATS);
      failures.push({ at, queue, request: typeName(type), sector, error: errorName(outcome) });
    }
    return failures;
  }
}

/** Counts by name: those of what few disks have only where there are any. */
function withoutRare(counts: [name: string, count: number][]): Record<string, number> {
  return Object.fromEntries(counts.filter(([name, count]) => count > 0 || !RARE.test(name)));
}

/** The name of a type of requests, or its number where it has none. */
export function typeName(type: number): string | number | null {
  if (type < 0) return null;
  return TYPES.find((name) => VIRTIO_BLK_T[name] === type) ?? type;
}

function errorName(outcome: number): string {
  if (outcome > 0) return errnoName(outcome);
  const refusal = Object.entries(REFUSED).find(([, value]) => value === outcome);
  return refusal?.[0].toLowerCase().replaceAll("_", " ") ?? "unknown";
}
