/**
 * Stress of the one thing that a ring cannot do without memory barriers: that a
 * side which looks a last time and then sleeps, and a side which adds something
 * and then looks whether the other one sleeps, never both miss the other.
 *
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
      const sum = { requests: 0, sleeps: 0 };
      for (let phase = 0; phase < SECONDS * 1000 / PHASE_MS; phase++) {
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
        sum.requests += drivers.requests;
        sum.sleeps += drivers.sleeps + devices.sleeps;
      }
      assert(sum.sleeps > 0);
      console.log(name, sum);
    });
  }
}
