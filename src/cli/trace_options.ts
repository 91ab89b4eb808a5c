/**
 * The options that trace requests from the start.
 *
 * @module
 */

import { MAX_TRACE_BYTES, TRACED_EVERY } from "../runtime/defaults.ts";
import { MAX_EVERY, MIN_TRACE_BYTES, type TraceOptions } from "../runtime/trace/options.ts";
import type { Options, OptionValues } from "../virtio/mod.ts";
import { UsageError } from "./usage_error.ts";

/** The options of traces. */
export const traceOptions = {
  trace: {
    type: "text",
    placeholder: "FILE",
    about: "Trace requests, for Perfetto; as OpenTelemetry's spans if FILE ends in .jsonl",
  },
  otlp: {
    type: "text",
    placeholder: "URL",
    about: "Trace requests, to a collector of OpenTelemetry (OTLP over HTTP, as JSON)",
  },
  traceEvery: {
    type: "number",
    placeholder: "N",
    least: 1,
    most: MAX_EVERY,
    default: TRACED_EVERY,
    about: "Trace 1 in N requests",
  },
  traceMax: {
    type: "number",
    unit: "bytes",
    placeholder: "SIZE",
    least: MIN_TRACE_BYTES,
    default: MAX_TRACE_BYTES,
    about: "End that file at this size",
    needs: "trace",
  },
} as const satisfies Options;

/**
 * The trace that flags ask for, if any.
 *
 * @param instance The name of an instance: each writes a file of its own.
 * @throws {UsageError} When flags contradict each other.
 */
export function traceOf(
  values: Partial<OptionValues<typeof traceOptions>>,
  instance: string,
): TraceOptions | undefined {
  const { trace, otlp, traceEvery: every, traceMax: maxBytes } = values;
  if (trace !== undefined && otlp !== undefined) {
    throw new UsageError("Expected one of --trace and --otlp, got both");
  }
  if (otlp !== undefined) {
    if (/^https?:$/.test(URL.parse(otlp)?.protocol ?? "")) return { otlp, every };
    throw new UsageError(
      `--otlp takes a URL such as http://localhost:4318/v1/traces, got ${JSON.stringify(otlp)}`,
    );
  }
  if (trace === undefined) {
    if (every === undefined) return undefined;
    throw new UsageError(
      "--trace-every has no effect without --trace or --otlp; leave it out, or add --trace=FILE",
    );
  }
  const suffix = instance === "" ? "" : `-${instance.replaceAll("/", "_")}`;
  return { file: trace.replace(/(\.jsonl?)?$/, `${suffix}$1`), every, maxBytes };
}
