/** One run of one side. */
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { type Bench, STORE_BYTES } from "./bench.ts";
import { processTime } from "../lib/clock.ts";
import { type Drive, type OperationName, OPERATIONS, type StoreName } from "./cells.ts";
import { type Backend, holding } from "../lib/backend.ts";
import type { RunningLoad, ThreadOrder } from "./load_threads.ts";
import { BLOCK_BYTES } from "./pattern.ts";
import type { Side } from "./sides.ts";
import { ToolError } from "../lib/tool_error.ts";

/** How long the part of a run takes in which system calls are counted. */
const COUNTING_SECONDS = 0.2;

/** How long a back-end may take to listen. */
const CONNECT_MS = 10_000;

/** Room for three descriptors of each request. */
const QUEUE_SIZE = 512;

export interface RunPlan {
  side: Side;
  store: StoreName;
  operation: OperationName;
  drive: Drive;
  /** How long is measured. */
  seconds: number;
  /** How long it runs before that: V8 has to see what is hot. */
  warmSeconds: number;
  /** Count system calls too. */
  withSystemCalls?: boolean;
  /** Name of the writer, for messages. */
  writer: string;
}

/** What one run found; per request and in microseconds unless said otherwise. */
export interface Sample {
  iops: number;
  p50Us: number;
  p99Us: number;
  /** Processor time of the back-end. */
  cpuUs: number;
  /** The same by time: 1 is one processor, all the time. */
  cpuShare: number;
  /** Processor time of the load generator. */
  loadUs: number;
  /** Notifications of the device. */
  kicks: number;
  /** System calls of the back-end. */
  systemCalls?: number;
  /** Resident memory of the back-end under load, in bytes. */
  residentBytes: number;
  /** Requests that came back, before it was measured too. */
  completed: number;
}

/** Starts a back-end, drives it and ends it. */
export async function measure(bench: Bench, plan: RunPlan): Promise<Sample> {
  const { side, store, drive: { queues } } = plan;
  const image = await bench.image(store);
  await using backend = await bench.serve(side, store, queues);
  await using driver = await startDriver(bench, backend, plan.drive);
  const orders = await loadOrders(bench, plan, driver);
  if (store === "tmpfs") await readAll(bench, backend, orders);
  const sample = await drive(bench, plan, backend, orders);
  if (plan.withSystemCalls && bench.counter) {
    sample.systemCalls = await countSystemCalls(bench, backend, orders);
  }
  await driver.close();
  if (OPERATIONS[plan.operation].isWrite) await image?.settle();
  return sample;
}

export async function startDriver(
  { memory }: Bench,
  { socketPath, failed }: Backend,
  { queues, isPacked = false, hasRecord = false }: Drive,
): Promise<VirtioDriver> {
  const starting = VirtioDriver.start(socketPath, {
    connectMs: CONNECT_MS,
    memory,
    queues: new Array<number>(queues).fill(QUEUE_SIZE),
    packed: isPacked,
    inflight: hasRecord,
  });
  const driver = await Promise.race([starting, failed]);
  if (driver.negotiated.packed === isPacked && (driver.inflight !== undefined) === hasRecord) {
    return driver;
  }
  await driver.close();
  throw new ToolError("Expected packed queues or in-flight records, got a device that has none");
}

/** What each load thread is to do: each has a part of the store of its own. */
export async function loadOrders(
  bench: Bench,
  { store, operation, drive, writer }: Omit<RunPlan, "side" | "seconds" | "warmSeconds">,
  driver: VirtioDriver,
): Promise<ThreadOrder[]> {
  const { indirect } = bench.options;
  const image = await bench.image(store);
  const shape = OPERATIONS[operation];
  const each = STORE_BYTES / BLOCK_BYTES / drive.queues;
  const generation = shape.isWrite ? image?.nextGeneration(writer) ?? 0 : 0;
  return driver.queues.map((queue, index): ThreadOrder => ({
    memory: bench.memory.handle,
    queue: queue.handle,
    isPolling: drive.isPolling ?? false,
    requests: {
      kind: "blk",
      options: {
        ...shape,
        depth: drive.depth,
        gpa: bench.gpas[index],
        firstBlock: index * each,
        blocks: each,
        isIndirect: indirect,
        generations: image?.generations,
        generation,
        seed: 1 + index * 7919 + Math.trunc(Math.random() * 2 ** 30),
      },
    },
  }));
}

/**
 * Reads all of a disk in memory once. A process that maps it takes a fault at the first touch of each
 * page, which lasts longest where a hypervisor shadows page tables: 256 MiB need more of them than a
 * short run has requests.
 */
async function readAll(
  { threads }: Bench,
  backend: Backend,
  orders: readonly ThreadOrder[],
): Promise<void> {
  const operation = OPERATIONS.seqread128k;
  const reading = orders.map((order) => {
    if (order.requests.kind !== "blk") return order;
    return {
      ...order,
      requests: { kind: "blk", options: { ...order.requests.options, ...operation } },
    };
  }) as ThreadOrder[];
  const load = threads.start(reading);
  try {
    const requests = STORE_BYTES / operation.bytes;
    while (load.count("completed") < requests) await pause(0.01, load, backend);
    await load.stop();
  } finally {
    await load.abort();
  }
  for (const [i, order] of orders.entries()) order.queue = reading[i].queue;
}

/** Waits, as long as all is well. */
async function pause(seconds: number, load: RunningLoad, backend: Backend): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, seconds * 1000);
  try {
    await Promise.race([promise, load.failed, backend.failed]);
  } finally {
    clearTimeout(timer);
  }
}

/** How long a load runs. */
export interface DriveTime {
  /** How long is measured. */
  seconds: number;
  /** How long it runs before that. */
  warmSeconds: number;
  /** Least number of requests to complete, however long that takes. */
  requests?: number;
}

export async function drive(
  { threads }: Bench,
  { seconds, warmSeconds, requests = 0 }: DriveTime,
  backend: Backend,
  orders: readonly ThreadOrder[],
): Promise<Sample> {
  const load = threads.start(orders);
  try {
    await pause(warmSeconds, load, backend);
    const before = readings(load, backend);
    load.record();
    await pause(seconds, load, backend);
    const after = readings(load, backend);
    const residentBytes = holding(backend.pid)!.residentBytes;
    while (load.count("completed") < requests) await pause(0.01, load, backend);
    await load.stop();
    const timeMs = after.timeMs - before.timeMs;
    const completed = (after.completed - before.completed) >>> 0;
    const per = (name: keyof typeof before) => (after[name] - before[name]) / completed;
    const latencies = load.latencies();
    return {
      iops: completed / timeMs * 1000,
      p50Us: latencies.quantile(0.5) / 1000,
      p99Us: latencies.quantile(0.99) / 1000,
      cpuUs: per("cpuUs"),
      cpuShare: (after.cpuUs - before.cpuUs) / timeMs / 1000,
      loadUs: per("loadUs"),
      kicks: ((after.kicks - before.kicks) >>> 0) / completed,
      residentBytes,
      completed: load.count("completed"),
    };
  } finally {
    await load.abort();
  }
}

function readings(load: RunningLoad, backend: Backend) {
  return {
    completed: load.count("completed"),
    kicks: load.count("kicks"),
    timeMs: performance.now(),
    cpuUs: backend.processorUs(),
    loadUs: processTime(Deno.pid) / 1000,
  };
}

async function countSystemCalls(
  { threads, counter }: Bench,
  backend: Backend,
  orders: readonly ThreadOrder[],
): Promise<number> {
  let completed = 0;
  const calls = await counter!.count(backend.pid, async () => {
    const load = threads.start(orders);
    try {
      await pause(COUNTING_SECONDS, load, backend);
      await load.stop();
      completed = load.count("completed");
    } finally {
      await load.abort();
    }
  });
  return calls / completed;
}
