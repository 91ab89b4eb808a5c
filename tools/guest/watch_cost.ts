/** What a watch costs a guest: boots with and without one, in turn. */
import { qemuFrontend } from "../../src/cli/qemu.ts";
import { Backend, vhostdCommand } from "../lib/backend.ts";
import { processTime } from "../lib/clock.ts";
import { endOnSignals, Scratch } from "../lib/scratch.ts";
import { ratioSummary, summary } from "../bench/statistics.ts";
import { defineTool, runTool, teller } from "../lib/tool.ts";
import { Guest } from "./guest.ts";
import type { GuestDevice } from "./qemu.ts";
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

async function boot(isWatched: boolean): Promise<Boot> {
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
  const start = performance.now();
  await using guest = await Guest.boot({ devices, qemuArguments: watch?.arguments });
  const wall = (performance.now() - start) / 1000;
  const processor = processTime(guest.pid) / 1e9;
  await watch?.attached;
  await guest.powerOff();
  return { wall, processor };
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
  return 0;
}

if (import.meta.main) await runTool(COST, main);
