/**
 * Latency histograms of a queue, by kind of request: its thread writes them, anyone may read them.
 *
 * Buckets are log-linear, four to a doubling, so a percentile is at most 25 % too high. The latency
 * of a request lasts from the moment the device gets it until the driver can see its completion.
 *
 * @module
 */

import type { AnyDevice, QueueDefinition, Queues } from "../virtio/mod.ts";

/** The width of the first buckets, in nanoseconds: edges are multiples of it. */
const UNIT_NS = 64;

/** Four buckets of one unit, and four for each of 29 doublings: up to 137 seconds. */
const BUCKETS = 120;

// Places of a histogram, in floats
const SUM_NS = BUCKETS;
const MAX_NS = BUCKETS + 1;
const FLOATS = BUCKETS + 2;

/** The kind of all requests of a queue that distinguishes none. */
const ONE_KIND: readonly string[] = ["request"];

/** The latencies of the sampled requests of one kind. */
export interface LatencyRecord {
  /** The kind of request, as the device names it. */
  kind: string;
  /** Requests that were measured: a sample, 1 in 128 unless a trace takes more. */
  samples: number;
  /** The sum of their latencies, in microseconds. */
  totalUs: number;
  /** The latency that half of them did not exceed, in microseconds; at most 25 % too high. */
  p50Us: number;
  /** The same for 90 %. */
  p90Us: number;
  /** The same for 99 %. */
  p99Us: number;
  /** The same for 99.9 %. */
  p999Us: number;
  /** The longest latency, in microseconds. */
  maxUs: number;
  /** Samples by latency: pairs of an upper limit in microseconds and a count, without empty ones. */
  buckets: [upToUs: number, samples: number][];
}

/** The kinds of requests that a queue's definition names, or the one that stands for all. */
export function kindsOf({ kinds = ONE_KIND }: QueueDefinition): readonly string[] {
  return kinds;
}

/** The most kinds that a queue of the device has. */
function mostKinds({ queues }: AnyDevice): number {
  return Math.max(...Object.values(queues as Queues).map((queue) => kindsOf(queue).length));
}

/** The memory for the histograms of a device's queues. */
export function latencyMemory(device: AnyDevice, queues: number): SharedArrayBuffer {
  return new SharedArrayBuffer(Math.max(queues, 1) * mostKinds(device) * FLOATS * 8);
}

/** The histograms of all queues of a device. Each has one writer, the thread of its queue. */
export class Latencies {
  readonly #floats: Float64Array<SharedArrayBuffer>;
  readonly #kinds: number;

  /** Opens a view of {@linkcode latencyMemory}. */
  constructor(device: AnyDevice, memory: SharedArrayBuffer) {
    this.#floats = new Float64Array(memory);
    this.#kinds = mostKinds(device);
  }

  /** Adds a request of a kind, by its number. */
  add(queue: number, kind: number, ns: number): void {
    const floats = this.#floats;
    const at = (queue * this.#kinds + kind) * FLOATS;
    floats[at + bucketOf(ns)]++;
    floats[at + SUM_NS] += ns;
    if (ns > floats[at + MAX_NS]) floats[at + MAX_NS] = ns;
  }

  /** The histograms of a queue as plain values, without kinds that have no samples. */
  toJSON(queue: number, definition: QueueDefinition): LatencyRecord[] {
    return kindsOf(definition).flatMap((kind, i) => {
      const at = (queue * this.#kinds + i) * FLOATS;
      const floats = this.#floats.slice(at, at + FLOATS);
      const buckets: LatencyRecord["buckets"] = [];
      for (let i = 0; i < BUCKETS; i++) {
        if (floats[i] > 0) buckets.push([edgeOf(i + 1) / 1000, floats[i]]);
      }
      if (buckets.length === 0) return [];
      return summarize(kind, buckets, floats[SUM_NS] / 1000, floats[MAX_NS] / 1000);
    });
  }
}

/** The latencies of a kind, whose samples are in `buckets`. */
export function summarize(
  kind: string,
  buckets: LatencyRecord["buckets"],
  totalUs: number,
  maxUs: number,
): LatencyRecord {
  const upTo = (part: number) => Math.min(percentile(buckets, part), maxUs);
  return {
    kind,
    samples: buckets.reduce((sum, [, count]) => sum + count, 0),
    totalUs,
    p50Us: upTo(0.5),
    p90Us: upTo(0.9),
    p99Us: upTo(0.99),
    p999Us: upTo(0.999),
    maxUs,
    buckets,
  };
}

/** The upper limit of the bucket with the sample that a part of all do not exceed. */
function percentile(buckets: LatencyRecord["buckets"], part: number): number {
  let left = buckets.reduce((sum, [, count]) => sum + count, 0) * part;
  for (const [upToUs, count] of buckets) {
    left -= count;
    if (left <= 0) return upToUs;
  }
  return 0;
}

/** The bucket of a latency; the last one takes what is longer. */
function bucketOf(ns: number): number {
  const units = ns >= UNIT_NS * 2 ** 31 ? 0x7fff_ffff : ns / UNIT_NS | 0;
  if (units < 4) return units < 0 ? 0 : units;
  const doublings = 29 - Math.clz32(units);
  return 4 * doublings + (units >> doublings);
}

/** The lower limit of a bucket, in nanoseconds. */
function edgeOf(bucket: number): number {
  if (bucket < 4) return bucket * UNIT_NS;
  return (4 + bucket % 4) * 2 ** (Math.floor(bucket / 4) - 1) * UNIT_NS;
}
