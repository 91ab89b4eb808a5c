/** One run of a guest: starts everything, and ends everything again. */
import { isColoured } from "../../src/cli/ink.ts";
import { recordText } from "../../src/cli/record_text.ts";
import { Backend, vhostdCommand } from "../lib/backend.ts";
import { run, writeAll } from "../lib/process.ts";
import { SIGNALS } from "../lib/scratch.ts";
import { exists } from "./cache.ts";
import { filesCommand } from "./files.ts";
import { bootFiles, Guest, type GuestOptions } from "./guest.ts";
import type { Plan, ServedDevice } from "./plan.ts";
import { machineArguments, qemuProgram } from "./qemu.ts";
import { copyImage } from "./root_image.ts";
import { runOnTerminal } from "./terminal.ts";
import { progress } from "./progress.ts";
import { ToolError } from "../lib/tool_error.ts";
import { GuestWatch } from "./watch.ts";

/**
 * Runs a guest until it powers off, or until a signal comes; returns the exit status: the command's
 * if there is one.
 */
export async function runSession(plan: Plan, command?: string): Promise<number> {
  const stop = new AbortController();
  for (const [name, number] of Object.entries(SIGNALS)) {
    Deno.addSignalListener(name as Deno.Signal, () => stop.abort(128 + number));
  }
  await Deno.mkdir(plan.directory, { mode: 0o700 });
  const backends: Backend[] = [];
  let watch: GuestWatch | undefined;
  let web: AsyncDisposable | undefined;
  let isDone = false;
  try {
    if (plan.copy) await copyImage(plan.copy.from, plan.copy.to);
    if (plan.files) {
      const [program, ...args] = await filesCommand(plan.files, plan.guest);
      await run(program, args);
    }
    await startBackends(plan, backends, stop);
    if (plan.isOnWeb) web = await startWeb(plan);
    stop.signal.throwIfAborted();
    const guest = { ...plan.guest, signal: stop.signal };
    if (plan.isWatched) {
      watch = watchGuest(plan);
      guest.qemuArguments = [...guest.qemuArguments ?? [], ...watch.arguments];
    }
    const status = command === undefined ? await runShell(guest) : await runCommand(guest, command);
    isDone = true;
    return status;
  } catch (error) {
    // What failed because of the stop is no news, but the stop's reason is.
    const reason = stop.signal.aborted ? stop.signal.reason : error;
    if (typeof reason === "number") return reason;
    throw reason;
  } finally {
    // QEMU has ended: some of its devices abort when a back-end goes first.
    stop.abort();
    await watch?.[Symbol.asyncDispose]();
    await web?.[Symbol.asyncDispose]();
    await Promise.all(backends.map((backend) => backend.end("SIGTERM", STOP_TIMEOUT_MS)));
    // A command's output stands alone, unless the guest has failed it.
    const stream = command === undefined ? Deno.stdout : isDone ? undefined : Deno.stderr;
    if (stream) {
      for (const { recordPath } of plan.served) await printRecord(recordPath, stream);
    }
    await Deno.remove(plan.directory, { recursive: true });
  }
}

/** How long a back-end may take to end. */
const STOP_TIMEOUT_MS = 5_000;

function watchGuest({ directory, served, guest }: Plan): GuestWatch {
  const paths = guest.devices?.map(({ socketPath }) => socketPath) ?? [];
  const started = served.filter(({ socketPath }) => paths.includes(socketPath));
  const controlPaths = started.map(({ controlPath }) => controlPath);
  return new GuestWatch({ directory, controlPaths, tell: progress });
}

async function startWeb({ served }: Plan): Promise<AsyncDisposable> {
  const { WebServer } = await import("../../src/web/web_server.ts");
  const paths = served.map(({ controlPath }) => controlPath);
  const web = await WebServer.start({ hostname: "127.0.0.1", port: 0, control: true, paths });
  progress(`the devices in a browser: ${web.url}`);
  return web;
}

function startBackend(device: ServedDevice): Backend {
  const { name, flags, socketPath, recordPath, controlPath } = device;
  const control = `--control-path=${controlPath}`;
  const places = [
    ...[`--socket-path=${socketPath}`, `--record=${recordPath}`],
    ...flags.includes(control) ? [] : [control],
  ];
  return new Backend(vhostdCommand([name, ...places, ...flags]), {
    ...{ name, socketPath, isLoud: true },
    // Ctrl-C in the terminal reaches this process, which ends QEMU before its devices.
    isDetached: true,
  });
}

/** Prints what the guest's driver understood of a device, whose back-end has ended. */
async function printRecord(
  path: string,
  stream: typeof Deno.stdout | typeof Deno.stderr,
): Promise<void> {
  if (!await exists(path)) return;
  const coloured = isColoured(stream);
  const text = recordText(JSON.parse(await Deno.readTextFile(path)), { coloured });
  await writeAll(stream, `\n${text}`);
}

async function startBackends(
  plan: Plan,
  backends: Backend[],
  stop: AbortController,
): Promise<void> {
  const { served, guest } = plan;
  progress(`starting ${served.map(({ name }) => name).join(", ")}`);
  const started = await Promise.allSettled(served.map(async (device) => {
    const backend = startBackend(device);
    backends.push(backend);
    await backend.listening();
    backend.ended.then(() => stop.abort(new ToolError(`The back-end ${device.name} has ended`)));
  }));
  for (const [i, result] of started.entries()) {
    if (result.status !== "rejected") continue;
    const { isOptional, socketPath } = served[i];
    if (!isOptional || stop.signal.aborted) throw result.reason;
    progress(`the guest has no network: ${result.reason.message}`);
    guest.devices = guest.devices?.filter((device) => device.socketPath !== socketPath);
  }
}

async function runShell(options: GuestOptions): Promise<number> {
  const qemu = await qemuProgram(options);
  const args = await machineArguments(options, await bootFiles(options));
  progress("starting QEMU; Ctrl-A X ends it");
  const { success, code } = await runOnTerminal(qemu, args, options.signal!);
  options.signal!.throwIfAborted();
  if (!success) throw new ToolError(`QEMU ended with status ${code}`);
  return 0;
}

async function runCommand(options: GuestOptions, command: string): Promise<number> {
  progress("starting QEMU");
  await using guest = await Guest.boot(options);
  const { status, bytes } = await guest.run(command, { timeoutMs: Infinity });
  await writeAll(Deno.stdout, bytes);
  await guest.powerOff();
  return status;
}
