/** What is measured beside the cells. */
import type { Bench } from "./bench.ts";
import { type Backend, holding, vhostdCommand } from "../lib/backend.ts";
import { drive, loadOrders, startDriver } from "./measure.ts";
import { ownSide, peers, type Side } from "./sides.ts";
import { type Summary, summary } from "./statistics.ts";
import { ToolError } from "../lib/tool_error.ts";

const DRIVE = { queues: 1, depth: 32 };

/** Ours, and the peer with an iothread. */
async function bothSides(bench: Bench): Promise<{ own: Side; peer: Side }> {
  const [newest] = await peers();
  return { own: ownSide({}, bench.options.own), peer: (await newest.sides("null"))[0] };
}

/** Milliseconds from the start of the process until its socket takes connections. */
export async function startUpMs(bench: Bench): Promise<{ own: Summary; peer: Summary }> {
  const { own, peer } = await bothSides(bench);
  const times = { own: new Array<number>(), peer: new Array<number>() };
  for (let run = 0; run < Math.max(5, bench.options.runs); run++) {
    for (const [name, side] of [["own", own], ["peer", peer]] as const) {
      const start = performance.now();
      await using backend = await bench.serve(side);
      await backend.accepting();
      times[name].push(performance.now() - start);
    }
  }
  return { own: summary(times.own)!, peer: summary(times.peer)! };
}

/** Resident memory in bytes: private and of files, without the guest's. */
export interface Resident {
  idle: number;
  loaded: number;
}

/** Resident memory of a process with one device. */
export async function residentBytes(bench: Bench): Promise<{ own: Resident; peer: Resident }> {
  const { own, peer } = await bothSides(bench);
  return { own: await residentOf(bench, own), peer: await residentOf(bench, peer) };
}

async function residentOf(bench: Bench, side: Side): Promise<Resident> {
  await using backend = await bench.serve(side);
  await backend.accepting();
  await new Promise((resolve) => setTimeout(resolve, 300));
  const idle = holding(backend.pid)!.residentBytes;
  const { residentBytes } = await driveNull(bench, backend);
  return { idle, loaded: residentBytes };
}

async function driveNull(bench: Bench, backend: Backend, requests?: number) {
  await using driver = await startDriver(bench, backend, DRIVE);
  const plan = { store: "null", operation: "read4k", drive: DRIVE, writer: "" } as const;
  const orders = await loadOrders(bench, plan, driver);
  const time = requests === undefined ? 1 : 0.1;
  return await drive(bench, { seconds: time, warmSeconds: time / 2, requests }, backend, orders);
}

/** Garbage collections, and of how many requests. */
export interface Collections {
  /** Per million requests. */
  perMillion: number;
  /** Of all threads. */
  collections: number;
  requests: number;
}

/**
 * Garbage collections of ours: those of a long run, less those of a short one, since everything
 * that starts makes garbage.
 */
export async function collections(bench: Bench): Promise<Collections> {
  const short = await collectionsOf(bench, 500_000);
  const long = await collectionsOf(bench, bench.options.quick ? 3_500_000 : 10_500_000);
  // What a start makes differs a little: fewer than none are none.
  const [collections, requests] = long.map((count, i) => Math.max(0, count - short[i]));
  return { perMillion: collections / requests * 1e6, collections, requests };
}

async function collectionsOf(bench: Bench, requests: number): Promise<[number, number]> {
  const { own } = bench.options;
  const traced = { ...own, v8Flags: [...own.v8Flags ?? [], "--trace-gc"] };
  await using backend = await bench.serve(ownSide({}, traced));
  const { completed } = await driveNull(bench, backend, requests);
  // What is said on the way is held back until the end.
  return [await collectionsUntilEnd(backend), completed];
}

/** Ends a back-end that runs with `--trace-gc`; returns how many garbage collections there were. */
export async function collectionsUntilEnd(backend: Backend): Promise<number> {
  await backend.end();
  const lines = (await backend.stdout).split("\n");
  const found = lines.filter((line) => / ms: (Scavenge|Mark-Compact|Minor)/.test(line)).length;
  if (found === 0) throw new ToolError("Expected V8 to tell of garbage collections, got nothing");
  return found;
}

export interface RngResult {
  bytes: number;
  megabytesPerSecond: Summary;
  cpuUs: Summary;
}

/** The throughput of our rng; the peer has none. */
export async function rngThroughput(bench: Bench): Promise<RngResult[]> {
  const results: RngResult[] = [];
  for (const bytes of [64, 4096]) {
    const rates: number[] = [], times: number[] = [];
    for (let run = 0; run < bench.options.runs; run++) {
      const { iops, cpuUs } = await driveRng(bench, bytes);
      rates.push(iops * bytes / 1e6);
      times.push(cpuUs);
    }
    results.push({ bytes, megabytesPerSecond: summary(rates)!, cpuUs: summary(times)! });
  }
  return results;
}

async function driveRng(bench: Bench, bytes: number) {
  const { seconds, warmSeconds } = bench.options;
  await using backend = bench.start((path) => vhostdCommand(["rng", `--socket-path=${path}`]));
  await using driver = await startDriver(bench, backend, DRIVE);
  const options = { depth: DRIVE.depth, bytes, gpa: bench.gpas[0] };
  return await drive(bench, { seconds, warmSeconds }, backend, [{
    memory: bench.memory.handle,
    queue: driver.queues[0].handle,
    isPolling: false,
    requests: { kind: "rng", options },
  }]);
}
