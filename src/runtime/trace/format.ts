/**
 * The formats of traces.
 *
 * @module
 */

import type { AnyDevice, QueueDefinition } from "../../virtio/mod.ts";
import { kindsOf } from "../latency.ts";
import * as Span from "./span.ts";

/** What a trace is of. */
export interface TraceSubject {
  readonly device: AnyDevice;
  /** The name of an instance. */
  readonly instance?: string;
  readonly queues: readonly { readonly index: number; readonly name: string }[];
}

/** Writes spans as text, which is ASCII. */
export interface TraceFormat {
  /** What begins a file. */
  readonly begin: string;
  /** What ends a file, at most {@linkcode MAX_END_BYTES} long. */
  end(lost: number): string;
  /** The text of a span, whose floats are in `spans` from `at` on. */
  span(spans: Float64Array, at: number): string;
  /** The text of several spans. */
  batch(spans: readonly string[]): string;
}

/** The longest end of a file. */
export const MAX_END_BYTES = 256;

/** The most bytes that a batch adds to the texts of its spans. */
export const MAX_BATCH_BYTES = 4096;

/** The title of the device, the queues' titles by index, and the names of their kinds. */
function namesOf({ device, instance, queues }: TraceSubject) {
  return {
    title: instance === undefined ? device.name : `${device.name}/${instance}`,
    queues: queues.map(({ index, name }) => `${name} ${index}`),
    kinds: queues.map(({ name }) =>
      kindsOf(device.queues[name] as QueueDefinition).map((kind) => ascii(kind))
    ),
  };
}

/** A string of JSON without its quotes, in ASCII. */
function ascii(text: string): string {
  return JSON.stringify(text).slice(1, -1).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** The phases of a request: the names of what lies between its times. */
const PHASES: readonly [name: string, from: number, to: number][] = [
  ["kicked", Span.KICK, Span.TAKE],
  ["submit", Span.TAKE, Span.SUBMIT],
  ["complete", Span.SUBMIT, Span.COMPLETE],
  ["publish", Span.COMPLETE, Span.PUBLISH],
  ["notify", Span.PUBLISH, Span.NOTIFY],
];

/**
 * Chrome's trace events, which Perfetto shows: a request is an asynchronous slice with slices for
 * its phases. Times are microseconds of CLOCK_MONOTONIC.
 *
 * Source: "Trace Event Format", JSON Object Format and Async Events.
 */
export function chromeFormat(subject: TraceSubject, pid: number): TraceFormat {
  const { title, queues, kinds } = namesOf(subject);
  const meta = (name: string, tid: number, value: string) =>
    `{"ph":"M","pid":${pid},"tid":${tid},"name":"${name}","args":{"name":"${ascii(value)}"}}`;
  const at = (ns: number) => (ns / 1000).toFixed(3);
  let id = 0;
  return {
    begin: `{"displayTimeUnit":"ns","traceEvents":[\n${
      [
        meta("process_name", 0, `vhostd ${title}`),
        ...queues.map((queue, i) => meta("thread_name", i + 1, queue)),
      ].join(",\n")
    }`,
    end: (lost) =>
      `\n],"otherData":{"clock":"CLOCK_MONOTONIC","lostRequests":"${lost}","version":"1"}}\n`,
    span(spans, from) {
      const queue = spans[from + Span.QUEUE_KIND] & 255, kind = spans[from + Span.QUEUE_KIND] >> 8;
      const head = `"cat":"request","id":${++id},"pid":${pid},"tid":${queue + 1}`;
      const begin = spans[from + Span.KICK] || spans[from + Span.TAKE];
      const end = spans[from + Span.NOTIFY] || spans[from + Span.PUBLISH];
      let text = `,\n{"ph":"b",${head},"name":"${kinds[queue][kind]}","ts":${at(begin)}` +
        `,"args":{"queue":${queue},"bytes":${spans[from + Span.BYTES]}}}`;
      for (const [name, first, last] of PHASES) {
        const start = spans[from + first], stop = spans[from + last];
        if (start === 0 || stop <= start) continue;
        text += `,\n{"ph":"b",${head},"name":"${name}","ts":${at(start)}}` +
          `,\n{"ph":"e",${head},"name":"${name}","ts":${at(stop)}}`;
      }
      return `${text},\n{"ph":"e",${head},"name":"${kinds[queue][kind]}","ts":${at(end)}}`;
    },
    batch: (spans) => spans.join(""),
  };
}

/**
 * OpenTelemetry's spans in JSON, one export request per line as its file exporter writes them: a
 * request is a span, and its times are the span's events.
 *
 * Source: https://opentelemetry.io/docs/specs/otlp/, JSON Protobuf Encoding.
 *
 * @param epochNs What to add to CLOCK_MONOTONIC for nanoseconds since 1970.
 * @param random The upper half of the trace IDs, not 0: each request is a trace of its own.
 */
export function otlpFormat(subject: TraceSubject, epochNs: bigint, random: bigint): TraceFormat {
  const { title, queues, kinds } = namesOf(subject);
  const hex = (value: number | bigint) => value.toString(16).padStart(16, "0");
  const time = (ns: number) => (BigInt(Math.round(ns)) + epochNs).toString();
  const text = (key: string, value: string) =>
    `{"key":"${key}","value":{"stringValue":"${ascii(value)}"}}`;
  const int = (key: string, value: number) => `{"key":"${key}","value":{"intValue":"${value}"}}`;
  const resource = [
    text("service.name", "vhostd"),
    text("service.instance.id", title),
    int("process.pid", Deno.pid),
  ].join(",");
  const EVENTS = [
    ["take", Span.TAKE],
    ["submit", Span.SUBMIT],
    ["complete", Span.COMPLETE],
    ["publish", Span.PUBLISH],
    ["notify", Span.NOTIFY],
  ] as const;
  let id = 0;
  return {
    begin: "",
    end: () => "",
    span(spans, from) {
      const queue = spans[from + Span.QUEUE_KIND] & 255, kind = spans[from + Span.QUEUE_KIND] >> 8;
      const begin = spans[from + Span.KICK] || spans[from + Span.TAKE];
      const end = spans[from + Span.NOTIFY] || spans[from + Span.PUBLISH];
      const events = EVENTS.flatMap(([name, place]) => {
        const ns = spans[from + place];
        return ns === 0 ? [] : `{"name":"${name}","timeUnixNano":"${time(ns)}"}`;
      });
      const number = hex(++id);
      return `{"traceId":"${hex(random)}${number}","spanId":"${number}","kind":2` +
        `,"name":"${ascii(subject.device.name)} ${kinds[queue][kind]}"` +
        `,"startTimeUnixNano":"${time(begin)}","endTimeUnixNano":"${time(end)}"` +
        `,"attributes":[${int("vhostd.queue", queue)},${text("vhostd.queue.name", queues[queue])}` +
        `,${int("vhostd.bytes", spans[from + Span.BYTES])}],"events":[${events.join(",")}]}`;
    },
    batch: (spans) =>
      `{"resourceSpans":[{"resource":{"attributes":[${resource}]},"scopeSpans":[{"scope":` +
      `{"name":"vhostd"},"spans":[${spans.join(",")}]}]}]}\n`,
  };
}
