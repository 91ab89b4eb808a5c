/**
 * Traces requests of a device: takes the spans of its queue threads, and writes them to a file or
 * sends them to a collector of OpenTelemetry.
 *
 * @module
 */

import { stampNanoseconds } from "../../linux/clock.ts";
import { AppendedFile } from "../../linux/mod.ts";
import { MAX_TRACE_BYTES, TRACED_EVERY } from "../defaults.ts";
import { DEFAULT_EVERY } from "../data_plane/request_sampler.ts";
import {
  chromeFormat,
  MAX_BATCH_BYTES,
  MAX_END_BYTES,
  otlpFormat,
  type TraceFormat,
  type TraceSubject,
} from "./format.ts";
import { FLOATS } from "./span.ts";
import { SpanRing, spanRingMemory } from "./span_ring.ts";
import type { TraceOptions, TraceStatus } from "./options.ts";

/** Time between two looks at the threads' rings. */
const PERIOD_MS = 50;

/** The most spans that are written at a time: some milliseconds of the main thread. */
const BATCH_SPANS = 512;

/** Time for a collector to take a batch. */
const POST_MS = 5000;

/** Time after a batch that it did not take. */
const PAUSE_MS = 1000;

/** Time to write the end when a trace is stopped. */
const CLOSING_MS = 2000;

/** A device whose requests can be traced. */
export interface TracedDevice extends TraceSubject {
  /** Makes the threads write spans of 1 in `every` requests to their rings, or to none. */
  trace(every: number, ringOf: ((thread: number) => SharedArrayBuffer) | null): Promise<void>;
  /** Prints a line for the person who runs the device. */
  log(message: string): void;
}

/** Takes texts of spans. */
interface Sink extends Disposable {
  /** Writes spans; returns how many of them. Fewer are the last. */
  write(spans: readonly string[]): Promise<number>;
  /** Writes the end. */
  end(lost: number): Promise<void>;
  readonly bytes: number;
}

/** A trace that runs, or that has ended. */
export class Tracer {
  readonly #device: TracedDevice;
  readonly #every: number;
  readonly #target: Pick<TraceStatus, "file" | "otlp">;
  readonly #format: TraceFormat;
  readonly #sink: Sink;
  readonly #rings: SpanRing[] = [];
  readonly #running: Promise<void>;
  #state: TraceStatus["state"] = "on";
  #error: string | undefined;
  #spans = 0;
  /** Spans that a collector did not take. */
  #refused = 0;
  #isStopping = false;
  #endPause = () => {};

  /**
   * Begins a trace.
   *
   * @throws {LinuxError} or {TypeError} When the file cannot be written.
   */
  constructor(device: TracedDevice, options: TraceOptions) {
    const { file, otlp, every = TRACED_EVERY, maxBytes = MAX_TRACE_BYTES } = options;
    this.#device = device;
    this.#every = every;
    this.#target = { file, otlp: otlp === undefined ? undefined : placeOf(otlp) };
    this.#format = otlp !== undefined || file!.endsWith(".jsonl")
      ? otlpFormat(device, epochNs(), crypto.getRandomValues(new BigUint64Array(1))[0] | 1n)
      : chromeFormat(device, Deno.pid);
    this.#sink = otlp !== undefined
      ? new CollectorSink(otlp, this.#format, (count, why) => this.#refuse(count, why))
      : new FileSink(file!, this.#format, maxBytes);
    this.#running = this.#run();
  }

  /** What it has traced. */
  get status(): TraceStatus {
    return {
      state: this.#state,
      ...this.#target,
      ...this.#error !== undefined && { error: this.#error },
      every: this.#every,
      requests: this.#spans,
      lost: this.#lost,
      bytes: this.#sink.bytes,
    };
  }

  get #lost(): number {
    return this.#refused + this.#rings.reduce((sum, ring) => sum + ring.lost, 0);
  }

  async #run(): Promise<void> {
    const device = this.#device;
    const rings: SharedArrayBuffer[] = [];
    using sink = this.#sink;
    try {
      await device.trace(this.#every, (i) => {
        rings[i] = spanRingMemory();
        this.#rings.push(new SpanRing(rings[i]));
        return rings[i];
      });
      while (this.#state === "on" && !this.#isStopping) {
        if (!await this.#drain()) await this.#pause(PERIOD_MS);
      }
      await this.#release();
      while (this.#state === "on" && await this.#drain());
      await sink.end(this.#lost);
      if (this.#state === "on") this.#state = "off";
    } catch (error) {
      this.#state = "failed";
      this.#error = (error as Error).message;
      device.log(`${this.#target.file ?? this.#target.otlp}: ${this.#error}; the trace has ended`);
      await this.#release();
    }
  }

  /** Stops the threads from writing spans. */
  #release(): Promise<void> {
    return this.#device.trace(DEFAULT_EVERY, null).catch(() => {}); // The device may be closing
  }

  /** Writes some of the spans that there are; returns whether there were any. */
  async #drain(): Promise<boolean> {
    let hasTaken = false;
    for (const ring of this.#rings) {
      if (this.#state !== "on") break;
      const spans = ring.take(BATCH_SPANS);
      if (spans.length === 0) continue;
      hasTaken = true;
      const texts = Array.from(
        { length: spans.length / FLOATS },
        (_, i) => this.#format.span(spans, i * FLOATS),
      );
      const written = await this.#sink.write(texts);
      this.#spans += written;
      if (written === texts.length) continue;
      this.#state = "full";
      this.#device.log(`${this.#target.file} is full; the trace into it has ended`);
    }
    return hasTaken;
  }

  async #refuse(count: number, why: string): Promise<void> {
    if (this.#error === undefined) {
      this.#device.log(`${this.#target.otlp} takes no spans: ${why}; they are lost`);
    }
    this.#error = why;
    this.#refused += count;
    this.#spans -= count;
    await this.#pause(PAUSE_MS);
  }

  async #pause(ms: number): Promise<void> {
    if (this.#isStopping) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#endPause = resolve;
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
  }

  /** Ends it, and waits a moment until everything is written. */
  async stop(): Promise<TraceStatus> {
    this.#isStopping = true;
    this.#endPause();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, CLOSING_MS));
    await Promise.race([this.#running, late]);
    clearTimeout(timer);
    return this.status;
  }
}

/** Why a request failed: `fetch` says that, after the URL, in the cause of its error. */
function reasonOf({ message, cause }: Error): string {
  const [, reason = message] = /^error sending request for url \(.*?\): (.*)$/s.exec(
    cause instanceof Error ? cause.message : "",
  ) ?? [];
  return reason;
}

/** A URL without what may be a secret: a password, or a key in its query. */
function placeOf(url: string): string {
  const { origin, pathname } = new URL(url);
  return origin + pathname;
}

/** What to add to CLOCK_MONOTONIC for nanoseconds since 1970. */
function epochNs(): bigint {
  const times = new Float64Array(1);
  stampNanoseconds(times, 0);
  const us = Math.round((performance.timeOrigin + performance.now()) * 1000);
  return BigInt(us) * 1000n - BigInt(times[0]);
}

/** A file of limited size. */
class FileSink implements Sink {
  bytes = 0;
  readonly #file: AppendedFile;
  readonly #format: TraceFormat;
  readonly #maxBytes: number;

  constructor(path: string, format: TraceFormat, maxBytes: number) {
    this.#file = new AppendedFile(path);
    this.#format = format;
    this.#maxBytes = maxBytes;
  }

  async write(spans: readonly string[]): Promise<number> {
    let left = this.#maxBytes - this.bytes - MAX_END_BYTES - MAX_BATCH_BYTES;
    if (this.bytes === 0) left -= this.#format.begin.length;
    let count = 0;
    while (count < spans.length && left >= spans[count].length + 1) {
      left -= spans[count++].length + 1;
    }
    if (count > 0) await this.#write(this.#format.batch(spans.slice(0, count)));
    return count;
  }

  async end(lost: number): Promise<void> {
    await this.#write(this.#format.end(lost));
  }

  async #write(text: string): Promise<void> {
    const begun = this.bytes === 0 ? this.#format.begin + text : text;
    await this.#file.write(new TextEncoder().encode(begun));
    this.bytes += begun.length;
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

/** A collector of OpenTelemetry that takes OTLP over HTTP, as JSON. */
class CollectorSink implements Sink {
  bytes = 0;
  readonly #url: string;
  readonly #format: TraceFormat;
  readonly #refuse: (count: number, why: string) => Promise<void>;

  constructor(
    url: string,
    format: TraceFormat,
    refuse: (count: number, why: string) => Promise<void>,
  ) {
    this.#url = url;
    this.#format = format;
    this.#refuse = refuse;
  }

  async write(spans: readonly string[]): Promise<number> {
    const body = this.#format.batch(spans);
    try {
      const response = await fetch(this.#url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
        redirect: "error",
        signal: AbortSignal.timeout(POST_MS),
      });
      await response.body?.cancel();
      if (!response.ok) throw new Error(`status ${response.status}`);
      this.bytes += body.length;
    } catch (error) {
      await this.#refuse(spans.length, reasonOf(error as Error));
    }
    return spans.length;
  }

  async end(): Promise<void> {}

  [Symbol.dispose](): void {}
}
