/**
 * Stress test of a ring's memory barriers. One side checks the ring a last time and then sleeps;
 * the other adds a buffer and then checks whether its peer sleeps: they must never miss each other.
 * A buffer must not be visible before its content.
 *
 * A device's ring and a driver's run on a thread each, without a device around them: they meet up
 * to a million times a second, which whole devices (`soak_test.ts`) do too rarely to find some
 * races. `HANDSHAKE_SECONDS=60 HANDSHAKE_SEED=7 deno test -A tests/frontend/handshake_test.ts`
 * runs longer, from a seed.
 *
 * Each of these was broken on purpose, and found in three of three runs within two seconds of
 * handshakes of its kind (x86-64, two mostly idle processors; beside twenty busy threads much was
 * not found). Stores and loads that this processor keeps in order were swapped in the source.
 *
 * | broken, in the device's rings                       | found as                  |
 * | --------------------------------------------------- | ------------------------- |
 * | split: plain store of the used index in `publish`   | notification lost         |
 * | split: plain store of `avail_event` in `arm`        | notification lost         |
 * | split: plain store of the flags in `arm`            | notification lost         |
 * | split: used element written after the used index    | wrong length              |
 * | split: available ring read before its index         | wrong length, rule broken |
 * | split: descriptors read before the available index  | wrong length or answer    |
 * | packed: plain store of the flags in `publish`       | notification lost         |
 * | packed: plain store of the event place in `arm`     | notification lost         |
 * | packed: plain store of the event flags in `arm`     | notification lost         |
 * | packed: length written after the flags              | wrong length              |
 * | packed: descriptors read before the flags           | wrong length or answer    |
 *
 * The same holds for `publish` of both layouts and `arm` of split rings in the front-end. Not
 * found, since they break nothing here: a plain load of the available index or of the flags in
 * `take` (x86-64 keeps loads in order, and V8 did not move it), and a plain store of the event
 * place in `arm` of the front-end's packed rings (the store of the flags after it is the barrier).
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
} from "./lib/handshake_order.ts";
import { Random } from "../../tools/lib/random.ts";
import { WorkerThread } from "./lib/worker_thread.ts";

const SECONDS = Number(Deno.env.get("HANDSHAKE_SECONDS") ?? 2);
const SEED = Number(Deno.env.get("HANDSHAKE_SEED") ?? Math.floor(Math.random() * 2 ** 32));

/** On busy processors the threads meet rarely, and run for up to three times as long. */
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
      using driver = start("./lib/handshake_driver.ts");
      using device = start("./lib/handshake_device.ts");
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
