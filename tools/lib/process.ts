/** Other programs: run to their end, or started so that they end with us. */
import { ToolError } from "./tool_error.ts";

/** Where programs are: a normal user's PATH has no mke2fs. */
const SEARCH_PATH = [...(Deno.env.get("PATH") ?? "/usr/bin:/bin").split(":"), "/usr/sbin", "/sbin"];

/** The path of a program, or `undefined` when there is none of that name. */
export function findProgram(name: string): string | undefined {
  return SEARCH_PATH.map((directory) => `${directory}/${name}`).find((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
}

/** Runs a program to its end, and takes what it says. */
export async function output(program: string, args: readonly string[], cwd?: string) {
  const child = spawn(program, args, {
    cwd,
    env: { LC_ALL: "C.UTF-8", PATH: SEARCH_PATH.join(":") },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  const texts = [child.stdout, child.stderr].map((stream) => new Response(stream).text());
  const [{ success, code }, stdout, stderr] = await Promise.all([child.status, ...texts]);
  return { success, code, stdout, stderr };
}

/** Runs a program to its end; returns what it printed on stdout. */
export async function run(program: string, args: readonly string[], cwd?: string): Promise<string> {
  const { success, code, stdout, stderr } = await output(program, args, cwd);
  if (success) return stdout;
  const reason = (stderr.trim() || stdout.trim()).replaceAll("\n", "; ");
  throw new ToolError(`${program} failed with status ${code}: ${reason}`);
}

/**
 * Starts a program that ends when this process does, however that ends. The kernel sends the signal
 * when the *thread* that started it ends: with Deno that is the one that runs the JavaScript.
 *
 * @throws The signal's reason, if it was aborted before: Deno would never end the program.
 */
export function spawn(
  program: string,
  args: readonly string[],
  options: Deno.CommandOptions,
): Deno.ChildProcess {
  options.signal?.throwIfAborted();
  return new Deno.Command("setpriv", {
    ...options,
    args: ["--pdeathsig", "KILL", "--", program, ...args],
  }).spawn();
}

/** Awaits something for a limited time, which may be `Infinity`. */
export async function withTimeout<T>(
  promise: Promise<T>,
  timeoutMs: number,
  message: () => string,
): Promise<T> {
  if (timeoutMs === Infinity) return await promise;
  const { promise: timeout, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new ToolError(message())), timeoutMs);
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/** Sends a signal to a program that may have ended. */
export function kill(child: Deno.ChildProcess, signal: Deno.Signal = "SIGKILL"): void {
  try {
    child.kill(signal);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // It has ended.
  }
}

/** The lines of what a program says, without what follows the last of them. */
export async function* lines(stream: ReadableStream<Uint8Array<ArrayBuffer>>) {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}

/** Writes all of some bytes or a text. */
export async function writeAll(
  to: { write(bytes: Uint8Array): Promise<number> },
  what: Uint8Array | string,
): Promise<void> {
  const bytes = typeof what === "string" ? new TextEncoder().encode(what) : what;
  for (let at = 0; at < bytes.length;) at += await to.write(bytes.subarray(at));
}

/** Reads until a buffer is full or the file or stream has ended; returns how many bytes there were. */
export async function readFully(
  from: { read(bytes: Uint8Array): Promise<number | null> },
  bytes: Uint8Array,
): Promise<number> {
  let at = 0;
  for (let read: number | null = 0; read !== null && at < bytes.length; at += read ?? 0) {
    read = await from.read(bytes.subarray(at));
  }
  return at;
}
