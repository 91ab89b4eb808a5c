/** What a watch costs a guest: boots with and without one, in turn. */
import { qemuFrontend } from "../../src/cli/qemu.ts";
import { Backend, vhostdCommand } from "../lib/backend.ts";
import { processTime } from "../lib/clock.ts";
import { endOnSignals, Scratch } from "../lib/scratch.ts";
import { ratioSummary, summary } from "../bench/statistics.ts";
import { defineTool, runTool, teller } from "../lib/tool.ts";
import { Guest } from "./guest.ts";
import type { GuestDevice } from "./qemu.ts";
import { TRACE_EVENTS } from "../../src/cli/watch/trace_log.ts";
import { GuestWatch } from "./watch.ts";

const COST = defineTool({
  name: "bench:watch",
  usage: "[--pairs=N]",
  about: "Boots a guest with blk, net, rng and input, with and without QEMU's trace in turn.\n",
  options: {
    pairs: {
      type: "number",
      placeholder: "N",
      least: 1,
      most: 1000,
      default: 5,
      about: "the number of boots of each kind",
    },
  },
  notes: "QEMU's processor time is the better measure where other programs run too.\n",
  check: ({ values }) => values,
});

const tell = teller(COST.name);

/** The time to a guest's shell, and QEMU's processor time until then, in seconds. */
interface Boot {
  wall: number;
  processor: number;
}

/** Boots a guest, with a watch or with QEMU's trace in a file. */
async function boot(isWatched: boolean, logPath?: string): Promise<Boot> {
  using scratch = new Scratch("vhostd-watch-cost-");
  const directory = scratch.directory();
  await using backends = new AsyncDisposableStack();
  const devices: GuestDevice[] = [];
  const controlPaths: string[] = [];
  for (const words of [["blk", "--size=64M"], ["net", "--null"], ["rng"], ["input"]]) {
    const [kind] = words;
    const socketPath = `${directory}/${kind}.sock`, controlPath = `${directory}/${kind}.ctl`;
    if (kind === "input") words.push("--profile=keyboard");
    const places = [`--socket-path=${socketPath}`, `--control-path=${controlPath}`];
    const command = vhostdCommand([...words, ...places]);
    await backends.use(new Backend(command, { name: kind, socketPath, controlPath })).listening();
    const frontend = kind === "net"
      ? qemuFrontend({ name: kind, deviceId: 1, configBytes: 0, queues: 2 })
      : undefined;
    devices.push({ kind, socketPath, frontend });
    controlPaths.push(controlPath);
  }
  await using watch = isWatched ? new GuestWatch({ directory, controlPaths, tell }) : undefined;
  const trace = TRACE_EVENTS.flatMap((name) => ["-trace", name]);
  const start = performance.now();
  await using guest = await Guest.boot({
    devices,
    qemuArguments: logPath === undefined ? watch?.arguments : ["-D", logPath, ...trace],
  });
  const wall = (performance.now() - start) / 1000;
  const processor = processTime(guest.pid) / 1e9;
  await watch?.attached;
  await guest.powerOff();
  return { wall, processor };
}

/** Number of regions to print. */
const REGIONS = 8;

/** Boots once more, and prints how many accesses QEMU traces, and to which regions most. */
async function printAccesses(): Promise<void> {
  using scratch = new Scratch("vhostd-watch-log-");
  const path = `${scratch.directory()}/log`;
  await boot(false, path);
  const counts = new Map<string, number>();
  let all = 0;
  for (const [, name] of (await Deno.readTextFile(path)).matchAll(/ name '(.*)'$/gm)) {
    all++;
    const region = name.startsWith("virtio-") ? "virtio" : name;
    counts.set(region, (counts.get(region) ?? 0) + 1);
  }
  const most = [...counts].sort(([, a], [, b]) => b - a).slice(0, REGIONS);
  console.log(`accesses   ${all}: ${most.map((entry) => entry.join(" ")).join(", ")}, …`);
}

async function main({ pairs }: { pairs: number }): Promise<number> {
  endOnSignals();
  const pairsOf: { without: Boot; watched: Boot }[] = [];
  for (let i = 0; i < pairs; i++) {
    const first = i % 2 === 0;
    const a = await boot(first), b = await boot(!first);
    const pair = first ? { watched: a, without: b } : { watched: b, without: a };
    pairsOf.push(pair);
    const { without, watched } = pair;
    tell(
      `pair ${i + 1}: ${without.wall.toFixed(2)} s, watched ${watched.wall.toFixed(2)} s; ` +
        `processor ${without.processor.toFixed(2)} s, watched ${watched.processor.toFixed(2)} s`,
    );
  }
  for (const what of ["wall", "processor"] as const) {
    const without = pairsOf.map(({ without }) => without[what]);
    const ratio = ratioSummary(pairsOf.map(({ watched }) => watched[what]), without)!;
    const [middle, least, most] = [ratio.median, ratio.least, ratio.most]
      .map((value) => `${((value - 1) * 100).toFixed(1)} %`);
    console.log(
      `${what.padEnd(9)}  ${summary(without)!.median.toFixed(2)} s without a watch, with it ` +
        `${middle} more (${least} to ${most})`,
    );
  }
  await printAccesses();
  return 0;
}

if (import.meta.main) await runTool(COST, main);
