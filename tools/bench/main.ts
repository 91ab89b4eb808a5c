/** `deno task bench`: vhostd beside qemu-storage-daemon; with `net`, beside other networks. */
import { keepAwake, PROCESSORS } from "./awake.ts";
import { Bench } from "./bench.ts";
import { compare, PeerModes } from "./compare.ts";
import { collections, residentBytes, rngThroughput, startUpMs } from "./extras.ts";
import { independentLoads } from "./independent.ts";
import { generatorCostNs } from "./echo.ts";
import { lowRates } from "./low_rates.ts";
import { checkDirectories, describeMachine } from "./machine.ts";
import { benchNet, netCells } from "./net/run.ts";
import { markdown, type Report } from "./markdown.ts";
import { allCells } from "./cells.ts";
import { BENCH, type Options } from "./options.ts";
import { endOnSignals, Scratch } from "../lib/scratch.ts";
import { peers } from "./sides.ts";
import { systemCallCounter } from "./system_calls.ts";
import { wakeUpUs } from "./wake_up.ts";
import { isExpected, runTool, teller } from "../lib/tool.ts";

const progress = teller("bench");

async function main(options: Options): Promise<number> {
  const { netFilters } = options;
  if (options.list) {
    for (const { name } of netFilters ? netCells() : allCells()) console.log(name);
    return 0;
  }
  using scratch = new Scratch("vhostd-bench-");
  endOnSignals();
  if (netFilters) return await benchNet(options, netFilters, scratch, progress);
  const report = await run(options, scratch);
  console.log(options.json ? JSON.stringify(report, null, 2) : markdown(report).trimEnd());
  return report.failures.length === 0 ? 0 : 1;
}

async function run(options: Options, scratch: Scratch): Promise<Report> {
  await checkDirectories(options);
  const counter = await systemCallCounter();
  const report: Report = {
    version: 2,
    date: new Date().toISOString(),
    machine: await describeMachine(options),
    runs: options.runs,
    seconds: options.seconds,
    wakeUpUs: {},
    chains: options.indirect ? "indirect" : "direct",
    systemCalls: counter?.about,
    cells: [],
    extras: {},
    failures: [],
  };
  await using bench = new Bench(options, scratch, counter);
  /** Measures one thing; the others go on without it. */
  async function attempt(what: string, measure: () => Promise<void> | void): Promise<void> {
    try {
      await measure();
    } catch (error) {
      if (!isExpected(error)) throw error;
      progress(`${what}: ${error.message}`);
      report.failures.push({ what, reason: error.message });
    }
  }
  if (options.withExtras) await measureExtras(bench, report, attempt);
  const modes = (await peers()).map((peer) => new PeerModes(bench, peer));
  if (!options.older) modes.splice(1);
  for (const processors of options.processors) {
    progress(PROCESSORS[processors]);
    await using _ = processors === "awake" ? await keepAwake() : null;
    report.wakeUpUs[processors] = (await wakeUpUs()).median;
    for (const [at, cell] of options.cells.entries()) {
      const place = `${processors}, ${at + 1} of ${options.cells.length}`;
      await attempt(`${cell.name}, processors ${processors}`, async () => {
        const tell = (text: string) => progress(`${place}: ${text}`);
        report.cells.push(await compare(bench, cell, processors, modes, tell));
      });
    }
  }
  await attempt("what was written", () => bench.verifyImages());
  return report;
}

async function measureExtras(
  bench: Bench,
  { extras }: Report,
  attempt: (what: string, measure: () => Promise<void> | void) => Promise<void>,
): Promise<void> {
  progress("start-up, memory, garbage, rng, low rates, load generator");
  await attempt("start-up", async () => void (extras.startUpMs = await startUpMs(bench)));
  await attempt("memory", async () => void (extras.residentBytes = await residentBytes(bench)));
  await attempt("garbage", async () => void (extras.collections = await collections(bench)));
  await attempt("rng", async () => void (extras.rng = await rngThroughput(bench)));
  await attempt("low rates", async () => void (extras.lowRates = await lowRates(bench)));
  await attempt("qemu-img", async () => {
    extras.independent = await independentLoads(bench, progress);
  });
  await attempt("load generator", () => {
    extras.generatorNs = {};
    for (const depth of [1, 32, 128]) extras.generatorNs[depth] = generatorCostNs(bench, depth);
  });
}

if (import.meta.main) await runTool(BENCH, main);
