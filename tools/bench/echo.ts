/**
 * What the load generator itself costs: driven against an echo on its own thread, which does the
 * least that a device can do.
 */
import { type DriverMemory, DriverQueue } from "../../src/frontend/mod.ts";
import type { Bench } from "./bench.ts";
import { BlkRequests } from "./blk_requests.ts";
import { OPERATIONS } from "./cells.ts";
import { runLoad } from "./load_loop.ts";
import { type Summary, summary } from "./statistics.ts";
import { splitRingBytes } from "../../src/virtqueue/mod.ts";
import { LoadControl, LoadCounters, phases } from "./load_state.ts";
import type { Waiter } from "./waiter.ts";

const IDX = 1;
const RING = 2;
const VIRTQ_DESC_F_INDIRECT = 4; // virtio 1.3, 2.7.5

export interface EchoOptions {
  /** Requests after which the load is told to stop. */
  requests: number;
  /** How many bytes it says it wrote to each. */
  written: number;
}

/** Says of each request of three parts that it is done, when the load has nothing else to do. */
export class EchoWaiter implements Waiter {
  readonly #left: EchoOptions;
  readonly #mask: number;
  readonly #base: number;
  readonly #memory: Uint32Array<ArrayBuffer>;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #descriptors: Uint32Array<ArrayBuffer>;
  readonly #available: Uint16Array<ArrayBuffer>;
  readonly #used: Uint16Array<ArrayBuffer>;
  readonly #elements: Uint32Array<ArrayBuffer>;
  #next: number;

  constructor(
    memory: DriverMemory,
    { handle }: DriverQueue,
    readonly control: LoadControl,
    options: EchoOptions,
  ) {
    const { size, descriptorGpa, availableGpa, usedGpa } = handle;
    const parts = splitRingBytes(size);
    const [{ guestAddress, bytes }] = memory.handle;
    const all = memory.at(guestAddress, bytes);
    const descriptors = memory.locate(descriptorGpa, parts.descriptor);
    const available = memory.locate(availableGpa, parts.available);
    const used = memory.locate(usedGpa, parts.used);
    this.#left = { ...options };
    this.#mask = size - 1;
    this.#base = guestAddress;
    this.#memory = new Uint32Array(all.buffer, all.byteOffset, bytes >> 2);
    this.#bytes = all;
    this.#descriptors = new Uint32Array(descriptors.buffer, descriptors.offset, size * 4);
    this.#available = new Uint16Array(available.buffer, available.offset, RING + size);
    this.#used = new Uint16Array(used.buffer, used.offset, RING);
    this.#elements = new Uint32Array(used.buffer, used.offset + 4, size * 2);
    this.#next = Atomics.load(this.#used, IDX);
  }

  begin(): void {}

  wait(): void {
    const end = Atomics.load(this.#available, IDX);
    let next = this.#next;
    for (; next !== end; next = (next + 1) & 0xffff) {
      const head = this.#available[RING + (next & this.#mask)];
      this.#bytes[this.#statusOf(head) - this.#base] = 0;
      const element = (next & this.#mask) * 2;
      this.#elements[element] = head;
      this.#elements[element + 1] = this.#left.written;
      this.#left.requests--;
    }
    this.#next = next;
    Atomics.store(this.#used, IDX, next);
    if (this.#left.requests <= 0) this.control.phase = phases.STOP;
  }

  /** Where the third part of a chain is. */
  #statusOf(head: number): number {
    const table = this.#descriptors;
    const flags = table[head * 4 + 3];
    if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
      return this.#memory[(table[head * 4] - this.#base >> 2) + 8];
    }
    return table[(table[(flags >>> 16) * 4 + 3] >>> 16) * 4];
  }

  [Symbol.dispose](): void {}
}

const REQUESTS = 1_000_000;
const RUNS = 5;

/** Nanoseconds per request at some queue depth, the echo's share among them. */
export function generatorCostNs({ memory, gpas, options }: Bench, depth: number): Summary {
  const times: number[] = [];
  for (let run = 0; run <= RUNS; run++) {
    using ring = DriverQueue.create(memory, { size: 512 });
    const control = new LoadControl();
    const counters = new LoadCounters();
    control.phase = phases.RECORD;
    const requests = new BlkRequests(memory, {
      ...OPERATIONS.read4k,
      ...{ depth, gpa: gpas[0], firstBlock: 0, blocks: 65_536, generation: 0, seed: 1 },
      isIndirect: options.indirect,
    });
    using waiter = new EchoWaiter(memory, ring, control, {
      requests: REQUESTS,
      written: OPERATIONS.read4k.bytes + 1,
    });
    const start = performance.now();
    runLoad({ ring, requests, waiter, control, counters });
    // The first run is for V8.
    if (run > 0) times.push((performance.now() - start) * 1e6 / counters.get("completed"));
  }
  return summary(times)!;
}
