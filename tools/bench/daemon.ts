/**
 * A back-end that runs.
 *
 * @module
 */

import { spawn } from "../lib/process.ts";
import { processTime } from "./clock.ts";
import { ToolError } from "../lib/tool_error.ts";

/** How long a back-end may take to listen, or to end. */
const TIMEOUT_MS = 10_000;

/** A back-end's process. It ends with this one, however that ends. */
export class Daemon implements AsyncDisposable {
  /** Its process. */
  readonly pid: number;
  /** Rejects when it ends before it is told to. Never resolves. */
  readonly failed: Promise<never>;
  readonly #child: Deno.ChildProcess;
  readonly #stdout: Promise<string>;
  readonly #stderr: Promise<string>;
  #isStopping = false;

  /** Starts it. */
  constructor([program, ...args]: readonly [string, ...string[]]) {
    this.#child = spawn(program, args, {
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
    this.pid = this.#child.pid;
    this.#stdout = new Response(this.#child.stdout).text();
    this.#stderr = new Response(this.#child.stderr).text();
    this.failed = this.#fail(`${program} ${args.join(" ")}`);
    this.failed.catch(() => {});
  }

  async #fail(command: string): Promise<never> {
    const { code, signal } = await this.#child.status;
    if (this.#isStopping) return await new Promise<never>(() => {});
    const reason = (await this.#stderr).trim().split("\n").slice(-3).join("; ");
    throw new ToolError(
      `Expected it to run, but it ended with ${
        signal ?? `status ${code}`
      }: ${reason}\n  command: ${command}`,
    );
  }

  /** Its processor time until now, in microseconds. */
  processorUs(): number {
    return processTime(this.pid) / 1000;
  }

  /** Its resident memory in bytes, without the memory that it shares with the driver. */
  residentBytes(): number {
    const status = Deno.readTextFileSync(`/proc/${this.pid}/status`);
    const kib = (name: string) => Number(status.match(`${name}:\\s+(\\d+) kB`)?.[1]);
    return (kib("RssAnon") + kib("RssFile")) * 1024;
  }

  /** Waits until something connects to a socket of its; closes the connection. */
  async listening(path: string): Promise<void> {
    const deadline = performance.now() + TIMEOUT_MS;
    const connect = async () => {
      for (;;) {
        try {
          (await Deno.connect({ transport: "unix", path })).close();
          return;
        } catch (error) {
          if (!isNotYet(error) || performance.now() > deadline) throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    };
    await Promise.race([connect(), this.failed]);
  }

  /**
   * Ends it, and waits for that.
   *
   * @returns What it wrote to stdout
   */
  async stop(): Promise<string> {
    this.#isStopping = true;
    this.#kill("SIGTERM");
    const timer = setTimeout(() => this.#kill("SIGKILL"), TIMEOUT_MS);
    await this.#child.status;
    clearTimeout(timer);
    await this.#stderr;
    return await this.#stdout;
  }

  #kill(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch { /* It has ended. */ }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

function isNotYet(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.ConnectionRefused;
}
