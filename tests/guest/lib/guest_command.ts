/**
 * `deno task guest`, run as a user would.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { spawn, withTimeout } from "../../../tools/lib/process.ts";
import { expectNoCommandNames } from "../../frontend/lib/leftovers.ts";
import type { TemporaryDirectory } from "./helpers.ts";

const MAIN = new URL("../../../tools/guest/main.ts", import.meta.url).pathname;

/** The result of `deno task guest`. */
export interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** Options of a run. */
export interface CommandOptions {
  /** Its input. */
  stdin?: string;
  /** A signal, and the output after which it is sent. */
  signalOn?: { text: string; signal: Deno.Signal };
  /** The working directory, as `deno task` passes it. */
  calledIn?: string;
  /** A directory of programs that it finds first. */
  programs?: string;
  /** Words before the command, such as those that enter a network namespace. */
  through?: readonly string[];
  /** Further variables of its environment. */
  env?: Record<string, string>;
}

/** Runs the program of `deno task guest`, with its temporary files in `directory`. */
export async function guest(
  args: string[],
  directory: TemporaryDirectory,
  { stdin, signalOn, calledIn, programs, through = [], env }: CommandOptions = {},
): Promise<Ended> {
  const command = [Deno.execPath(), "run", "--quiet", "--allow-all", MAIN, ...args];
  const [program, ...words] = [...through, ...command];
  const child = spawn(program, words, {
    env: {
      ...{ TMPDIR: directory.path, NO_COLOR: "1" },
      ...calledIn && { INIT_CWD: calledIn },
      ...env,
      ...programs && { PATH: `${programs}:${Deno.env.get("PATH")}` },
    },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  const writer = child.stdin.getWriter();
  if (stdin !== undefined) await writer.write(new TextEncoder().encode(stdin));
  await writer.close();

  async function read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
    let text = "";
    for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      if (signalOn === undefined || !text.includes(signalOn.text)) continue;
      child.kill(signalOn.signal);
      signalOn = undefined;
    }
    return text;
  }
  const result = Promise.all([child.status, read(child.stdout), read(child.stderr)]);
  try {
    const [{ code }, stdout, stderr] = await withTimeout(
      result,
      120_000,
      () => `deno task guest ${args.join(" ")} has not ended`,
    );
    return { code, stdout, stderr };
  } catch (error) {
    child.kill("SIGKILL");
    await result;
    throw error;
  }
}

/** Expects that no process is left that names a directory. */
export async function expectNothingLeft({ path }: TemporaryDirectory): Promise<void> {
  await expectNoCommandNames(path);
  assertEquals([...Deno.readDirSync(path)].map(({ name }) => name), []);
}
