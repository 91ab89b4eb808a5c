import { assert, assertEquals, assertThrows } from "@std/assert";
import { DriverQueue, SharedMemory } from "../../src/frontend/mod.ts";
import { BlkRequests, blkRequestsBytes } from "../../tools/bench/blk_requests.ts";
import { type OperationName, OPERATIONS } from "../../tools/bench/cells.ts";
import { EchoWaiter } from "../../tools/bench/echo.ts";
import { runLoad } from "../../tools/bench/load_loop.ts";
import { LoadControl, LoadCounters, phases } from "../../tools/bench/load_state.ts";
import { BLOCK_WORDS, hasStamp, stampBlock } from "../../tools/bench/pattern.ts";
import { ToolError } from "../../tools/lib/tool_error.ts";

const BLOCKS = 64;
const DEPTH = 4;

/** A ring, and requests of one slot with known generations. */
function start(operation: OperationName, generation = 0) {
  const memory = new SharedMemory([{ bytes: 2 ** 21, guestAddress: 2 ** 20 }]);
  const ring = DriverQueue.create(memory, { size: 64 });
  const { bytes } = OPERATIONS[operation];
  const gpa = memory.alloc(blkRequestsBytes(DEPTH, bytes), 4096);
  const generations = new Int32Array(new SharedArrayBuffer(BLOCKS * 4));
  const requests = new BlkRequests(memory, {
    ...OPERATIONS[operation],
    ...{ depth: DEPTH, gpa, firstBlock: 0, blocks: BLOCKS, generations, generation, seed: 7 },
    isIndirect: false,
  });
  const slots = memory.at(gpa, 64 * DEPTH);
  const data = memory.at(gpa + blkRequestsBytes(DEPTH, 0), bytes * DEPTH);
  return {
    ...{ requests, ring, generations, slots },
    words: new Uint32Array(data.buffer, data.byteOffset, data.length / 4),
    sector: () => new DataView(slots.buffer, slots.byteOffset).getUint32(8, true),
    [Symbol.dispose]() {
      ring[Symbol.dispose]();
      memory[Symbol.dispose]();
    },
  };
}

Deno.test("BlkRequests takes a read with the block's stamp, and no other", () => {
  using load = start("read4k");
  const { requests, ring, slots, words, generations } = load;
  requests.add(ring, 0);
  const block = load.sector() / 8;
  slots[16] = 0;
  stampBlock(words, 0, block, 0);
  requests.check(0, 4097);
  assertThrows(() => requests.check(0, 4096), ToolError, "4097 bytes");
  generations[block] = 1;
  assertThrows(() => requests.check(0, 4097), ToolError, `block ${block}`);
  stampBlock(words, 0, block, 1);
  requests.check(0, 4097);
  words[BLOCK_WORDS - 1] ^= 1;
  assertThrows(() => requests.check(0, 4097), ToolError, `block ${block}`);
});

Deno.test("BlkRequests refuses a status that is not OK, or was not written", () => {
  using load = start("read4k");
  load.requests.add(load.ring, 0);
  assertThrows(() => load.requests.check(0, 4097), ToolError, "status 255");
  load.slots[16] = 1;
  assertThrows(() => load.requests.check(0, 4097), ToolError, "status 1");
});

Deno.test("BlkRequests stamps what it writes, and remembers it when it is written", () => {
  using load = start("seqwrite128k", 3);
  const { requests, ring, slots, words, generations } = load;
  for (const first of [0, 32, 0]) {
    requests.add(ring, 0);
    assertEquals(load.sector(), first * 8);
    for (let i = 0; i < 32; i++) assert(hasStamp(words, i * BLOCK_WORDS, first + i, 3));
    generations.fill(0);
    slots[16] = 0;
    requests.check(0, 1);
    assertEquals(generations.indexOf(3), first);
    assertEquals(generations.filter((generation) => generation === 3).length, 32);
  }
});

for (const isIndirect of [false, true]) {
  Deno.test(`runLoad() ends with nothing in flight (${isIndirect ? "indirect" : "direct"})`, () => {
    using memory = new SharedMemory([{ bytes: 2 ** 20, guestAddress: 2 ** 20 }]);
    using ring = DriverQueue.create(memory, { size: 64 });
    const gpa = memory.alloc(blkRequestsBytes(DEPTH, 4096), 4096);
    const control = new LoadControl();
    const counters = new LoadCounters();
    control.phase = phases.RECORD;
    const requests = new BlkRequests(memory, {
      ...OPERATIONS.read4k,
      ...{ depth: DEPTH, gpa, firstBlock: 0, blocks: BLOCKS, generation: 0, seed: 1, isIndirect },
    });
    using waiter = new EchoWaiter(memory, ring, control, { requests: 1000, written: 4097 });
    runLoad({ ring, requests, waiter, control, counters });
    assertEquals([ring.inFlight, ring.free], [0, 64]);
    // Those that came back with the one that ended it have no latency.
    assertEquals(counters.get("completed"), 1000);
    assertEquals(counters.latencies.count, 1000 - DEPTH);
  });
}
