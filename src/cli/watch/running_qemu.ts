/**
 * Turns the trace of a running QEMU on, and puts it back as it was.
 *
 * @module
 */

import { hasReader } from "../../linux/file/fifo.ts";
import { readKernelFile } from "../../linux/mod.ts";
import { list, members, text } from "../../runtime/shape.ts";
import type { Qmp } from "./qmp.ts";
import { TRACE_EVENTS, type TraceLog, watchDirectoryOf } from "./trace_log.ts";

/** QEMU's log without `-D`. */
const STDERR = "/dev/stderr";

/** Time that QEMU may take to put its log back. */
const RESTORE_MS = 5000;

/** A trace that was turned on. */
export class TracedQemu {
  readonly #qmp: Qmp;
  /** The events that were off before. */
  readonly #events: readonly string[];
  /** The file of QEMU's log before. */
  readonly #logFile: string;

  private constructor(qmp: Qmp, events: readonly string[], logFile: string) {
    this.#qmp = qmp;
    this.#events = events;
    this.#logFile = logFile;
  }

  /**
   * Turns the trace events on and directs QEMU's log to `log`.
   *
   * @param pid The process of QEMU, if it is known.
   * @throws {Error} When this QEMU has no such trace, or another watch; it is as it was then.
   */
  static async start(qmp: Qmp, log: TraceLog, pid: number | undefined): Promise<TracedQemu> {
    const left = leftWatch(pid);
    const off: string[] = [];
    for (const name of TRACE_EVENTS) {
      const answer = await qmp.execute("trace-event-get-state", { name }).catch(() => []);
      list(members({ state: text }))(answer, "what QEMU answers to trace-event-get-state");
      const [event] = answer as { state: string }[];
      if (event === undefined || event.state === "unavailable") {
        throw new Error(`Expected a QEMU with the trace event ${name}, got one without`);
      }
      if (event.state === "disabled" || left !== undefined) off.push(name);
    }
    const traced = new TracedQemu(qmp, off, logFileOf(pid));
    const refusal = (await qmp.monitor(`logfile ${log.path}`)).trim();
    if (refusal !== "") throw new Error(`QEMU cannot write its log to ${log.path}: ${refusal}`);
    for (const name of off) await qmp.execute("trace-event-set-state", { name, enable: true });
    for (const path of left === undefined ? [] : [`${left}/trace`, left]) {
      await Deno.remove(path).catch(() => {});
    }
    return traced;
  }

  /**
   * Puts QEMU's trace and log back.
   *
   * @throws {Error} When QEMU does not answer in time.
   */
  async restore(): Promise<void> {
    const late = Promise.withResolvers<never>();
    const error = new Error("QEMU does not answer; its trace may still be on");
    const timer = setTimeout(() => late.reject(error), RESTORE_MS);
    try {
      await Promise.race([this.#restore(), late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #restore(): Promise<void> {
    for (const name of this.#events) {
      await this.#qmp.execute("trace-event-set-state", { name, enable: false });
    }
    const refusal = (await this.#qmp.monitor(`logfile ${this.#logFile}`)).trim();
    // A stderr that is a socket cannot be opened again
    if (refusal !== "") await this.#qmp.monitor("logfile /dev/null");
  }
}

/**
 * The directory of a watch that was killed: its events were off before, too.
 *
 * @throws {Error} When the watch runs.
 */
function leftWatch(pid: number | undefined): string | undefined {
  let directory: string | undefined;
  try {
    if (pid !== undefined) directory = watchDirectoryOf(pid);
  } catch {
    return undefined; // Another user's process
  }
  if (directory === undefined || !hasReader(`${directory}/trace`)) return directory;
  throw new Error("Expected a QEMU without another watch, but its log goes to one; end that first");
}

/**
 * The file of QEMU's log by its command line. Not a FIFO: QEMU, and the guest with it, would wait
 * until a process opens that for reading.
 */
function logFileOf(pid: number | undefined): string {
  if (pid === undefined) return STDERR;
  let words: string[];
  try {
    words = readKernelFile(`/proc/${pid}/cmdline`).split("\0");
  } catch {
    return STDERR;
  }
  const at = words.findLastIndex((word) => word === "-D" || word === "--D");
  const path = words[at + 1];
  if (at < 0 || path === undefined) return STDERR;
  // QEMU's own directory counts for a relative path
  const file = path.startsWith("/") ? path : `/proc/${pid}/cwd/${path}`;
  return isFifo(file) ? STDERR : path;
}

function isFifo(path: string): boolean {
  try {
    return Deno.statSync(path).isFifo ?? false;
  } catch {
    return false; // QEMU makes it again
  }
}
