/**
 * A back-end in a process of its own that may be killed and started again.
 *
 * @module
 */

import type { RecordJson } from "../../src/runtime/record.ts";
import { vhostdCommand } from "../guest/backend.ts";
import { spawn, withTimeout } from "../lib/process.ts";
import type { Process, ProcessTable } from "./processes.ts";
import { ToolError } from "../lib/tool_error.ts";

/** How long a back-end may take to listen, to end or to answer. */
const TIMEOUT_MS = 30_000;

/** How much of what it says last is kept, in characters: it may say why it ended. */
const MAX_WORDS = 2000;

/** What a back-end serves. */
export interface BackendOptions {
  /** What it is called in the report. */
  name: string;
  /** The device, such as `blk`. */
  device: string;
  /** The device's flags. */
  flags: readonly string[];
  /** The directory of its sockets. */
  directory: string;
}

/** A back-end of one device: always the same socket, one process after the other. */
export class Backend implements AsyncDisposable {
  readonly name: string;
  readonly socketPath: string;
  readonly #options: BackendOptions;
  readonly #controlPath: string;
  readonly #processes: ProcessTable;
  readonly #control: Deno.HttpClient;
  #child: Deno.ChildProcess | undefined;
  #seen: Process | undefined;
  #isEnding = false;
  /** Rejects when it ends and nobody asked for that. Never resolves. */
  readonly failed: Promise<never>;
  #fail: (error: Error) => void;
  /** How often it was started. */
  starts = 0;

  /** Nothing is started yet. */
  constructor(options: BackendOptions, processes: ProcessTable) {
    this.#options = options;
    this.name = options.name;
    this.#processes = processes;
    this.socketPath = `${options.directory}/${options.name}.sock`;
    this.#controlPath = `${options.directory}/${options.name}.control`;
    this.#control = Deno.createHttpClient({
      proxy: { transport: "unix", path: this.#controlPath },
    });
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => {});
    [this.failed, this.#fail] = [promise, reject];
  }

  /** Starts a process, and waits until it listens. */
  async start(): Promise<void> {
    const { device, flags } = this.#options;
    const [program, ...args] = vhostdCommand(
      ...[device, `--socket-path=${this.socketPath}`, `--control-path=${this.#controlPath}`],
      ...flags,
    );
    const child = this.#child = spawn(program, args, {
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
      // A Ctrl-C is for the soak, which ends it in its own time.
      detached: true,
    });
    this.starts++;
    this.#isEnding = false;
    const { promise: listens, resolve } = Promise.withResolvers<void>();
    const words = listen(child.stderr, `listens on ${this.socketPath}`, resolve);
    const ended = child.status.then(async ({ code, signal }) => {
      if (this.#isEnding && this.#child === child) return;
      const error = new ToolError(
        `${this.name} ended by itself, with ${signal ?? `status ${code}`}: ${await words}`,
      );
      this.#fail(error);
      throw error;
    });
    ended.catch(() => {});
    await withTimeout(
      Promise.race([listens, ended]),
      TIMEOUT_MS,
      () => `${this.name} does not listen after ${TIMEOUT_MS} ms`,
    );
    this.#seen = this.#processes.add(this.name, child.pid);
  }

  /**
   * Ends the process, and waits until it is gone.
   *
   * @throws {ToolError} When it does not end in time, or not well
   */
  async end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#isEnding = true;
    if (this.#seen !== undefined) this.#seen.hasEnded = true;
    child.kill(signal);
    const status = await withTimeout(
      child.status,
      TIMEOUT_MS,
      () => `${this.name} has not ended ${TIMEOUT_MS} ms after ${signal}`,
    );
    this.#child = undefined;
    if (signal === "SIGTERM" && !status.success) {
      throw new ToolError(`${this.name} ended with status ${status.code} on SIGTERM`);
    }
  }

  /** Sends a signal that does not end it. */
  tell(signal: "SIGHUP"): void {
    this.#child?.kill(signal);
  }

  /** Runs a command of its control socket. */
  async post(command: string, body: unknown): Promise<void> {
    await this.#ask("POST", command, JSON.stringify(body));
  }

  /** Its record as it is now. */
  async record(): Promise<RecordJson> {
    return JSON.parse(await this.#ask("GET", "record"));
  }

  async #ask(method: string, path: string, body?: string): Promise<string> {
    const response = await fetch(`http://localhost/${path}`, {
      client: this.#control,
      method,
      body,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const text = await response.text();
    if (!response.ok) throw new ToolError(`${this.name} refused ${method} /${path}: ${text}`);
    return text;
  }

  /** Ends it, whatever it does. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#control.close();
    if (this.#child === undefined) return;
    this.#isEnding = true;
    try {
      this.#child.kill("SIGKILL");
    } catch { /* It has ended. */ }
    await this.#child.status;
  }
}

/** Reads what a process says: calls `found` when it says a text, and returns its last words. */
async function listen(
  stderr: ReadableStream<Uint8Array<ArrayBuffer>>,
  text: string,
  found: () => void,
): Promise<string> {
  let words = "";
  for await (const chunk of stderr.pipeThrough(new TextDecoderStream())) {
    words = (words + chunk).slice(-MAX_WORDS);
    if (words.includes(text)) found();
  }
  return words.trim();
}
