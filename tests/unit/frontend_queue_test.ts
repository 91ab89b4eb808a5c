import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { FrontendError } from "../../src/frontend/frontend_error.ts";
import { openDriverQueue } from "../../src/frontend/driver_queues.ts";
import { DriverQueue } from "../../src/frontend/split_queue.ts";
import { PackedDriverQueue } from "../../src/frontend/packed_queue.ts";
import type { DriverQueueHandle } from "../../src/frontend/driver_ring.ts";
import { packedDescriptorFlags } from "../../src/frontend/raw_packed_ring.ts";
import { DriverMemory } from "../../src/frontend/shared_memory.ts";
import { RegionTable } from "../../src/memory/regions.ts";
import { type Chain, createRing, initialBase, type Virtqueue } from "../../src/virtqueue/mod.ts";

const BYTES = 0x20000;
/** Where guest memory begins: guest addresses are not indexes. */
const GUEST = 2 ** 33;
const BUFFERS = GUEST + 0x10000;

/** Plain memory in place of shared memory. */
class PlainMemory extends DriverMemory {
  readonly u8 = new Uint8Array(BYTES);

  override locate(gpa: number): { buffer: ArrayBuffer; offset: number } {
    return { buffer: this.u8.buffer, offset: gpa - GUEST };
  }
}

/** Plain memory, as driver and device see it. */
function testMemory(): { u8: Uint8Array<ArrayBuffer>; driver: DriverMemory } {
  const driver = new PlainMemory([]);
  return { u8: driver.u8, driver };
}

interface World<T> {
  queue: T;
  ring: Virtqueue;
  memory: DriverMemory;
  /** A device that begins at a base. */
  restart(base: number): Virtqueue;
}

const splitWorld = (
  size: number,
  options: Partial<DriverQueueHandle> = {},
  base = initialBase(false),
) =>
  world((memory, handle) => new DriverQueue(memory, handle), {
    size,
    packed: false,
    ...options,
    base,
  });

const packedWorld = (
  size: number,
  options: Partial<DriverQueueHandle> = {},
  base = initialBase(true),
) =>
  world((memory, handle) => new PackedDriverQueue(memory, handle), {
    size,
    packed: true,
    ...options,
    base,
  });

/** Both layouts, for tests that are the same with both. */
const layouts = [["DriverQueue", splitWorld], ["PackedDriverQueue", packedWorld]] as const;

/** A driver and a device on one ring. */
function world<T extends DriverQueue | PackedDriverQueue>(
  open: (memory: DriverMemory, handle: DriverQueueHandle) => T,
  options: Partial<DriverQueueHandle> & { size: number; packed: boolean; base: number },
): World<T> {
  const { u8, driver } = testMemory();
  const handle: DriverQueueHandle = {
    descriptorGpa: GUEST,
    availableGpa: GUEST + 0x2000,
    usedGpa: GUEST + 0x3000,
    tablesGpa: GUEST + 0x5000,
    eventIndex: true,
    inOrder: false,
    indirectParts: 8,
    kickFd: -1,
    callFd: -1,
    errFd: -1,
    ...options,
  };
  const queue = open(driver, handle);
  queue.reset(options.base);
  const regions = new RegionTable([{
    guestAddress: GUEST,
    bytes: BYTES,
    userAddress: 0,
    index: 0,
  }]);
  const restart = (base: number) =>
    createRing({ u8, base: 0, regions }, {
      size: options.size,
      descriptorIndex: 0,
      availableIndex: 0x2000,
      usedIndex: 0x3000,
      base,
      eventIndex: handle.eventIndex,
      indirect: handle.indirectParts > 0,
      inOrder: handle.inOrder,
      packed: handle.packed,
    });
  return { queue, ring: restart(options.base), memory: driver, restart };
}

function parts(list: Chain["readable"]): [number, number][] {
  return Array.from({ length: list.count }, (_, i) => [list.index(i), list.length(i)]);
}

for (const [name, world] of layouts) {
  for (const indirect of [false, true]) {
    const kind = indirect ? "an indirect" : "a direct";
    Deno.test(`${name}.add() makes ${kind} chain that the device reads correctly`, () => {
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

  Deno.test(`${name}.begin() returns false when the ring has no room`, () => {
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

  Deno.test(`${name}.begin() and end() throw when the number of parts is wrong`, () => {
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

  Deno.test(`${name}.begin() drops a chain that was not ended, at every place of the ring`, () => {
    for (let place = 0; place < 8; place++) {
      const { queue, ring } = world(4);
      for (let i = 0; i < place; i++) {
        queue.add([], [{ gpa: BUFFERS, bytes: 1 }]);
        queue.publish();
        ring.put(ring.take()!, 0);
        ring.publish();
        queue.poll();
      }
      queue.begin(3);
      queue.descriptor(BUFFERS + 8, 1, false);
      queue.descriptor(BUFFERS + 8, 1, false);
      queue.add([], [{ gpa: BUFFERS, bytes: 5 }]);
      queue.publish();
      assertEquals(parts(ring.take()!.writable), [[0x10000, 5]]);
      assertStrictEquals(ring.take(), null);
      assertEquals(queue.free, 3);
    }
  });

  Deno.test(`${name}.publish() asks for a kick only past the device's event index`, () => {
    const { queue, ring } = world(8);
    const add = () => queue.add([{ gpa: BUFFERS, bytes: 1 }], []);
    ring.arm();
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

  Deno.test(`${name}.publish() obeys the device's flags without event index`, () => {
    const { queue, ring } = world(8, { eventIndex: false });
    const add = () => queue.add([{ gpa: BUFFERS, bytes: 1 }], []);
    add();
    assertStrictEquals(queue.publish(), true);
    ring.disarm();
    add();
    assertStrictEquals(queue.publish(), false);
    ring.arm();
    add();
    assertStrictEquals(queue.publish(), true);
  });

  for (const eventIndex of [true, false]) {
    const means = eventIndex ? "the event index" : "flags";
    Deno.test(`${name}.arm() and disarm() tell the device through ${means}`, () => {
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
      queue.poll();
      assertStrictEquals(queue.arm(), false);
      assertStrictEquals(complete(), true);
    });
  }

  Deno.test(`${name}.requeue() resubmits chains in flight, in order`, () => {
    for (let before = 0; before < 9; before++) {
      for (const indirect of [true, false]) {
        const { queue, ring, restart } = world(4);
        for (let i = 0; i < before; i++) {
          queue.add([{ gpa: BUFFERS, bytes: 1 }], []);
          queue.publish();
          ring.put(ring.take()!, 0);
          ring.publish();
          queue.poll();
        }
        const add = (bytes: number) => queue.add([{ gpa: BUFFERS, bytes }], [], { indirect });
        const heads = [1, 2, 3, 4].map(add);
        queue.publish();
        const chains = heads.map(() => ring.take()!);
        ring.put(chains[2], 0);
        ring.publish();
        assertEquals(queue.poll(), heads[2]);
        const last = add(5);
        queue.requeue();
        const again = restart(queue.resumeBase);
        const seen = Array.from({ length: 4 }, () => again.take()!);
        assertEquals(seen.map(({ id }) => id), [heads[0], heads[1], heads[3], last]);
        assertEquals(seen.map(({ readableBytes }) => readableBytes), [1, 2, 4, 5]);
        assertStrictEquals(again.take(), null);
        for (const chain of seen.toReversed()) again.put(chain, 0);
        again.publish();
        for (const { id } of seen.toReversed()) assertEquals(queue.poll(), id);
        assertEquals(queue.free, 4);
      }
    }
  });

  Deno.test(`${name} continues a ring where another one left it`, () => {
    const { queue, ring, memory } = world(4);
    let current: DriverQueue | PackedDriverQueue = queue;
    for (let i = 0; i < 20; i++) {
      current = openDriverQueue(memory, current.handle);
      for (let k = 0; k <= i % 3; k++) {
        const head = current.add([{ gpa: BUFFERS, bytes: i + 1 }], []);
        current.publish();
        const chain = ring.take()!;
        assertEquals(chain.readableBytes, i + 1);
        ring.put(chain, 0);
        ring.publish();
        assertEquals(current.poll(), head);
      }
    }
  });

  Deno.test(`${name} in order completes all chains of a batch by one used buffer`, () => {
    // virtio 1.3, 2.7.9 and 2.8.8: skipped buffers were written completely.
    const { queue } = world(8, { inOrder: true });
    for (let round = 0; round < 20; round++) {
      const heads = [1, 2, 3].map((bytes) =>
        queue.add([{ gpa: BUFFERS, bytes: 9 }], [{ gpa: BUFFERS, bytes }])
      );
      queue.publish();
      useBatch(queue, round * 3, round * 6, heads[1], 1);
      assertEquals([queue.poll(), queue.written], [heads[0], 1]);
      assertStrictEquals(queue.arm(), true);
      assertEquals([queue.poll(), queue.written], [heads[1], 1]);
      assertEquals([queue.poll(), queue.arm()], [-1, false]);
      useBatch(queue, round * 3 + 2, round * 6 + 4, heads[2], 3);
      assertEquals([queue.poll(), queue.written], [heads[2], 3]);
      assertEquals([queue.poll(), queue.free], [-1, 8]);
    }
  });

  for (const inOrder of [false, true]) {
    const order = inOrder ? " in order" : "";
    Deno.test(`${name} and its ring agree on random chains${order}, around and around`, () => {
      const step = fc.record({
        readable: fc.nat(2),
        writable: fc.nat(2),
        indirect: fc.boolean(),
        publish: fc.boolean(),
        take: fc.nat(3),
        put: fc.nat(),
        arm: fc.boolean(),
      });
      const isPacked = world === packedWorld;
      const ring = isPacked
        ? fc.integer({ min: 4, max: 9 }).chain((size) =>
          fc.record({ size: fc.constant(size), base: fc.nat(2 * size - 1).map(baseAt(size)) })
        )
        : fc.record({ size: fc.constant(8), base: fc.constantFrom(0, 65530, 65535) });
      fc.assert(
        fc.property(
          ring,
          fc.boolean(),
          fc.array(step, { maxLength: 80 }),
          ({ size, base }, eventIndex, steps) =>
            agree(world(size, { eventIndex, inOrder }, base), size, inOrder, steps),
        ),
        { numRuns: 300 },
      );
    });
  }
}

/** The base of a packed ring at a place, with all descriptors used. */
function baseAt(size: number): (place: number) => number {
  return (place) => {
    const half = place < size ? place | 0x8000 : place - size;
    return (half | half << 16) >>> 0;
  };
}

/** Writes one used buffer for several chains that were completed in order. */
function useBatch(
  queue: DriverQueue | PackedDriverQueue,
  chains: number,
  descriptors: number,
  head: number,
  written: number,
): void {
  if (queue instanceof DriverQueue) {
    queue.raw.setUsed(chains % queue.size, head, written);
    queue.raw.usedIndex = chains + (chains % 3 === 0 ? 2 : 1);
    return;
  }
  const { AVAIL, USED, WRITE } = packedDescriptorFlags;
  const wrap = Math.floor(descriptors / queue.size) % 2 === 0 ? AVAIL | USED : 0;
  queue.raw.setDescriptor(descriptors % queue.size, {
    id: head,
    bytes: written,
    flags: wrap | WRITE,
  });
}

interface Step {
  readable: number;
  writable: number;
  indirect: boolean;
  publish: boolean;
  take: number;
  put: number;
  arm: boolean;
}

/** Runs steps of a driver and a device; each chain's number is the size of its buffers. */
function agree(
  { queue, ring }: World<DriverQueue | PackedDriverQueue>,
  size: number,
  inOrder: boolean,
  steps: Step[],
): void {
  const waiting = new Map<number, { readable: number; writable: number; tag: number }>();
  const taken: Chain[] = [];
  let tag = 0, polled = 0;
  const written = ({ tag }: { tag: number }) => tag % 3 === 0 ? 0 : tag;
  const poll = () => {
    for (let head = queue.poll(); head >= 0; head = queue.poll()) {
      const request = waiting.get(head)!;
      assertEquals(queue.written, written(request));
      polled++;
      if (inOrder) assertEquals(request.tag, polled);
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
      const expected = waiting.get(chain.id)!;
      assertEquals(
        [chain.readable.count, chain.writable.count, chain.readableBytes + chain.writableBytes],
        [
          expected.readable,
          expected.writable,
          (expected.readable + expected.writable) * expected.tag,
        ],
      );
      ring.put(chain, written(expected));
      ring.publish();
    }
    if (arm) queue.arm();
    else queue.disarm();
    poll();
  }
  queue.publish();
  for (let chain = ring.take(); chain !== null; chain = ring.take()) taken.push(chain);
  for (const chain of taken) ring.put(chain, written(waiting.get(chain.id)!));
  ring.publish();
  poll();
  assertEquals([waiting.size, queue.inFlight, queue.free, polled], [0, 0, size, tag]);
}

Deno.test("DriverQueue.poll() throws when the device completes a chain that is not in flight", () => {
  for (const id of [3, 8, 0xffffffff]) {
    const { queue } = splitWorld(8);
    queue.add([{ gpa: BUFFERS, bytes: 1 }], []);
    queue.publish();
    queue.raw.setUsed(0, id, 0);
    queue.raw.usedIndex = 1;
    assertEquals(assertThrows(() => queue.poll(), FrontendError).reason, "device");
  }
  const { queue } = splitWorld(8);
  queue.raw.usedIndex = 1;
  assertEquals(assertThrows(() => queue.poll(), FrontendError).reason, "device");
});

Deno.test("PackedDriverQueue.poll() throws when the device completes a chain that is not in flight", () => {
  const { AVAIL, USED } = packedDescriptorFlags;
  for (const id of [3, 8, 0xffff]) {
    const { queue } = packedWorld(8);
    queue.add([{ gpa: BUFFERS, bytes: 1 }], []);
    queue.publish();
    queue.raw.setDescriptor(0, { id, flags: AVAIL | USED });
    assertEquals(assertThrows(() => queue.poll(), FrontendError).reason, "device");
  }
});

Deno.test("DriverQueue in order uses descriptors one after the other and around", () => {
  // virtio 1.3, 2.7.5
  const { queue, ring } = splitWorld(8, { inOrder: true });
  const part = { gpa: BUFFERS, bytes: 1 };
  let next = 0;
  for (let i = 0; i < 30; i++) {
    const count = 1 + i % 5;
    assertEquals(queue.add(Array(count).fill(part), []), next);
    for (let k = 0; k < count; k++) {
      const { flags, next: link } = queue.raw.descriptor((next + k) % 8);
      assertEquals(flags, k < count - 1 ? 1 : 0);
      if (k < count - 1) assertEquals(link, (next + k + 1) % 8);
    }
    next = (next + count) % 8;
    queue.publish();
    ring.put(ring.take()!, 0);
    ring.publish();
    queue.poll();
  }
});

Deno.test("PackedDriverQueue marks every descriptor of a list, on both sides of the ring's end", () => {
  const { NEXT, WRITE, AVAIL, USED } = packedDescriptorFlags;
  const { queue } = packedWorld(5, {}, baseAt(5)(3));
  const id = queue.add(
    [{ gpa: BUFFERS, bytes: 1 }, { gpa: BUFFERS, bytes: 2 }],
    [{ gpa: BUFFERS, bytes: 3 }],
  );
  assertEquals(queue.raw.descriptor(3).flags, 0, "the first one is shown last");
  queue.publish();
  assertEquals([3, 4, 0].map((at) => queue.raw.descriptor(at)), [
    { gpa: BigInt(BUFFERS), bytes: 1, id, flags: AVAIL | NEXT },
    { gpa: BigInt(BUFFERS), bytes: 2, id: queue.raw.descriptor(4).id, flags: AVAIL | NEXT },
    { gpa: BigInt(BUFFERS), bytes: 3, id: queue.raw.descriptor(0).id, flags: USED | WRITE },
  ]);
});
