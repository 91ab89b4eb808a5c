/**
 * `vhostd watch`: completes the records of devices by QEMU's trace.
 *
 * @module
 */

import type { CommandShape } from "./command.ts";
import { say } from "./failure.ts";
import { parseCommand } from "./help.ts";
import { helpOption } from "./shared_options.ts";
import { UsageError } from "./usage_error.ts";
import { directoriesOf, findServed, sortPaths } from "./watch/control_client.ts";
import { Qmp } from "./watch/qmp.ts";
import { TracedQemu } from "./watch/running_qemu.ts";
import { TraceLog } from "./watch/trace_log.ts";
import { Watch } from "./watch/watch.ts";

const options = {
  qmp: { type: "text", placeholder: "PATH", about: "QEMU's QMP socket" },
  ...helpOption,
} as const;

/** For completion. */
export const shape: CommandShape = { options, operand: "file" };

const COMMAND = {
  usage: "watch --qmp=PATH [PATH …]",
  about:
    "Completes the records of the devices of a running QEMU, until SIGINT or until QEMU ends: " +
    "each access of the guest's drivers to config space and to other registers, by QEMU's trace. " +
    "Devices that are plugged in later are watched, too. " +
    "A PATH is a control socket (--control-path), or a directory with control sockets named *.ctl; by default the directories of the devices' own sockets. " +
    "While it runs, it receives QEMU's log.",
  options,
  operand: "control sockets or directories",
  operands: "any",
} as const;

/** Watches a running QEMU. */
export async function run(args: readonly string[]): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const { qmp: path } = parsed.values;
  if (typeof path !== "string") {
    throw new UsageError("Expected --qmp=PATH, QEMU's QMP socket; vhostd watch --help");
  }
  const stop = Promise.withResolvers<"stop">();
  // Ctrl-Z would stop this process, and with it the reader of QEMU's log
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGTSTP"] as const) {
    Deno.addSignalListener(signal, () => stop.resolve("stop"));
  }
  const given = sortPaths(parsed.operands);
  await using qmp = await Qmp.connect(path);
  const find = (paths: readonly string[]) =>
    findServed(
      given.sockets,
      parsed.operands.length > 0 ? given.directories : directoriesOf(paths),
    );
  await using log = new TraceLog();
  const watch = await Watch.start({ qmp, log, find, isWhole: false, tell: say });
  let how: "with front-end" | "before front-end" = "before front-end";
  try {
    const traced = await TracedQemu.start(qmp, log, watch.pid);
    try {
      protect(log, watch.pid);
      say(`watches ${watch.names.join(", ")} until SIGINT`);
      if (await Promise.race([stop.promise, qmp.ended]) !== "stop") how = "with front-end";
    } finally {
      if (how === "before front-end") await traced.restore();
    }
  } finally {
    await log.stop();
    await watch.end(how);
  }
  return 0;
}

/** Makes QEMU drop lines of its log rather than wait for this process. */
function protect(log: TraceLog, pid: number | undefined): void {
  try {
    if (pid === undefined) throw new Error("its process is not known");
    log.protect(pid);
  } catch (error) {
    say(
      `QEMU's log cannot be made non-blocking (${(error as Error).message}): ` +
        "do not stop this process, the guest would wait",
    );
  }
}
