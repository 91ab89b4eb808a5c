import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  MAX_DISCARD_SECTORS,
  MAX_WRITE_ZEROES_SECTORS,
  Operation,
  type OperationOptions,
} from "../../backends/blk/operation.ts";
import { VIRTIO_BLK_T } from "../../backends/blk/request.ts";
import { SharedState } from "../../backends/blk/shared_state.ts";
import type { Store, StoreRequest, StoreResult } from "../../backends/blk/store.ts";
import { type Lifetime, readLifetime } from "../../backends/blk/lifetime.ts";
import { Errno, LinuxError } from "../../src/linux/mod.ts";
import { LATER } from "../../src/virtio/mod.ts";
import {
  type ChainContent,
  header,
  join,
  makeChain,
  segment,
  TestQueue,
} from "./lib/blk_chains.ts";

const { IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, SECURE_ERASE, GET_LIFETIME } = VIRTIO_BLK_T;
const OK = 0, IOERR = 1, UNSUPP = 2;

/** A store that logs its calls and gives the answers that a test sets. */
class TestStore implements Store {
  readonly calls: string[] = [];
  readonly requests: StoreRequest[] = [];
  answers: StoreResult[] = [];

  #answer(what: string, request: StoreRequest): StoreResult {
    this.calls.push(what);
    this.requests.push(request);
    return this.answers.shift() ?? 0;
  }

  read(request: StoreRequest): StoreResult {
    return this.#answer(`read ${request.offset}+${request.bytes}`, request);
  }
  write(request: StoreRequest): StoreResult {
    return this.#answer(`write ${request.offset}+${request.bytes}`, request);
  }
  flush(request: StoreRequest): StoreResult {
    return this.#answer("flush", request);
  }
  discard(request: StoreRequest): StoreResult {
    return this.#answer(`discard ${request.offset}+${request.bytes}`, request);
  }
  writeZeroes(request: StoreRequest, unmap: boolean): StoreResult {
    const how = unmap ? "unmap" : "zero";
    return this.#answer(`${how} ${request.offset}+${request.bytes}`, request);
  }
  secureErase(request: StoreRequest): StoreResult {
    return this.#answer(`erase ${request.offset}+${request.bytes}`, request);
  }
  lifetime: () => Lifetime | Promise<Lifetime> = () => ({ preEolInfo: 1, typeA: 11, typeB: 12 });
}

interface Setup {
  readOnly?: boolean;
  discard?: boolean;
  unmap?: boolean;
  serial?: string;
  writeback?: number;
  writeThrough?: boolean;
  features?: Partial<Record<keyof OperationOptions["features"], boolean>>;
  /** Which abilities the store lacks. */
  lacks?: readonly ("secureErase" | "lifetime")[];
}

/** A disk of 1000 sectors. */
function setUp(setup: Setup = {}) {
  const store = new TestStore();
  const state = new SharedState(2);
  state.capacitySectors = 1000;
  const queue = new TestQueue(1);
  const config = { writeback: setup.writeback ?? 1 };
  const features = {
    FLUSH: true,
    CONFIG_WCE: true,
    DISCARD: true,
    WRITE_ZEROES: true,
    SECURE_ERASE: true,
    LIFETIME: true,
    ZONED: true,
    ...setup.features,
  };
  const start = () => {
    const operation = new Operation({
      store,
      state,
      features,
      config,
      readOnly: setup.readOnly ?? false,
      discard: setup.discard ?? true,
      unmap: setup.unmap ?? true,
      writeThrough: setup.writeThrough ?? false,
      secureErase: !setup.lacks?.includes("secureErase"),
      lifetime: !setup.lacks?.includes("lifetime"),
      serial: setup.serial ?? "",
      keep: (promise) => promise,
    });
    operation.start(queue);
    return operation;
  };
  /** Makes one request; `status` returns the driver's status byte. */
  const request = (content: ChainContent) => {
    const made = makeChain(content);
    const operation = start();
    const result = operation.handle(made.chain, queue);
    return { ...made, operation, result, status: () => made.written().at(-1) };
  };
  return { store, state, queue, config, features, request };
}

const read = (sector: number, bytes = 512): ChainContent => ({
  readable: header(IN, sector),
  writableBytes: bytes + 1,
});
const write = (sector: number, bytes = 512): ChainContent => ({
  readable: join(header(OUT, sector), new Uint8Array(bytes)),
  writableBytes: 1,
});
const ranges = (type: number, ...segments: Uint8Array[]): ChainContent => ({
  readable: join(header(type, 0), ...segments),
  writableBytes: 1,
});
const bare = (type: number): ChainContent => ({ readable: header(type, 0), writableBytes: 1 });

Deno.test("Operation makes the store read, write and flush", () => {
  const { store, request } = setUp();
  assertEquals(request(read(3, 1024)).result, 1025);
  assertEquals(request(write(4)).result, 1);
  assertEquals(request(bare(FLUSH)).status(), OK);
  assertEquals(store.calls, ["read 1536+1024", "write 2048+512", "flush"]);
});

const failures: [name: string, content: ChainContent, setup: Setup, status: number][] = [
  ["a read behind the end", read(1000), {}, IOERR],
  ["a read across the end", read(999, 1024), {}, IOERR],
  ["a read of half a sector", read(0, 256), {}, IOERR],
  ["a write behind the end", write(1000), {}, IOERR],
  ["a write of half a sector", write(0, 513), {}, IOERR],
  ["a write to a read-only disk", write(0), { readOnly: true }, IOERR],
  [
    "a chain without a header",
    { readable: new Uint8Array(15), writableBytes: 1 },
    {},
    IOERR,
  ],
  ["an unknown type", bare(99), {}, UNSUPP],
  ["a type beyond 2^31", bare(0x8000_0000), {}, UNSUPP],
  ["the legacy SCSI type", bare(2), {}, UNSUPP],
  ["a zone report without ZONED", bare(16), {}, UNSUPP],
  [
    "a discard that was not negotiated",
    ranges(DISCARD, segment(0, 1)),
    { features: { DISCARD: false } },
    UNSUPP,
  ],
  [
    "a write zeroes that was not negotiated",
    ranges(WRITE_ZEROES, segment(0, 1)),
    { features: { WRITE_ZEROES: false } },
    UNSUPP,
  ],
  ["a discard with a flag", ranges(DISCARD, segment(0, 1, 1)), {}, UNSUPP],
  ["a discard behind the end", ranges(DISCARD, segment(999, 2)), {}, IOERR],
  [
    "a segment beyond max_discard_sectors",
    ranges(DISCARD, segment(0, MAX_DISCARD_SECTORS + 1)),
    {},
    IOERR,
  ],
  [
    "a segment beyond max_write_zeroes_sectors",
    ranges(WRITE_ZEROES, segment(0, MAX_WRITE_ZEROES_SECTORS + 1)),
    {},
    IOERR,
  ],
  ["half a segment", ranges(DISCARD, new Uint8Array(8)), {}, IOERR],
];

for (const [name, content, setup, expected] of failures) {
  Deno.test(`Operation refuses ${name} and leaves the store alone`, () => {
    const { store, request } = setUp(setup);
    const { result, status } = request(content);
    assertEquals(result, content.writableBytes);
    assertEquals(status(), expected);
    assertEquals(store.calls, []);
  });
}

Deno.test("Operation throws for a chain that has no room for a status", () => {
  const { request } = setUp();
  assertThrows(
    () => request({ readable: header(OUT, 0), writableBytes: 0 }),
    Error,
    "status byte",
  );
});

Deno.test("Operation answers IOERR with the store's errno in the counts", () => {
  const { store, state, request } = setUp();
  store.answers = [Errno.ENOSPC];
  assertEquals(request(write(7)).status(), IOERR);
  const { requests, statuses, failures } = state.counts();
  assertEquals(requests.OUT, 1);
  assertEquals(statuses, { OK: 0, IOERR: 1, UNSUPP: 0 });
  const [{ queue, request: type, sector, error }] = failures;
  assertEquals({ queue, type, sector, error }, {
    queue: 1,
    type: "OUT",
    sector: 7,
    error: "ENOSPC",
  });
});

Deno.test("Operation gives the serial number, padded to 20 bytes or cut to the room", () => {
  for (
    const [serial, room] of [["disk-1", 20], ["12345678901234567890", 20], ["abc", 24], [
      "",
      3,
    ]] as const
  ) {
    const { request } = setUp({ serial });
    const { written } = request({ readable: header(GET_ID, 0), writableBytes: room + 1 });
    const expected = new Uint8Array(room + 1);
    expected.set(new TextEncoder().encode(serial));
    assertEquals([...written()], [...expected]);
  }
  const { request } = setUp({ serial: "abc" });
  const { written } = request({ readable: header(GET_ID, 0), writableBytes: 3 });
  assertEquals(new TextDecoder().decode(written()), "ab\0");
});

Deno.test("Operation checks against the current capacity", () => {
  const { state, request } = setUp();
  assertEquals(request(read(1500)).status(), IOERR);
  state.capacitySectors = 2000;
  assertEquals(request(read(1500)).status(), OK);
  state.capacitySectors = 10;
  assertEquals(request(read(500)).status(), IOERR);
});

Deno.test("Operation accepts empty requests up to the end of the disk, and moves no data", () => {
  const { store, request } = setUp({ writeback: 0 });
  for (
    const content of [read(3, 0), read(1000, 0), write(1000, 0), ranges(DISCARD, segment(5, 0))]
  ) {
    assertEquals(request(content).status(), OK);
  }
  assertEquals(request(ranges(WRITE_ZEROES, segment(1000, 0, 1))).status(), OK);
  assertEquals(store.calls, ["flush", "flush"], "of the writes alone");
  assertEquals(request(read(1001, 0)).status(), IOERR);
});

Deno.test("Operation makes writes durable if the driver chose write-through or cannot flush", () => {
  const cases: [setup: Setup, isWriteThrough: boolean][] = [
    [{}, false],
    [{ writeback: 0 }, true],
    [{ writeback: 0, features: { CONFIG_WCE: false } }, false],
    [{ writeback: 0, features: { CONFIG_WCE: false }, writeThrough: true }, true],
    [{ writeback: 1, writeThrough: true }, false],
    [{ features: { FLUSH: false, CONFIG_WCE: false } }, true],
    [{ writeback: 0, features: { FLUSH: false } }, true],
  ];
  for (const [setup, isWriteThrough] of cases) {
    const { store, request } = setUp(setup);
    request(write(0));
    request(ranges(WRITE_ZEROES, segment(0, 1), segment(2, 1)));
    request(ranges(DISCARD, segment(0, 1)));
    request(read(0));
    const flush = isWriteThrough ? ["flush"] : [];
    assertEquals(store.calls, [
      "write 0+512",
      ...flush,
      "zero 0+512",
      "zero 1024+512",
      ...flush,
      "discard 0+512",
      "read 0+512",
    ]);
  }
});

Deno.test("Operation sees the writeback toggle at once", () => {
  const { store, config, request } = setUp();
  request(write(0));
  config.writeback = 0;
  request(write(1));
  config.writeback = 1;
  request(write(2));
  assertEquals(store.calls, ["write 0+512", "write 512+512", "flush", "write 1024+512"]);
});

Deno.test("Operation does not flush after a write that failed", () => {
  const { store, request } = setUp({ writeback: 0 });
  store.answers = [Errno.EIO];
  assertEquals(request(write(0)).status(), IOERR);
  assertEquals(store.calls, ["write 0+512"]);
});

Deno.test("Operation reports a write-through flush that failed", () => {
  const { store, request } = setUp({ writeback: 0 });
  store.answers = [0, Errno.EIO];
  assertEquals(request(write(0)).status(), IOERR);
});

Deno.test("Operation treats writes as lost when a flush failed, not when it was abandoned", () => {
  const { store, state, request } = setUp();
  store.answers = [Errno.ECANCELED, 0, Errno.EIO, 0];
  const statuses = Array.from({ length: 4 }, () => request(bare(FLUSH)).status());
  assertEquals(statuses, [IOERR, OK, IOERR, IOERR]);
  assertEquals(state.lostErrno, Errno.EIO);
});

Deno.test("Operation handles segments until one fails", () => {
  const { store, request } = setUp();
  store.answers = [0, Errno.EIO, 0];
  const content = ranges(DISCARD, segment(0, 1), segment(10, 2), segment(20, 3));
  assertEquals(request(content).status(), IOERR);
  assertEquals(store.calls, ["discard 0+512", "discard 5120+1024"]);
});

Deno.test("Operation frees space only if the driver and the store's options allow it", () => {
  const { store, request } = setUp();
  request(ranges(WRITE_ZEROES, segment(0, 1, 1), segment(1, 1, 0)));
  assertEquals(store.calls, ["unmap 0+512", "zero 512+512"]);
  const keeps = setUp({ unmap: false });
  keeps.request(ranges(WRITE_ZEROES, segment(0, 1, 1)));
  assertEquals(keeps.store.calls, ["zero 0+512"]);
});

Deno.test("Operation erases beyond recovery, durably where the disk is write-through", () => {
  const { store, request } = setUp({ writeback: 0 });
  const content = ranges(SECURE_ERASE, segment(1, 8), segment(990, 10));
  assertEquals(request(content).status(), OK);
  assertEquals(store.calls, ["erase 512+4096", "erase 506880+5120", "flush"]);
  for (const wrong of [segment(0, 8, 1), segment(999, 2), segment(0, MAX_DISCARD_SECTORS + 1)]) {
    const status = wrong[12] === 1 ? UNSUPP : IOERR;
    assertEquals(request(ranges(SECURE_ERASE, wrong)).status(), status);
  }
  assertEquals(setUp({ readOnly: true }).request(content).status(), IOERR);
  assertEquals(setUp({ features: { SECURE_ERASE: false } }).request(content).status(), UNSUPP);
  assertEquals(setUp({ lacks: ["secureErase"] }).request(content).status(), UNSUPP);
  assertEquals(store.calls.length, 3);
});

Deno.test("Operation finds the segments of a secure erase where Linux puts them", () => {
  const { store, queue, state, config, features } = setUp();
  const { chain, u8, written } = makeChain({
    readable: header(SECURE_ERASE, 0),
    writableBytes: 17,
  });
  u8.set(segment(1, 8), chain.writable.index(0));
  const operation = new Operation({
    ...{ store, state, features, config, serial: "", readOnly: false, discard: true, unmap: true },
    ...{ writeThrough: false, secureErase: true, lifetime: true, keep: (promise) => promise },
  });
  operation.start(queue);
  assertEquals(operation.handle(chain, queue), 17);
  assertEquals(store.calls, ["erase 512+4096"]);
  assertEquals(written(), join(segment(1, 8), Uint8Array.of(OK)));
});

Deno.test("Operation tells how worn the store is, without reserved values", async () => {
  const ask = (bytes: number): ChainContent => ({
    readable: header(GET_LIFETIME, 0),
    writableBytes: bytes + 1,
  });
  const { store, request } = setUp();
  assertEquals([...request(ask(8)).written()], [1, 0, 11, 0, 0, 0, 0, 0, OK]);
  assertEquals(request(ask(5)).status(), IOERR);
  store.lifetime = () => Promise.resolve({ preEolInfo: 4, typeA: -1, typeB: 2.5 });
  const later = request(ask(6));
  assertEquals(await later.result, 7);
  assertEquals([...later.written()], [0, 0, 0, 0, 2, 0, OK]);
  store.lifetime = () => Promise.reject(new Error("503"));
  const failed = request(ask(6));
  await failed.result;
  assertEquals([...failed.written()], [0, 0, 0, 0, 0, 0, IOERR]);
  store.lifetime = () => {
    throw new LinuxError("open", Errno.ENOENT);
  };
  assertEquals(request(ask(6)).status(), IOERR);
  assertEquals(setUp({ features: { LIFETIME: false } }).request(ask(6)).status(), UNSUPP);
  assertEquals(setUp({ lacks: ["lifetime"] }).request(ask(6)).status(), UNSUPP);
});

Deno.test("readLifetime() reads what the kernel tells of an eMMC device", () => {
  const directory = Deno.makeTempDirSync();
  try {
    assertThrows(() => readLifetime(directory), LinuxError);
    Deno.writeTextFileSync(`${directory}/life_time`, "0x02 0x0b\n");
    Deno.writeTextFileSync(`${directory}/pre_eol_info`, "0x01\n");
    assertEquals(readLifetime(directory), { preEolInfo: 1, typeA: 2, typeB: 11 });
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("Operation waits for a store that answers by a promise", async () => {
  const { store, request } = setUp({ writeback: 0 });
  store.answers = [Promise.resolve(0), Promise.resolve(0)];
  const { result, status } = request(write(0));
  assert(result instanceof Promise);
  assertEquals(status(), 0xee); // not yet
  assertEquals(await result, 1);
  assertEquals(status(), OK);
  assertEquals(store.calls, ["write 0+512", "flush"]);
});

Deno.test("Operation uses the errno of a rejected promise, else EIO", async () => {
  for (
    const [reason, expected] of [
      [new LinuxError("connect", Errno.ECONNREFUSED), "ECONNREFUSED"],
      [new Error("503"), "EIO"],
    ] as const
  ) {
    const { store, state, request } = setUp();
    store.answers = [Promise.reject(reason)];
    const { result, status } = request(read(0));
    await result;
    assertEquals(status(), IOERR);
    assertEquals(state.counts().failures[0].error, expected);
  }
});

Deno.test("Operation completes requests that the store finishes later, in any order", () => {
  const { store, queue, request } = setUp({ writeback: 0 });
  store.answers = [LATER];
  const first = request(write(0));
  assertEquals(first.result, LATER);
  store.answers = [LATER];
  const second = request({ ...read(1), slot: 1 });
  assertEquals(second.result, LATER);
  assertEquals(queue.completed, []);

  second.operation.done(store.requests[1], 0);
  assertEquals(second.status(), OK);
  store.answers = [LATER]; // the flush
  first.operation.done(store.requests[0], 0);
  assertEquals(queue.completed.length, 1);
  first.operation.done(store.requests[0], Errno.EIO);
  assertEquals(first.status(), IOERR);
  assertEquals(queue.completed, [[second.chain, 513], [first.chain, 1]]);
  assertEquals(store.calls, ["write 0+512", "read 512+512", "flush"]);
});

Deno.test("SharedState counts the requests of all queues, from any thread", () => {
  const state = new SharedState(3);
  const other = new SharedState(state.memory);
  for (let queue = 0; queue < 3; queue++) other.count(queue, OUT, queue, queue === 2 ? -5 : 0);
  other.count(0, 99, 0, -2);
  const { requests, statuses, failures } = state.counts();
  assertEquals([requests.OUT, requests.other], [3, 1]);
  assertEquals(statuses, { OK: 2, IOERR: 1, UNSUPP: 1 });
  const seen = failures.map(({ queue, request, error }) => `${queue} ${request} ${error}`);
  assertEquals(seen.sort(), ["0 99 unsupported", "2 OUT out of range"]);
});

Deno.test("SharedState keeps the last failures of a queue", () => {
  const state = new SharedState(1);
  for (let sector = 0; sector < 20; sector++) state.count(0, IN, sector, 5);
  const { failures } = state.counts();
  assertEquals(failures.map(({ sector }) => sector), [12, 13, 14, 15, 16, 17, 18, 19]);
});

const LONG: [name: string, type: number, sectors: number, calls: number][] = [
  ["write zeroes", WRITE_ZEROES, MAX_WRITE_ZEROES_SECTORS, 4],
  ["discard", DISCARD, MAX_DISCARD_SECTORS, 8],
];

for (const [name, type, sectors, pieces] of LONG) {
  for (const manner of ["now", "promise", "later"]) {
    Deno.test(`Operation splits a long ${name} into pieces, alone in its queue (${manner})`, async () => {
      const { store, state, queue, request } = setUp({ writeback: 0 });
      state.capacitySectors = 2 ** 33;
      const content = ranges(type, segment(1, sectors), segment(2 ** 32, sectors));
      const calls = type === DISCARD ? 2 * pieces : 2 * pieces + 1;
      const answer = { now: 0, promise: Promise.resolve(0), later: LATER }[manner]!;
      store.answers = Array.from({ length: calls }, () => answer);
      const { result, status, operation } = request(content);
      assertEquals(queue.holds, 1);
      assert(result instanceof Promise);
      let isDone = false;
      result.then(() => isDone = true);
      for (let told = 0; manner === "later" && told < calls;) {
        if (store.requests.length > told) operation.done(store.requests[told++], 0);
        await Promise.resolve();
      }
      assertEquals(await result, 1);
      assert(isDone);
      assertEquals(status(), OK);
      const bytes = sectors * 512 / pieces;
      const verb = type === DISCARD ? "discard" : "zero";
      const expected = [1, 2 ** 32].flatMap((sector) =>
        Array.from({ length: pieces }, (_, i) => `${verb} ${sector * 512 + i * bytes}+${bytes}`)
      );
      assertEquals(store.calls, type === DISCARD ? expected : [...expected, "flush"]);
      assertEquals(state.counts().statuses.OK, 1);
    });
  }
}

for (const manner of ["now", "promise", "later"]) {
  Deno.test(`Operation splits long reads and writes into pieces (${manner})`, async () => {
    const { store, state, queue, request } = setUp({ writeback: 0 });
    state.capacitySectors = 2 ** 33;
    const MIB = 2 ** 20;
    const answer = { now: 0, promise: Promise.resolve(0), later: LATER }[manner]!;
    const offsets: number[] = [];
    for (const type of [IN, OUT]) {
      const calls = type === IN ? 3 : 4;
      store.answers = Array.from({ length: calls }, () => answer);
      const readable = new Uint8Array(type === IN ? 16 : 16 + 20 * MIB);
      readable.set(header(type, 8));
      const writableBytes = type === IN ? 20 * MIB + 1 : 1;
      const { result, operation } = request({ readable, writableBytes });
      assert(result instanceof Promise);
      for (let told = type === IN ? 0 : 3, left = calls; manner === "later" && left > 0;) {
        if (store.requests.length > told) {
          offsets.push(store.requests[told].dataOffset);
          operation.done(store.requests[told++], 0);
          left--;
        }
        await new Promise((resolve) => setTimeout(resolve));
      }
      assertEquals(await result, writableBytes);
    }
    const ranges = (verb: string) =>
      [0, 8, 16].map((at) => `${verb} ${4096 + at * MIB}+${(at === 16 ? 4 : 8) * MIB}`);
    assertEquals(store.calls, [...ranges("read"), ...ranges("write"), "flush"]);
    const places = [0, 8 * MIB, 16 * MIB];
    const expected = [...places, ...places.map((at) => 16 + at), 16 + 20 * MIB];
    if (manner === "later") assertEquals(offsets, expected);
    assertEquals([state.counts().statuses.OK, queue.holds], [2, 2]);
  });
}

Deno.test("Operation flushes for the driver that becomes write-through, and keeps what is lost", async () => {
  const { store, state, request } = setUp();
  const { operation } = request(read(0));
  store.answers = [LATER, Promise.resolve(Errno.ECANCELED), Errno.EIO];
  const flushed = operation.flush();
  operation.done(store.requests[1], 0);
  await flushed;
  await operation.flush();
  assertEquals(state.lostErrno, 0);
  await operation.flush();
  assertEquals(state.lostErrno, Errno.EIO);
  assertEquals(store.calls, ["read 0+512", "flush", "flush", "flush"]);
});

Deno.test("Operation ends a long request when a piece fails", async () => {
  const { store, state, request } = setUp();
  state.capacitySectors = 2 ** 33;
  store.answers = [0, 0, Errno.ENOSPC];
  const { result, status } = request(
    ranges(WRITE_ZEROES, segment(0, MAX_WRITE_ZEROES_SECTORS), segment(2 ** 20, 8)),
  );
  assertEquals(await result, 1);
  assertEquals(status(), IOERR);
  assertEquals(store.calls.length, 3);
  assertEquals([state.lostErrno, state.counts().failures[0].error], [0, "ENOSPC"]);
});
