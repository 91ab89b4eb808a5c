/**
 * vhostd's devices, each served by a process of its own.
 *
 * @module
 */

import type { DeviceDescription } from "../../src/cli/describe_text.ts";
import { isColoured } from "../../src/cli/ink.ts";
import { recordText } from "../../src/cli/record_text.ts";
import type { DeviceOption } from "./options.ts";
import { exists } from "./cache.ts";
import { spawn, withTimeout } from "../lib/process.ts";
import { ToolError } from "../lib/tool_error.ts";

const VHOSTD = new URL("../../main.ts", import.meta.url).pathname;

const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 5_000;

/** The command that runs vhostd with some arguments. */
export function vhostdCommand(...args: string[]): [string, ...string[]] {
  const config = args.filter((arg) => /^[^-].*\.m?[tj]s$/.test(arg)).map(configOf).find(Boolean);
  const own = config === undefined ? [] : [`--config=${config}`];
  return [Deno.execPath(), "run", "--quiet", "--allow-all", ...own, VHOSTD, ...args];
}

/**
 * The deno.json of the folder that a device's module is in, if it leads to
 * vhostd as that of `vhostd new` does: the device may import what only that knows.
 */
function configOf(module: string): string | undefined {
  try {
    const path = `${Deno.realPathSync(module).replace(/[^/]*$/, "")}deno.json`;
    const { links } = JSON.parse(Deno.readTextFileSync(path));
    return Array.isArray(links) && links.length > 1 ? path : undefined;
  } catch {
    return undefined; // There is none, or it is somebody's with comments.
  }
}

export type { DeviceDescription };

/**
 * What a device's definition says.
 *
 * @param name The device's name, or the path of its module.
 * @throws {ToolError} With what vhostd says when there is no such device.
 */
export async function describeDevice(name: string): Promise<DeviceDescription> {
  const [program, ...args] = vhostdCommand("describe", "--json", name);
  const child = spawn(program, args, { stdin: "null", stdout: "piped", stderr: "piped" });
  const [{ success }, stdout, stderr] = await Promise.all([
    child.status,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  if (!success) throw new ToolError(stderr.trim() || `vhostd cannot describe ${name}`);
  return JSON.parse(stdout);
}

/** A running back-end. */
export class Backend {
  /** Resolves when the back-end ends, for whatever reason. */
  readonly ended: Promise<Deno.CommandStatus>;
  #process: Deno.ChildProcess;
  #recordPath: string;

  private constructor(process: Deno.ChildProcess, recordPath: string) {
    this.#process = process;
    this.#recordPath = recordPath;
    this.ended = process.status;
  }

  /**
   * Starts a back-end, and waits until it listens.
   *
   * @param device The device and its flags.
   * @param socketPath The socket on which it listens, as it says on stderr.
   * @param recordPath Where it writes its record when it ends.
   * @throws {ToolError} With what the back-end says when it cannot start.
   */
  static async start(
    { name, flags }: DeviceOption,
    socketPath: string,
    recordPath: string,
  ): Promise<Backend> {
    const [program, ...args] = vhostdCommand(
      ...[name, `--socket-path=${socketPath}`, `--record=${recordPath}`],
      ...flags,
    );
    const process = spawn(program, args, {
      stdin: "null",
      stdout: "null",
      stderr: "piped",
      // Ctrl-C in the terminal is for us, who end QEMU before its devices.
      detached: true,
    });
    const backend = new Backend(process, recordPath);
    await withTimeout(
      listening(process.stderr, socketPath),
      START_TIMEOUT_MS,
      () => `The back-end ${name} does not listen on ${socketPath}`,
    );
    return backend;
  }

  /** Ends the back-end and waits until it is gone. */
  async stop(): Promise<void> {
    this.#kill("SIGTERM");
    const timer = setTimeout(() => this.#kill("SIGKILL"), STOP_TIMEOUT_MS);
    await this.ended;
    clearTimeout(timer);
  }

  /** Prints what the guest's driver understood; the back-end has ended. */
  async printRecord(stream: typeof Deno.stdout | typeof Deno.stderr): Promise<void> {
    if (!await exists(this.#recordPath)) return;
    const text = recordText(JSON.parse(await Deno.readTextFile(this.#recordPath)), {
      coloured: isColoured(stream),
    });
    const bytes = new TextEncoder().encode(`\n${text}`);
    for (let at = 0; at < bytes.length;) at += await stream.write(bytes.subarray(at));
  }

  #kill(signal: Deno.Signal): void {
    try {
      this.#process.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // It has ended.
    }
  }
}

/**
 * Resolves when the back-end says that it listens. What it says later on is
 * passed on, and what it says instead is the reason why it does not.
 */
function listening(
  stderr: ReadableStream<Uint8Array>,
  socketPath: string,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  (async () => {
    let text = "";
    let listens = false;
    for await (const chunk of stderr.pipeThrough(new TextDecoderStream())) {
      if (listens) {
        await Deno.stderr.write(new TextEncoder().encode(chunk));
        continue;
      }
      text += chunk;
      listens = text.includes(socketPath) && text.endsWith("\n");
      if (listens) resolve();
    }
    reject(new ToolError(text.trim() || "The back-end ended without a word"));
  })();
  return promise;
}
