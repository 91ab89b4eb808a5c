/**
 * The trace of a device: at most one at a time, switched while the device runs.
 *
 * @module
 */

import { expectTraceOptions, type TraceOptions, type TraceStatus } from "./options.ts";
import type { TracedDevice, Tracer } from "./tracer.ts";

/** Switches the trace of a device. */
export class Tracing {
  readonly #device: TracedDevice;
  #tracer: Tracer | undefined;

  /** Begins without one. */
  constructor(device: TracedDevice) {
    this.#device = device;
  }

  /** The status of the trace that runs, or of the last one. */
  get status(): TraceStatus {
    return this.#tracer?.status ?? { state: "off" };
  }

  /**
   * Begins a trace.
   *
   * @throws {TypeError} When one runs, or the file cannot be written.
   */
  async start(options: TraceOptions): Promise<TraceStatus> {
    const { Tracer } = await import("./tracer.ts");
    if (this.status.state === "on") {
      throw new TypeError(`A trace runs already, into ${this.status.file ?? this.status.otlp}`);
    }
    try {
      this.#tracer = new Tracer(this.#device, options);
    } catch (cause) {
      throw new TypeError(`Cannot write the trace: ${(cause as Error).message}`, { cause });
    }
    return this.status;
  }

  /** Ends the trace, if one runs. */
  async stop(): Promise<TraceStatus> {
    await this.#tracer?.stop();
    return this.status;
  }

  /**
   * Carries out `POST /trace`.
   *
   * @param body `{"file": "/…"}` or `{"otlp": "http://…"}`, with `every` and `maxBytes` if wanted,
   * or `{"stop": true}`.
   * @throws {TypeError} When it is none of these.
   */
  async post(body: unknown): Promise<TraceStatus> {
    const { stop, ...options } = Object(body) as TraceOptions & { stop?: unknown };
    if (stop === true && Object.keys(options).length === 0) return await this.stop();
    if (stop !== undefined) throw new TypeError('Expected "stop" to be true and alone');
    const { file } = expectTraceOptions(options);
    if (file?.startsWith("/") === false) {
      throw new TypeError(`Expected an absolute path as "file", got ${JSON.stringify(file)}`);
    }
    return await this.start(options);
  }
}
