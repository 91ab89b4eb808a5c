import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { FrontendError } from "../../src/frontend/frontend_error.ts";
import type { DriverMemory } from "../../src/frontend/shared_memory.ts";
import { DriverQueue, type DriverQueueHandle } from "../../src/frontend/split_queue.ts";
import { RegionTable } from "../../src/memory/regions.ts";
import { type Chain, SplitRing } from "../../src/virtqueue/mod.ts";

const BYTES = 0x20000;
/** Where guest memory begins: guest addresses are not indexes. */
const GUEST = 2 ** 33;
const BUFFERS = GUEST + 0x10000;

/** Plain memory, as driver and device see it. */
function testMemory(): { u8: Uint8Array<ArrayBuffer>; driver: DriverMemory } {
  const u8 = new Uint8Array(BYTES);
  const locate = (gpa: number) => ({ buffer: u8.buffer, offset: gpa - GUEST });
  const driver: DriverMemory = {
    handle: [],
    locate,
    at: (gpa, bytes) => u8.subarray(gpa - GUEST, gpa - GUEST + bytes),
    userAddress: (gpa) => gpa,
  };
  return { u8, driver };
}

interface World {
  queue: DriverQueue;
  ring: SplitRing;
}

/** A driver and a device on one ring. */
function world(size: number, options: Partial<DriverQueueHandle> = {}, base = 0): World {
  const { u8, driver } = testMemory();
  const handle = {
    size,
    descriptorGpa: GUEST,
    availableGpa: GUEST + 0x2000,
    usedGpa: GUEST + 0x3000,
    tablesGpa: GUEST + 0x5000,
    eventIndex: true,
    indirectParts: 8,
    kickFd: -1,
    callFd: -1,
    errFd: -1,
    ...options,
  };
  const queue = new DriverQueue(driver, handle);
  queue.reset(base);
  const ring = new SplitRing(
    {
      u8,
      base: 0,
      regions: new RegionTable([
        { guestAddress: GUEST, bytes: BYTES, userAddress: 0, index: 0 },
      ]),
    },
    {
      size,
      descriptorIndex: 0,
      availableIndex: 0x2000,
      usedIndex: 0x3000,
      base,
      eventIndex: handle.eventIndex,
      indirect: handle.indirectParts > 0,
      packed: false,
    },
  );
  return { queue, ring };
}

function parts(list: Chain["readable"]): [number, number][] {
  return Array.from({ length: list.count }, (_, i) => [list.index(i), list.length(i)]);
}

for (const indirect of [false, true]) {
  const kind = indirect ? "an indirect" : "a direct";
  Deno.test(`DriverQueue.add() makes ${kind} chain that the device reads as it was given`, () => {
    const { queue, ring } = world(8);
    const head = queue.add(
      [{ gpa: BUFFERS, bytes: 16 }, { gpa: BUFFERS + 0x101, bytes: 3 }],
      [{ gpa: BUFFERS + 0x200, bytes: 512 }, { gpa: BUFFERS + 0x500, bytes: 1 }],
      { indirect },
    );
    assertEquals([queue.inFlight, queue.free], [1, indirect ? 7 : 4]);
    assertStrictEquals(ring.take(), null);
    queue.publish();
    const chain = ring.take()!;
    assertEquals(parts(chain.readable), [[0x10000, 16], [0x10101, 3]]);
    assertEquals(parts(chain.writable), [[0x10200, 512], [0x10500, 1]]);
    ring.put(chain, 513);
    assertStrictEquals(queue.poll(), -1);
    ring.publish();
    assertEquals([queue.poll(), queue.written], [head, 513]);
    assertEquals([queue.inFlight, queue.free], [0, 8]);
  });
}

Deno.test("DriverQueue.begin() returns false when the ring has no room", () => {
  const { queue } = world(4);
  assert(queue.begin(3));
  for (let i = 0; i < 3; i++) queue.descriptor(BUFFERS, 1, false);
  queue.end();
  assert(!queue.begin(2));
  assert(queue.begin(8, true));
  for (let i = 0; i < 8; i++) queue.descriptor(BUFFERS, 1, false);
  queue.end();
  assert(!queue.begin(1, true));
  assertStrictEquals(queue.add([{ gpa: BUFFERS, bytes: 1 }], []), -1);
});

Deno.test("DriverQueue.begin() and end() throw when the number of parts is wrong", () => {
  const { queue } = world(4);
  assertThrows(() => queue.begin(0), RangeError);
  assertThrows(() => queue.begin(9, true), RangeError);
  assertThrows(() => queue.end(), RangeError);
  queue.begin(2);
  queue.descriptor(BUFFERS, 1, false);
  assertThrows(() => queue.end(), RangeError);
  queue.descriptor(BUFFERS, 1, false);
  assertThrows(() => queue.descriptor(BUFFERS, 1, false), RangeError);
});

Deno.test("DriverQueue.begin() forgets a chain that was not ended", () => {
  const { queue, ring } = world(4);
  queue.begin(3);
  queue.descriptor(BUFFERS + 8, 1, false);
  queue.add([], [{ gpa: BUFFERS, bytes: 5 }]);
  queue.publish();
  assertEquals(parts(ring.take()!.writable), [[0x10000, 5]]);
  assertEquals(queue.free, 3);
});

Deno.test("DriverQueue.publish() asks for a kick only past the device's event index", () => {
  const { queue, ring } = world(8);
  const add = () => queue.add([{ gpa: BUFFERS, bytes: 1 }], []);
  assertStrictEquals(queue.publish(), false); // nothing new
  add();
  assertStrictEquals(queue.publish(), true);
  add();
  assertStrictEquals(queue.publish(), false); // the device was told and has not armed again
  while (ring.take() !== null);
  ring.arm();
  add();
  assertStrictEquals(queue.publish(), true);
});

Deno.test("DriverQueue.publish() obeys NO_NOTIFY without event index", () => {
  const { queue } = world(8, { eventIndex: false });
  queue.add([{ gpa: BUFFERS, bytes: 1 }], []);
  assertStrictEquals(queue.publish(), true);
  queue.raw.usedFlags = 1;
  queue.add([{ gpa: BUFFERS, bytes: 1 }], []);
  assertStrictEquals(queue.publish(), false);
});

for (const eventIndex of [true, false]) {
  const name = eventIndex ? "the event index" : "NO_INTERRUPT";
  Deno.test(`DriverQueue.arm() and disarm() tell the device through ${name}`, () => {
    const { queue, ring } = world(8, { eventIndex });
    const complete = () => {
      queue.add([{ gpa: BUFFERS, bytes: 1 }], []);
      queue.publish();
      ring.put(ring.take()!, 0);
      return ring.publish();
    };
    complete();
    assertStrictEquals(queue.arm(), true); // one is there already
    queue.poll();
    assertStrictEquals(queue.arm(), false);
    assertStrictEquals(complete(), true);
    queue.poll();
    queue.disarm();
    assertStrictEquals(complete(), false);
  });
}

Deno.test("DriverQueue.poll() throws when the device gives back what is not in flight", () => {
  for (const id of [3, 8, 0xffffffff]) {
    const { queue } = world(8);
    queue.add([{ gpa: BUFFERS, bytes: 1 }], []);
    queue.publish();
    queue.raw.setUsed(0, id, 0);
    queue.raw.usedIndex = 1;
    assertEquals(assertThrows(() => queue.poll(), FrontendError).reason, "device");
  }
  const { queue } = world(8);
  queue.raw.usedIndex = 1;
  assertEquals(assertThrows(() => queue.poll(), FrontendError).reason, "device");
});

Deno.test("DriverQueue.requeue() offers what is in flight again, in its order", () => {
  const { queue, ring } = world(4, {}, 65534);
  const heads = [1, 2, 3, 4].map((bytes) => queue.add([{ gpa: BUFFERS, bytes }], []));
  queue.publish();
  const chains = heads.map(() => ring.take()!);
  ring.put(chains[2], 0);
  ring.publish();
  assertEquals(queue.poll(), heads[2]);
  const last = queue.add([{ gpa: BUFFERS, bytes: 5 }], []);
  assertEquals(last, heads[2]);
  queue.requeue();
  assertEquals(queue.usedIndex, 65535);
  assertEquals(queue.raw.availableIndex, 3);
  const offered = [0, 1, 2, 3].map((i) => queue.raw.available((65535 + i) % 4));
  assertEquals(offered, [heads[0], heads[1], heads[3], last]);
});

Deno.test("DriverQueue and SplitRing agree on random chains, across the index's wrap-around", () => {
  const step = fc.record({
    readable: fc.nat(3),
    writable: fc.nat(3),
    indirect: fc.boolean(),
    publish: fc.boolean(),
    take: fc.nat(3),
    put: fc.nat(),
    arm: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.constantFrom(0, 65530, 65535),
      fc.boolean(),
      fc.array(step, { maxLength: 60 }),
      (base, eventIndex, steps) => {
        const { queue, ring } = world(8, { eventIndex }, base);
        const waiting = new Map<number, { readable: number; writable: number; tag: number }>();
        const taken: Chain[] = [];
        let tag = 0;
        const poll = () => {
          for (let head = queue.poll(); head >= 0; head = queue.poll()) {
            assertEquals(queue.written, waiting.get(head)!.tag);
            waiting.delete(head);
          }
        };
        for (const { readable, writable, indirect, publish, take, put, arm } of steps) {
          if (readable + writable > 0 && queue.begin(readable + writable, indirect)) {
            tag++;
            for (let i = 0; i < readable; i++) queue.descriptor(BUFFERS, tag, false);
            for (let i = 0; i < writable; i++) queue.descriptor(BUFFERS, tag, true);
            waiting.set(queue.end(), { readable, writable, tag });
          }
          if (publish) queue.publish();
          for (let i = 0; i < take; i++) {
            const chain = ring.take();
            if (chain !== null) taken.push(chain);
          }
          if (taken.length > 0) {
            const [chain] = taken.splice(put % taken.length, 1);
            const expected = waiting.get(chain.slot)!;
            assertEquals(
              [chain.readable.count, chain.writable.count],
              [expected.readable, expected.writable],
            );
            ring.put(chain, expected.tag);
            ring.publish();
          }
          if (arm) queue.arm();
          else queue.disarm();
          poll();
        }
        queue.publish();
        for (let chain = ring.take(); chain !== null; chain = ring.take()) taken.push(chain);
        for (const chain of taken) ring.put(chain, waiting.get(chain.slot)!.tag);
        ring.publish();
        poll();
        assertEquals([waiting.size, queue.inFlight, queue.free], [0, 0, 8]);
      },
    ),
  );
});
