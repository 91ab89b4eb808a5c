/**
 * A program: a network device's data half and a driver on one thread, which measures garbage. It is
 * started with the kind of port, `null` or `source`, and of ring, `split` or `packed`, and prints the
 * bytes of garbage per packet, once V8 has optimised everything.
 */
import net from "../../../backends/net/mod.ts";
import { createMemfd } from "../../../src/linux/mod.ts";
import { GuestMemory, viewMemory } from "../../../src/memory/mod.ts";
import { counterMemory } from "../../../src/runtime/counters.ts";
import type { EngineHost } from "../../../src/runtime/data_plane/engine_host.ts";
import { Poller } from "../../../src/runtime/data_plane/poller.ts";
import { QueueEngine } from "../../../src/runtime/data_plane/queue_engine.ts";
import { type AnyDevice, featureMask } from "../../../src/virtio/mod.ts";

/** As testpmd's: no small integer. */
const GPA = 0x7f12_3456_0000;
const MEMORY_BYTES = 4 * 2 ** 20;
const SIZE = 256, BATCH = 128, BUFFER_BYTES = 2048;
const AVAILABLE = 1 << 7, USED = 1 << 15, WRITE = 2;

const WINDOW_PACKETS = 2000 * BATCH;
const MOST_WINDOWS = 60;
/** Less garbage per packet is V8's own, for all packets together. */
const CLEAN_BYTES = 1;

if (import.meta.main) {
  console.log(await garbage(Deno.args[0] === "source", Deno.args[1] === "packed"));
}

async function garbage(isSource: boolean, packed: boolean): Promise<number> {
  const batch = await start(isSource, packed);
  let least = Infinity, clean = 0;
  for (let window = 0; window < MOST_WINDOWS && clean < 2; window++) {
    const before = Deno.memoryUsage().heapUsed;
    for (let done = 0; done < WINDOW_PACKETS; done += BATCH) batch();
    const bytes = (Deno.memoryUsage().heapUsed - before) / WINDOW_PACKETS;
    if (bytes >= 0) least = Math.min(least, bytes);
    clean = bytes >= 0 && bytes < CLEAN_BYTES ? clean + 1 : 0;
  }
  return clean === 2 ? least : Math.max(least, CLEAN_BYTES);
}

/** Starts a ring; returns what passes a batch of packets. */
async function start(isSource: boolean, packed: boolean): Promise<() => void> {
  const guest = new GuestMemory();
  const file = createMemfd("guest", MEMORY_BYTES);
  await guest.prepare([file.number]);
  const [address, size] = [BigInt(GPA), BigInt(MEMORY_BYTES)];
  guest.add({ guestAddress: address, size, userAddress: address, mmapOffset: 0n }, file.number);
  const memory = viewMemory(guest.handle);
  memory.regions = guest.regions;
  const { index } = guest.regions.regions[0];
  const options = { queuePairs: 1, ...isSource ? { source: 64 } : { null: true } };
  const device: AnyDevice = net;
  const { shared } = await device.open!({ options } as never);
  let kick = () => {}, deferred: (() => void)[] = [];
  const readable: { callback: () => void; isPaused: boolean }[] = [];
  const host: EngineHost = {
    poller: new Poller(0, new SharedArrayBuffer(4), 1),
    watch(_fd, _readiness, callback) {
      const watch = {
        ...{ callback, isPaused: false },
        pause: () => void (watch.isPaused = true),
        resume: () => void (watch.isPaused = false),
        [Symbol.dispose]() {},
      };
      readable.push(watch);
      return watch;
    },
    watchSignals(_fd, callback) {
      kick = callback;
      return { [Symbol.dispose]() {} };
    },
    signal() {},
    defer: (callback) => void deferred.push(callback),
    emit(event) {
      throw new Error(Deno.inspect(event));
    },
  };
  const queue = isSource ? 0 : 1;
  const name = isSource ? "receiveq" : "transmitq";
  const engine = new QueueEngine(
    device,
    {
      queues: [{ index: queue, name, ordinal: 0 }],
      ...{ options, shared, config: new SharedArrayBuffer(64), counters: counterMemory(2) },
      ...{ pollUs: 0, polling: new SharedArrayBuffer(4), unheard: new SharedArrayBuffer(4) },
    },
    memory,
    host,
  );
  const done = () => {};
  const refuse = (error: unknown) => {
    throw error;
  };
  engine.execute({ kind: "features", bits: featureMask(0) | featureMask(15) }, done, refuse);

  const words = new Uint32Array(memory.u8.buffer, index, SIZE * 4);
  const flags = new Uint16Array(memory.u8.buffer, index, SIZE * 8);
  const available = new Uint16Array(memory.u8.buffer, index + 65_536, 3 + SIZE);
  const kind = isSource ? WRITE : 0, bytes = isSource ? BUFFER_BYTES : 12 + 64;
  const describe = (at: number) => {
    const gpa = GPA + 2 ** 20 + at * BUFFER_BYTES;
    words.set([gpa % 2 ** 32, gpa / 2 ** 32, bytes, kind], at * 4);
    available[2 + at] = at;
  };
  if (packed) available[1] = 1; // no notifications
  else for (let at = 0; at < SIZE; at++) describe(at);
  engine.execute(
    {
      ...{ kind: "start", queue, inflight: null, kick: 0, call: -1, err: -1, enabled: true },
      ring: {
        ...{ size: SIZE, packed, eventIndex: !packed, indirect: true, inOrder: false },
        ...{ descriptorIndex: index, availableIndex: index + 65_536, usedIndex: index + 131_072 },
        base: packed ? 0x8000_8000 : 0,
      },
    },
    done,
    refuse,
  );

  const low = new Uint32Array(SIZE), high = new Uint32Array(SIZE);
  for (let at = 0; at < SIZE; at++) {
    low[at] = (GPA + 2 ** 20 + at * BUFFER_BYTES) % 2 ** 32;
    high[at] = (GPA + 2 ** 20 + at * BUFFER_BYTES) / 2 ** 32;
  }
  let next = 0, wrap = AVAILABLE;
  const makeAvailable = () => {
    if (!packed) {
      available[1] += BATCH;
      return;
    }
    for (let i = 0; i < BATCH; i++) {
      const at = next * 4;
      words[at] = low[next];
      words[at + 1] = high[next];
      words[at + 2] = bytes;
      flags[at * 2 + 6] = next;
      flags[at * 2 + 7] = kind | wrap;
      if (++next === SIZE) {
        next = 0;
        wrap ^= AVAILABLE | USED;
      }
    }
  };
  return () => {
    makeAvailable();
    kick();
    for (let i = 0; i < readable.length; i++) if (!readable[i].isPaused) readable[i].callback();
    while (deferred.length > 0) {
      const now = deferred;
      deferred = [];
      for (let i = 0; i < now.length; i++) now[i]();
    }
  };
}
