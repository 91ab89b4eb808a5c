/**
 * The options of a trace with their limits, and its status.
 *
 * @module
 */

/** The largest divisor of a sample. */
export const MAX_EVERY = 2 ** 20;

/** The smallest limit of a file. */
export const MIN_TRACE_BYTES = 2 ** 16;

/** Where a trace goes, and how much it takes. */
export interface TraceOptions {
  /**
   * A file: one whose name ends in `.jsonl` gets spans of OpenTelemetry, one export request per
   * line, any other Chrome's trace events. Either this or `otlp` is given.
   */
  file?: string;
  /** The URL of a collector of OpenTelemetry, such as `http://localhost:4318/v1/traces`. */
  otlp?: string;
  /** Traces 1 in so many requests. @default {64} */
  every?: number;
  /** The size at which a file ends, in bytes. @default {256 MiB} */
  maxBytes?: number;
}

/** What a trace has done. */
export interface TraceStatus {
  /** `full` and `failed`: it has ended by itself. */
  state: "on" | "off" | "full" | "failed";
  /** Where it goes. */
  file?: string;
  otlp?: string;
  /** Why it has failed, or why the collector took no spans lately. */
  error?: string;
  /** 1 in so many requests is traced. */
  every?: number;
  /** Requests that were traced. */
  requests?: number;
  /** Sampled requests that are missing, as they came too fast. */
  lost?: number;
  /** Bytes written. */
  bytes?: number;
}

/**
 * Checks the options of a trace.
 *
 * @throws {TypeError} With what was expected.
 */
export function expectTraceOptions(options: TraceOptions): TraceOptions {
  const { file, otlp, every, maxBytes, ...others } = options;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    throw new TypeError(`Expected file, otlp, every, maxBytes or stop, got ${unknown}`);
  }
  if ((file === undefined) === (otlp === undefined)) {
    throw new TypeError('Expected one of "file" and "otlp", such as {"file": "/tmp/trace.json"}');
  }
  if (file !== undefined && (typeof file !== "string" || file === "" || file.includes("\0"))) {
    throw new TypeError(`Expected a path as "file", got ${JSON.stringify(file)}`);
  }
  if (otlp !== undefined && !/^https?:$/.test(URL.parse(String(otlp))?.protocol ?? "")) {
    throw new TypeError(`Expected an http URL as "otlp", got ${JSON.stringify(otlp)}`);
  }
  if (otlp !== undefined && maxBytes !== undefined) {
    throw new TypeError('Expected "maxBytes" only with "file"');
  }
  expectNumber("every", every, 1, MAX_EVERY);
  expectNumber("maxBytes", maxBytes, MIN_TRACE_BYTES, Number.MAX_SAFE_INTEGER);
  return options;
}

function expectNumber(name: string, value: unknown, least: number, most: number): void {
  if (value === undefined) return;
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most) return;
  throw new TypeError(
    `Expected a whole number from ${least} to ${most} as "${name}", got ${JSON.stringify(value)}`,
  );
}
