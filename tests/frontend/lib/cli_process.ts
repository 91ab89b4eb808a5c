/**
 * The real command line in a process of its own, for tests.
 *
 * @module
 */

const ROOT = new URL("../../../", import.meta.url);

/** Time limit for an expected text, in milliseconds. */
const LIMIT_MS = 60_000;

/** The result of a command line. */
export interface CliResult {
  status: number;
  stdout: string;
  stderr: string;
}

/** How to start the command line. */
export interface CliOptions {
  /** Its permission flags. @default {["--allow-all"]} */
  permissions?: readonly string[];
  env?: Record<string, string>;
  /** The module to run. @default {"main.ts"} */
  main?: string;
  /** A command that becomes it, such as one that ends in `exec "$@"`. */
  through?: readonly string[];
}

function command(args: readonly string[], options: CliOptions): Deno.Command {
  const { permissions = ["--allow-all"], env, main = "main.ts", through = [] } = options;
  // It ends when this process ends.
  return new Deno.Command("setpriv", {
    args: [
      "--pdeathsig",
      "KILL",
      "--",
      ...through,
      Deno.execPath(),
      "run",
      "--quiet",
      "--no-prompt",
      ...permissions,
      main,
      ...args,
    ],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs a command line to its end. */
export async function runCli(
  args: readonly string[],
  options: CliOptions = {},
): Promise<CliResult> {
  const { code, stdout, stderr } = await command(args, options).output();
  const decoder = new TextDecoder();
  return { status: code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** A running command line, which the end of the `await using` block ends. */
export class CliProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #stderr: ReadableStreamDefaultReader<string>;
  readonly #stdout: ReadableStreamDefaultReader<string>;
  #rest = "";

  constructor(args: readonly string[], options: CliOptions = {}) {
    this.#child = command(args, options).spawn();
    this.#stderr = this.#child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    this.#stdout = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /**
   * Reads stderr until it has `text`.
   *
   * @returns The text since the last call, up to the end of the line that has `text`.
   * @throws {Error} When stderr ends before, or after a timeout, which ends the process.
   */
  async until(text: string): Promise<string> {
    const late = setTimeout(() => this.#child.kill("SIGKILL"), LIMIT_MS);
    try {
      return await this.#until(text);
    } finally {
      clearTimeout(late);
    }
  }

  async #until(text: string): Promise<string> {
    for (;;) {
      const at = this.#rest.indexOf(text);
      const end = at < 0 ? -1 : this.#rest.indexOf("\n", at);
      if (end >= 0) {
        const result = this.#rest.slice(0, end + 1);
        this.#rest = this.#rest.slice(end + 1);
        return result;
      }
      const { value, done } = await this.#stderr.read();
      if (done) throw new Error(`Expected ${text} on stderr, got its end after: ${this.#rest}`);
      this.#rest += value;
    }
  }

  /** Reads a piece of stdout; undefined at its end. */
  async readStdout(): Promise<string | undefined> {
    return (await this.#stdout.read()).value;
  }

  get pid(): number {
    return this.#child.pid;
  }

  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Waits for its end; returns the exit status and the unread rest of stderr. */
  async end(): Promise<{ status: number; stderr: string }> {
    for (;;) {
      const { value, done } = await this.#stderr.read();
      if (done) break;
      this.#rest += value;
    }
    const { code } = await this.#child.status;
    return { status: code, stderr: this.#rest };
  }

  /** Ends it with a signal; see {@linkcode CliProcess.end}. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<{ status: number; stderr: string }> {
    this.kill(signal);
    return await this.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#child.status;
    await this.#stderr.cancel();
    await this.#stdout.cancel();
  }
}
