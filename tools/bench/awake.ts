/**
 * Keeping processors awake.
 *
 * A processor that sleeps deeply takes long to wake, and at small queue depths a result is made of
 * little else. Where processors sleep depends on the machine and on what else runs, so both are
 * measured: processors that may sleep, and processors that may not.
 */
import { spawn } from "../lib/process.ts";
import { ToolError } from "../lib/tool_error.ts";

const KEEPER = new URL("./awake_worker.ts", import.meta.url).pathname;

/** What processors do while nothing runs on them. */
export type Processors = "asleep" | "awake";

/** What each means, for people. */
export const PROCESSORS: Record<Processors, string> = {
  asleep: "processors sleep while they have nothing to do",
  awake: "processors are kept awake by a thread each that runs only while nothing else does",
};

/**
 * Keeps every processor awake until it is disposed of, by a process of its own: its time is
 * nobody's that is measured.
 */
export class AwakeProcessors implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
  }

  /** Resolves when all are kept awake. */
  static async start(): Promise<AwakeProcessors> {
    const child = spawn(Deno.execPath(), ["run", "--quiet", "--allow-all", KEEPER], {
      stdin: "null",
      stdout: "piped",
    });
    const reader = child.stdout.getReader();
    const { done } = await reader.read();
    await reader.cancel();
    if (done) throw new ToolError("Expected a process that keeps processors awake, it ended");
    return new AwakeProcessors(child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
  }
}
