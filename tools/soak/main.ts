/**
 * `deno task soak`: everything at once, for as long as one likes.
 *
 * @module
 */

import { shownLines } from "../../src/runtime/shown.ts";
import { GuestError } from "../guest/process.ts";
import { endOnSignals } from "../scratch.ts";
import { commandOf, HELP, parseOptions } from "./options.ts";
import { plot } from "./plot.ts";
import { describe } from "./report.ts";
import { soak } from "./soak.ts";
import { SoakError } from "./soak_error.ts";

function progress(message: string): void {
  console.error(`soak: ${shownLines(message)}`);
}

async function main(): Promise<number> {
  const options = parseOptions(Deno.args);
  if (options.help) {
    console.log(HELP.trimEnd());
    return 0;
  }
  const interrupted = new AbortController();
  let signalled = 0;
  endOnSignals((signal, status) => {
    signalled = status;
    progress(`ending on ${signal}; once more to end at once`);
    interrupted.abort();
  });
  progress(commandOf(options));
  const report = await soak(options, progress, interrupted.signal);
  await Deno.mkdir(options.plotPath.replace(/[^/]*$/, "") || ".", { recursive: true });
  await Deno.writeTextFile(options.plotPath, plot(report));
  console.log(options.json ? toJson(report) : describe(report));
  progress(`the plot is in ${options.plotPath}`);
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

if (import.meta.main) {
  try {
    Deno.exit(await main());
  } catch (error) {
    if (!(error instanceof SoakError || error instanceof GuestError)) throw error;
    progress(error.message);
    Deno.exit(1);
  }
}
