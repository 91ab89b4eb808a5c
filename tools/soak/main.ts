/** `deno task soak`: everything at once, for as long as one likes. */
import { endOnSignals } from "../lib/scratch.ts";
import { commandOf, type Options, SOAK } from "./options.ts";
import { draw } from "./plot.ts";
import { describe } from "./report.ts";
import { soak } from "./soak.ts";
import { runTool, teller } from "../lib/tool.ts";

const progress = teller("soak");

async function main(options: Options): Promise<number> {
  const interrupted = new AbortController();
  let signalled = 0;
  endOnSignals((signal, status) => {
    signalled = status;
    progress(`ending on ${signal}; once more to end at once`);
    interrupted.abort();
  });
  progress(commandOf(options));
  const report = await soak(options, progress, interrupted.signal);
  await Deno.mkdir(options.plot.replace(/[^/]*$/, "") || ".", { recursive: true });
  await Deno.writeTextFile(options.plot, draw(report));
  console.log(options.json ? toJson(report) : describe(report));
  progress(`the plot is in ${options.plot}`);
  if (signalled !== 0) return signalled;
  return report.findings.length === 0 ? 0 : 1;
}

function toJson(report: unknown): string {
  return JSON.stringify(
    report,
    (_, value) => value instanceof Map ? Object.fromEntries(value) : value,
    2,
  );
}

if (import.meta.main) await runTool(SOAK, main);
