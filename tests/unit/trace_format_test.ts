/** Traces, read by other programs' code: Chrome's DevTools and OpenTelemetry's protocol buffers. */
import { assertEquals } from "@std/assert";
import root from "@opentelemetry/otlp-transformer/build/src/generated/root.js";
import { createMatchedSortedSyntheticEvents } from "@paulirish/trace_engine/models/trace/helpers/Trace.js";
import { TraceModel } from "@paulirish/trace_engine/models/trace/trace.js";
import { chromeFormat, otlpFormat, type TraceFormat } from "../../src/runtime/trace/format.ts";
import * as Span from "../../src/runtime/trace/span.ts";
import type { AnyDevice } from "../../src/virtio/mod.ts";

const subject = {
  device: {
    name: "dev",
    queues: { requestq: { about: "Requests", kinds: ["read", 'wr"ite é'] } },
  } as unknown as AnyDevice,
  instance: "one",
  queues: [{ index: 0, name: "requestq" }],
};

/** A trace of a read, and of a write 9 µs later that was neither kicked nor notified. */
function traceOf(format: TraceFormat): string {
  const spans = new Float64Array(32);
  for (const [i, first] of [[0, 1000], [16, 10_000]]) {
    const times = [Span.KICK, Span.TAKE, Span.SUBMIT, Span.COMPLETE, Span.PUBLISH, Span.NOTIFY];
    times.forEach((at, step) => spans[i + at] = first + 1000 * step);
    spans[i + Span.BYTES] = 512;
  }
  spans[16 + Span.QUEUE_KIND] = 1 << 8;
  spans[16 + Span.KICK] = spans[16 + Span.NOTIFY] = 0;
  const texts = [format.span(spans, 0), format.span(spans, 16)];
  return format.begin + format.batch(texts) + format.end(3);
}

Deno.test("Chrome's DevTools read a trace, and find each request and phase with its duration", async () => {
  const { traceEvents } = JSON.parse(traceOf(chromeFormat(subject, 42)));
  const model = TraceModel.Model.createWithAllHandlers();
  await model.parse(traceEvents);
  const events = createMatchedSortedSyntheticEvents(
    traceEvents.filter(({ ph }: { ph: string }) => ph !== "M"),
  ) as { name: string; ts: number; dur: number }[];
  assertEquals(events.map(({ name, ts, dur }) => [name, ts, dur]), [
    ["read", 1, 5],
    ...[["kicked", 1, 1], ["submit", 2, 1], ["complete", 3, 1], ["publish", 4, 1]],
    ["notify", 5, 1],
    ['wr"ite é', 11, 3],
    ...[["submit", 11, 1], ["complete", 12, 1], ["publish", 13, 1]],
  ]);
});

Deno.test("OpenTelemetry's protocol buffers have each field of a trace", () => {
  // deno-lint-ignore no-explicit-any
  const { opentelemetry } = root as any;
  const { ExportTraceServiceRequest } = opentelemetry.proto.collector.trace.v1;
  const lines = traceOf(otlpFormat(subject, 10n ** 18n, 77n)).trimEnd().split("\n");
  for (const line of lines) {
    const request = JSON.parse(line, (name, value) =>
      // JSON of OTLP has them in hexadecimal, where protocol buffers have base64
      /^(trace|span)Id$/.test(name) ? Uint8Array.fromHex(value).toBase64() : value);
    const message = ExportTraceServiceRequest.fromObject(request);
    const bytes = ExportTraceServiceRequest.encode(message).finish();
    const back = ExportTraceServiceRequest.toObject(ExportTraceServiceRequest.decode(bytes), {
      ...{ longs: String, bytes: String },
    });
    assertEquals(back, request);
  }
});
