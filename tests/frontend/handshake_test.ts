/**
 * Stress of what a ring cannot do without memory barriers: a side that looks a
 * last time and then sleeps, and a side that adds something and then looks
 * whether the other one sleeps, may never both miss each other; and nobody may
 * see a buffer before what it contains.
 *
 * A device's ring and a driver's, each on a thread of its own, with nothing
 * around them: they meet up to a million times a second, where whole devices
 * (`soak_test.ts`) meet too seldom for some of it. `HANDSHAKE_SECONDS=60
 * HANDSHAKE_SEED=7 deno test -A tests/frontend/handshake_test.ts` goes on for
 * longer, from a seed.
 *
 * What was broken on purpose (in `src/virtqueue` unless said otherwise; x86-64,
 * two processors that others wanted too), and how many of three runs found it.
 * A reordering that this processor does not do was written out in the source.
 *
TABLE *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { createDriverQueue, SharedMemory } from "../../src/frontend/mod.ts";
import {
  CELL_BYTES,
  cellsOf,
  type HandshakeOrder,
  type HandshakeResult,
  makeBells,
} from "./handshake_order.ts";
import { Random } from "../../tools/random.ts";
import { WorkerThread } from "./worker_thread.ts";

const SECONDS = Number(Deno.env.get("HANDSHAKE_SECONDS") ?? 4);
const SEED = Number(Deno.env.get("HANDSHAKE_SEED") ?? Math.floor(Math.random() * 2 ** 32));

/** Where others want the processors, the threads meet seldom, and go on for up to three times as long. */
const LEAST_REQUESTS = 1_000_000;

/** How long each ring is used. */
const PHASE_MS = 250;

function start(module: string): WorkerThread<HandshakeOrder, HandshakeResult> {
  return new WorkerThread(new URL(module, import.meta.url));
}

for (const packed of [false, true]) {
  for (const eventIndex of [true, false]) {
    const name = `${packed ? "packed" : "split"} rings ${eventIndex ? "with" : "without"}`;
    Deno.test(`${name} event index lose no notification`, async () => {
      // Threads of their own: code that has seen one kind of ring is the fastest.
      using driver = start("./handshake_driver.ts");
      using device = start("./handshake_device.ts");
      const random = new Random(SEED);
      let requests = 0, sleeps = 0;
      const begun = performance.now();
      const goesOn = () => {
        const seconds = (performance.now() - begun) / 1000;
        return seconds < SECONDS || requests < LEAST_REQUESTS && seconds < 3 * SECONDS;
      };
      for (let phase = 0; goesOn(); phase++) {
        using memory = new SharedMemory(1 << 18);
        const size = random.pick([4, 4, 8, 16]);
        const inOrder = random.chance(1, 4);
        using queue = createDriverQueue(memory, { size, packed, eventIndex, inOrder });
        const order: HandshakeOrder = {
          memory: memory.handle,
          queue: queue.handle,
          bells: makeBells(),
          gpa: memory.alloc(cellsOf(size) * CELL_BYTES),
          seed: random.u32(),
          milliseconds: PHASE_MS,
        };
        const [drivers, devices] = await Promise.all([
          driver.run(order),
          device.run({ ...order, seed: random.u32() }),
        ]);
        const where = ` (phase ${phase}, size ${size}, HANDSHAKE_SEED=${SEED})`;
        const error = devices.error ?? drivers.error;
        assert(error === undefined, error + where);
        assertEquals(drivers.requests, devices.requests, where);
        requests += drivers.requests;
        sleeps += drivers.sleeps + devices.sleeps;
      }
      assert(sleeps > 0);
    });
  }
}
