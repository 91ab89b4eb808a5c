/**
 * An independent load: qemu-img's, through libblkio, which has a virtio driver of its own. It
 * sleeps until it is notified.
 */
import { run } from "../lib/process.ts";
import { qemuOfVersion } from "../guest/programs.ts";
import type { Bench } from "./bench.ts";
import type { StoreName } from "./cells.ts";
import { NEWEST_PEER, ownSide, peers, type Side } from "./sides.ts";
import { ratioSummary, type Summary, summary } from "./statistics.ts";
import { ToolError } from "../lib/tool_error.ts";

const REQUEST_BYTES = 4096;

/** The requests of a first run, which shows how many a run of the wanted length takes. */
const TRIAL_REQUESTS = 20_000;
const MAX_REQUESTS = 100_000_000;

const LOADS = [
  { store: "null", depth: 1 },
  { store: "null", depth: 32 },
  { store: "null", depth: 128 },
  { store: "tmpfs", depth: 32 },
  { store: "disk", depth: 32 },
  { store: "disk-direct", depth: 32 },
] as const satisfies { store: StoreName; depth: number }[];

/** What qemu-img found with one load. */
export interface IndependentResult {
  /** Such as `null/read4k/qd32`. */
  name: string;
  iops: { own: Summary; peer: Summary; ratio: Summary };
  /** Processor time of the back-end per request, in microseconds. */
  cpuUs: { own: Summary; peer: Summary; ratio: Summary };
}

interface Sample {
  iops: number;
  cpuUs: number;
}

/** Drives ours and the newest peer in turn with qemu-img. */
export async function independentLoads(
  bench: Bench,
  progress: (message: string) => void,
): Promise<IndependentResult[]> {
  const [newest] = await peers();
  const results: IndependentResult[] = [];
  for (const { store, depth } of LOADS) {
    const name = `${store}/read4k/qd${depth}`;
    const sides = [ownSide({}, bench.options.own), (await newest.sides(store))[0]];
    const samples: Sample[][] = [[], []];
    for (let run = 0; run < bench.options.runs; run++) {
      progress(`${name} by qemu-img, run ${run + 1} of ${bench.options.runs}`);
      for (const at of run % 2 === 0 ? [0, 1] : [1, 0]) {
        samples[at].push(await drive(bench, sides[at], store, depth));
      }
    }
    const of = (pick: (sample: Sample) => number) => {
      const [own, peer] = samples.map((side) => side.map(pick));
      return { own: summary(own)!, peer: summary(peer)!, ratio: ratioSummary(own, peer)! };
    };
    results.push({ name, iops: of(({ iops }) => iops), cpuUs: of(({ cpuUs }) => cpuUs) });
  }
  return results;
}

async function drive(bench: Bench, side: Side, store: StoreName, depth: number): Promise<Sample> {
  await using backend = await bench.serve(side, store);
  await backend.accepting();
  const { socketPath } = backend;
  const trial = await Promise.race([request(socketPath, TRIAL_REQUESTS, depth), backend.failed]);
  const count = Math.ceil(bench.options.seconds * TRIAL_REQUESTS / trial);
  const requests = Math.min(Math.max(count, TRIAL_REQUESTS), MAX_REQUESTS);
  const before = backend.processorUs();
  const seconds = await Promise.race([request(socketPath, requests, depth), backend.failed]);
  return { iops: requests / seconds, cpuUs: (backend.processorUs() - before) / requests };
}

/** Makes requests with qemu-img; returns how many seconds they took. */
async function request(socketPath: string, count: number, depth: number): Promise<number> {
  const program = await qemuOfVersion(NEWEST_PEER, "qemu-img");
  const directory = program.slice(0, program.lastIndexOf("/"));
  const output = await run("env", [
    `QEMU_MODULE_DIR=${directory}/usr/lib/x86_64-linux-gnu/qemu`,
    ...[program, "bench", "-t", "none", "-s", `${REQUEST_BYTES}`],
    ...["-c", `${count}`, "-d", `${depth}`, "--image-opts"],
    `driver=virtio-blk-vhost-user,path=${socketPath.replaceAll(",", ",,")},cache.direct=on`,
  ]);
  const seconds = Number(output.match(/Run completed in ([\d.]+) seconds/)?.[1]);
  if (seconds > 0) return seconds;
  throw new ToolError(`Expected qemu-img to say how long it took, got ${output.trim()}`);
}
