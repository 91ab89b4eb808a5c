/**
 * The process that runs one target: `child.ts NAME SEED CASES`. It tells what happens as lines of
 * JSON on stdout.
 */
import { watchesEnded } from "../../src/linux/mod.ts";
import { expectNothingLeft, type ProcessState, processState } from "../lib/process_state.ts";
import { loadTarget, Tally } from "./frame.ts";

/** What the process tells. */
export type ChildMessage =
  | { kind: "progress"; done: number }
  | { kind: "report"; reached: Tally["counts"]; residentMiB: [before: number, after: number] }
  | { kind: "finding"; message: string };

/** Cases that run first, so that what is made once for a process exists before it is counted. */
const WARM_UP_CASES = 40;

/** What memory may grow by, in MiB: far more than the garbage that V8 leaves lying around. */
const GROWTH_MIB = 256;

/** What a process holds is counted once it has been the same for so long, in milliseconds. */
const STEADY_MS = 500;

/** How long that may take. */
const SETTLE_MS = 20_000;

/** How often progress is told, in milliseconds. */
const TELL_MS = 500;

const encoder = new TextEncoder();

function tell(message: ChildMessage): void {
  const line = encoder.encode(JSON.stringify(message) + "\n");
  for (let at = 0; at < line.length;) at += Deno.stdout.writeSync(line.subarray(at));
}

function residentMiB(): number {
  return Math.round(Deno.memoryUsage().rss / 2 ** 20);
}

/** What this process holds, once nothing of it is on its way out any more. */
async function settled(): Promise<ProcessState> {
  const deadline = performance.now() + SETTLE_MS;
  let state = processState();
  for (let since = performance.now(); performance.now() - since < STEADY_MS;) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    const now = processState();
    if (JSON.stringify(now) === JSON.stringify(state)) continue;
    state = now;
    if (performance.now() < deadline) since = performance.now();
  }
  return state;
}

async function main([name, seed, cases]: string[]): Promise<void> {
  const target = await loadTarget(name);
  await target.run({ seed: 1, cases: WARM_UP_CASES, tally: new Tally(), progress() {} });
  await watchesEnded();
  const before = await settled();
  const residentBefore = residentMiB();
  const tally = new Tally();
  let told = 0;
  await target.run({
    ...{ seed: Number(seed), cases: Number(cases), tally },
    progress(done) {
      if (performance.now() - told < TELL_MS) return;
      told = performance.now();
      tell({ kind: "progress", done });
    },
  });
  await watchesEnded();
  expectNothingLeft(before, await settled());
  const residentAfter = residentMiB();
  if (residentAfter > residentBefore + GROWTH_MIB) {
    throw new Error(
      `Expected memory to grow by at most ${GROWTH_MIB} MiB, got ${residentBefore} to ${residentAfter}`,
    );
  }
  tell({ kind: "report", reached: tally.counts, residentMiB: [residentBefore, residentAfter] });
}

try {
  await main(Deno.args);
} catch (error) {
  const message = error instanceof Error ? error.stack ?? error.message : String(error);
  tell({ kind: "finding", message });
  Deno.exitCode = 1;
}
