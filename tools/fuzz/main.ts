/** `deno task fuzz`: hostile guests, hostile front-ends and failing storage. */
import { makeInk } from "../../src/cli/ink.ts";
import { table } from "../../src/cli/table.ts";
import type { ChildMessage } from "./child.ts";
import { FUZZ, type Options } from "./options.ts";
import { kill, lines, spawn } from "../lib/process.ts";
import { endOnSignals, Scratch } from "../lib/scratch.ts";
import { loadTarget, TARGETS } from "./frame.ts";
import { runTool, teller } from "../lib/tool.ts";

/** How long a target may say nothing before it counts as hanging. */
const SILENCE_MS = 120_000;

/** How often progress is told to a person. */
const TELL_MS = 2000;

/** The last lines of a child that died are kept, for they may say why. */
const MAX_STDERR_BYTES = 4096;

type FuzzReport = Extract<ChildMessage, { kind: "report" }>;
type Outcome = FuzzReport | Extract<ChildMessage, { kind: "finding" }>;

const progress = teller("fuzz");

async function main(options: Options): Promise<number> {
  if (options.list) {
    for (const name of TARGETS) console.log(`${name.padEnd(8)}  ${(await loadTarget(name)).about}`);
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
      const run = `${options.cases} cases in ${seconds.toFixed(0)} s, seed ${options.seed}`;
      console.log(describe(`${name}: ${run}`, outcome));
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
  const child = spawn(Deno.execPath(), [
    ...["run", "--quiet", "--allow-all"],
    ...coverage === undefined ? [] : [`--coverage=${coverage}`],
    ...[new URL("./child.ts", import.meta.url).pathname, name, `${seed}`, `${cases}`],
  ], {
    // What it makes goes, also when it crashes.
    env: { TMPDIR: scratch.directory() },
    ...{ stdin: "null", stdout: "piped", stderr: "piped" },
  });
  scratch.defer(() => kill(child));
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

async function tail(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  let all = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    all = (all + text).slice(-MAX_STDERR_BYTES);
  }
  return all.trim();
}

function describe(run: string, { reached, residentMiB: [before, after] }: FuzzReport): string {
  const columns = [{ title: "" }, { title: "", align: "right" }] as const;
  const rows = Object.entries(reached).sort(([a], [b]) => a < b ? -1 : 1)
    .map(([what, count]) => [what, String(count)]);
  return [
    `${run}, nothing found; resident memory ${before} MiB before, ${after} MiB after`,
    ...table(columns, rows, { ink: makeInk(false), titles: false }),
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
        ...["coverage", "--quiet", `--include=${include}`, "--exclude=/tools/"],
        ...[...format, directory],
      ],
      stdin: "null",
      stdout: format.length === 0 ? "inherit" : "null",
      stderr: "inherit",
    }).spawn().status;
    if (!success) throw new Error(`Expected a coverage report of ${directory}, got none`);
  }
}

if (import.meta.main) await runTool(FUZZ, main);
