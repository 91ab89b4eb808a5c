/** NBD servers of others, which end with this process: nbdkit and qemu-nbd. */
import { programPath } from "../guest/programs.ts";
import { kill, spawn, withTimeout } from "./process.ts";
import { ToolError } from "./tool_error.ts";

/** How long a server may take to listen, in milliseconds. */
const LISTEN_MS = 60_000;

/** What nbdkit serves. */
export interface NbdkitOptions {
  /** The path of its Unix socket, or its TCP port at 127.0.0.1. */
  at: string | number;
  /** @default {"memory"} */
  plugin?: string;
  filters?: readonly string[];
  /** Parameters of the plugin and the filters, such as `size=64M`, and flags of nbdkit. */
  args?: readonly string[];
}

/** A running server. */
export class NbdServer implements AsyncDisposable {
  readonly pid: number;
  readonly #child: Deno.ChildProcess;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.pid = child.pid;
  }

  /** Starts nbdkit, and waits until it listens. */
  static async nbdkit(
    { at, plugin = "memory", filters = [], args = [] }: NbdkitOptions,
  ): Promise<NbdServer> {
    const program = await programPath("nbdkit");
    // One that was killed leaves its socket
    if (typeof at === "string") await Deno.remove(at).catch(() => {});
    const modules = `${await modulesOf(program)}/nbdkit`;
    return await NbdServer.#start(program, (pidFile) => [
      ...["--foreground", `--pidfile=${pidFile}`],
      ...typeof at === "string" ? [`--unix=${at}`] : ["--ip-addr=127.0.0.1", `--port=${at}`],
      ...filters.map((name) => `--filter=${modules}/filters/nbdkit-${name}-filter.so`),
      ...args.filter((arg) => arg.startsWith("-")),
      `${modules}/plugins/nbdkit-${plugin}-plugin.so`,
      ...args.filter((arg) => !arg.startsWith("-")),
    ]);
  }

  /** Starts qemu-nbd on a Unix socket, and waits until it listens. */
  static async qemuNbd(socket: string, args: readonly string[]): Promise<NbdServer> {
    const program = await programPath("qemu-nbd");
    await Deno.remove(socket).catch(() => {});
    return await NbdServer.#start(program, (pidFile) => [
      ...[`--pid-file=${pidFile}`, `--socket=${socket}`, "--persistent", ...args],
    ]);
  }

  static async #start(
    program: string,
    args: (pidFile: string) => readonly string[],
  ): Promise<NbdServer> {
    const directory = await Deno.makeTempDir({ prefix: "vhostd-nbd-" });
    using watcher = Deno.watchFs(directory);
    const child = spawn(program, args(`${directory}/pid`), {
      ...{ stdin: "null", stdout: "null", stderr: "piped" },
    });
    const words = new Response(child.stderr).text();
    const ended = child.status.then(async ({ code }) => {
      throw new ToolError(`${program} ended with status ${code}: ${(await words).trim()}`);
    });
    try {
      // Both write the file once they listen
      const listens = (async () => {
        for await (const { kind } of watcher) if (kind === "modify") return;
      })();
      await withTimeout(
        Promise.race([listens, ended]),
        LISTEN_MS,
        () => `${program} does not listen after ${LISTEN_MS} ms`,
      );
      return new NbdServer(child);
    } catch (error) {
      kill(child);
      throw error;
    } finally {
      ended.catch(() => {});
      await Deno.remove(directory, { recursive: true });
    }
  }

  /** Sends it a signal. */
  signal(signal: Deno.Signal): void {
    kill(this.#child, signal);
  }

  /** Kills it. */
  async [Symbol.asyncDispose](): Promise<void> {
    kill(this.#child);
    await this.#child.status;
  }
}

/** Where the modules of a program's package are: it is installed, or unpacked. */
async function modulesOf(program: string): Promise<string> {
  const unpacked = `${program.replace(/[^/]*$/, "")}usr/lib/x86_64-linux-gnu`;
  const isUnpacked = await Deno.stat(unpacked).then(() => true, () => false);
  return isUnpacked ? unpacked : "/usr/lib/x86_64-linux-gnu";
}
