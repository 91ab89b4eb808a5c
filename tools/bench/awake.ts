/**
 * Keeping processors awake. Waking one that sleeps deeply is most of a result at small queue
 * depths, and where they sleep depends on the machine: so both worlds are measured.
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
 * Keeps every processor awake until it is disposed of, by a process of its own, whose time
 * is not measured.
 */
export async function keepAwake(): Promise<AsyncDisposable> {
  const child = spawn(Deno.execPath(), ["run", "--quiet", "--allow-all", KEEPER], {
    stdin: "null",
    stdout: "piped",
  });
  const reader = child.stdout.getReader();
  const { done } = await reader.read();
  await reader.cancel();
  if (done) throw new ToolError("Expected a process that keeps processors awake, it ended");
  return {
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.status;
    },
  };
}
