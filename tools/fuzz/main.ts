/**
 * `deno task fuzz`: hostile guests, hostile front-ends and failing storage.
 *
 * @module
 */

import type { ChildMessage } from "./child.ts";
import { checkOptions, FUZZ, type Options } from "./options.ts";
import { spawn } from "../lib/process.ts";
import { endOnSignals, Scratch } from "../lib/scratch.ts";
import { loadTarget, targetNames } from "./targets.ts";
import { runTool, teller } from "../lib/tool.ts";

/** How long a target may say nothing before it counts as hanging. */
const SILENCE_MS = 120_000;

/** How often progress is told to a person. */
const TELL_MS = 2000;

/** The last lines of a child that died are kept, for they may say why. */
const MAX_STDERR_BYTES = 4096;

type Outcome = Extract<ChildMessage, { kind: "report" | "finding" }>;

const progress = teller("fuzz");

async function main(args: Parameters<typeof checkOptions>[0]): Promise<number> {
  const options = checkOptions(args);
  if (options.list) {
    for (const name of targetNames()) {
      console.log(`${name.padEnd(8)}  ${(await loadTarget(name)).about}`);
    }
    return 0;
  }
  using scratch = new Scratch("vhostd-fuzz-");
  endOnSignals();
  let findings = 0;
  for (const name of options.targets) {
    const command = `deno task fuzz ${name} --seed=${options.seed} --cases=${options.cases}`;
    progress(command);
    const started = performance.now();
    const outcome = await runTarget(name, options, scratch);
    const seconds = (performance.now() - started) / 1000;
    if (outcome.kind === "report") {
      console.log(table(name, options.seed, seconds, outcome));
    } else {
      findings++;
      console.log(`${name}, seed ${options.seed}: ${outcome.message}\nrepeat it by: ${command}\n`);
    }
  }
  if (options.coverage !== undefined) await printCoverage(options.coverage);
  return findings === 0 ? 0 : 1;
}

/** Runs a target in a process of its own, to its end however it comes. */
async function runTarget(name: string, options: Options, scratch: Scratch): Promise<Outcome> {
  const { seed, cases, coverage } = options;
  const child = spawn(
    Deno.execPath(),
    [
      "run",
      "--quiet",
      "--allow-all",
      ...coverage === undefined ? [] : [`--coverage=${coverage}`],
      new URL("./child.ts", import.meta.url).pathname,
      name,
      String(seed),
      String(cases),
    ],
    {
      // What it makes goes, also when it crashes.
      env: { TMPDIR: scratch.directory() },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    },
  );
  scratch.defer(() => {
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
  });
  const stderr = tail(child.stderr);
  let done = 0;
  let told = performance.now();
  let outcome: Outcome | undefined;
  let isSilent = false;
  const fall = () => {
    isSilent = true;
    child.kill("SIGKILL");
  };
  let timer = setTimeout(fall, SILENCE_MS);
  for await (const line of lines(child.stdout)) {
    clearTimeout(timer);
    timer = setTimeout(fall, SILENCE_MS);
    const message = JSON.parse(line) as ChildMessage;
    if (message.kind !== "progress") {
      outcome = message;
      continue;
    }
    done = message.done;
    if (performance.now() - told < TELL_MS) continue;
    told = performance.now();
    progress(`${name}: ${done} of ${cases} cases`);
  }
  const status = await child.status;
  clearTimeout(timer);
  const said = await stderr;
  if (outcome !== undefined) return outcome;
  const end = isSilent
    ? `hung: it said nothing for ${SILENCE_MS / 1000} s`
    : `crashed with ${status.signal ?? `status ${status.code}`}`;
  return { kind: "finding", message: `${end}, after case ${done}${said && `\n${said}`}` };
}

async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const bytes of stream) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}

async function tail(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of stream) {
    text = (text + decoder.decode(bytes, { stream: true })).slice(-MAX_STDERR_BYTES);
  }
  return text.trim();
}

function table(
  name: string,
  seed: number,
  seconds: number,
  { report, residentMiB }: Extract<Outcome, { kind: "report" }>,
): string {
  const rows = Object.entries(report.reached).sort(([a], [b]) => a < b ? -1 : 1);
  const width = Math.max(...rows.map(([what]) => what.length));
  const digits = Math.max(...rows.map(([, count]) => String(count).length));
  return [
    `${name}: ${report.cases} cases in ${seconds.toFixed(0)} s, seed ${seed}, nothing found; ` +
    `resident memory ${residentMiB[0]} MiB before, ${residentMiB[1]} MiB after`,
    ...rows.map(([what, count]) => `  ${what.padEnd(width)}  ${String(count).padStart(digits)}`),
    "",
  ].join("\n");
}

/** Prints which part of the rings, the protocol and the devices was reached. */
async function printCoverage(directory: string): Promise<void> {
  const parts = ["src/virtqueue", "src/vhost_user", "src/virtio", "src/memory", "src/runtime"];
  const include = `/(${[...parts, "backends"].join("|")})/`;
  for (const format of [[], ["--html"]]) {
    const { success } = await new Deno.Command(Deno.execPath(), {
      args: [
        "coverage",
        "--quiet",
        `--include=${include}`,
        "--exclude=/tools/",
        ...format,
        directory,
      ],
      stdin: "null",
      stdout: format.length === 0 ? "inherit" : "null",
      stderr: "inherit",
    }).spawn().status;
    if (!success) throw new Error(`Expected a coverage report of ${directory}, got none`);
  }
}

if (import.meta.main) await runTool(FUZZ, main);
