import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { passes } from "../../src/virtqueue/packed/places.ts";
import { type Chain, RingError, type RingRule } from "../../src/virtqueue/mod.ts";
import {
  baseAt,
  DESC,
  DISABLE,
  ENABLE,
  type PackedDescriptor,
  PackedRingDriver,
} from "./lib/packed_ring_driver.ts";
import {
  assertBreaks,
  BUFFERS,
  INDIRECT,
  MEMORY_BYTES,
  NEXT,
  places,
  testMemory,
  WRITE,
} from "./lib/ring_driver.ts";

const ONE: PackedDescriptor = { gpa: BUFFERS, bytes: 1 };

Deno.test("PackedRing.take() returns null when nothing is available, at every place", () => {
  for (const size of [1, 2, 3, 8]) {
    for (let place = 0; place < 2 * size; place++) {
      const { ring } = new PackedRingDriver(size, { base: baseAt(place, size) });
      assertStrictEquals(ring.take(), null);
      assertEquals([ring.isAvailable, ring.arm()], [false, false]);
      assertEquals(ring.base, baseAt(place, size));
    }
  }
});

Deno.test("PackedRing.take() returns null for a descriptor with any other flags", () => {
  // virtio 1.3, 2.8.1: both bits have to be right.
  for (const place of [0, 4]) {
    for (const flags of [0, 1 << 7, 1 << 15, 1 << 7 | 1 << 15]) {
      const driver = new PackedRingDriver(4, { base: baseAt(place, 4) });
      driver.describe(0, { ...ONE, flags });
      assertEquals(driver.ring.take() !== null, flags === (place === 0 ? 1 << 7 : 1 << 15));
    }
  }
});

Deno.test("PackedRing.take() follows a list over the end of the ring, from every place", () => {
  for (const size of [3, 4, 5]) {
    for (let place = 0; place < 2 * size; place++) {
      for (let count = 1; count <= size; count++) {
        const driver = new PackedRingDriver(size, { base: baseAt(place, size) });
        driver.offer(Array.from({ length: count }, (_, i) => ({ gpa: BUFFERS + i, bytes: i + 1 })));
        const chain = driver.ring.take()!;
        assertEquals(
          places(chain.readable),
          Array.from({ length: count }, (_, i) => [BUFFERS + i, i + 1]),
        );
        driver.ring.put(chain, 0);
        driver.ring.publish();
        assertEquals(driver.used(count), { id: 0, bytes: 0, flags: 0 });
        assertEquals(driver.ring.base, baseAt((place + count) % (2 * size), size));
      }
    }
  }
});

Deno.test("PackedRing.take() reads an indirect table in order and ignores all flags but WRITE", () => {
  // virtio 1.3, 2.8.7
  const driver = new PackedRingDriver(8);
  const table = BUFFERS + 0x1001; // a table needs no alignment
  driver.describe(0, { gpa: BUFFERS, bytes: 16, flags: NEXT | INDIRECT, id: 99 }, table);
  driver.describe(1, { gpa: BUFFERS + 16, bytes: 8, flags: 0 }, table);
  driver.describe(2, { gpa: BUFFERS + 64, bytes: 32, flags: WRITE | INDIRECT }, table);
  driver.offer([{ gpa: table, bytes: 48, flags: INDIRECT | WRITE }], 3);
  const chain = driver.ring.take()!;
  assertEquals(places(chain.readable), [[BUFFERS, 16], [BUFFERS + 16, 8]]);
  assertEquals(places(chain.writable), [[BUFFERS + 64, 32]]);
  assertEquals([chain.id, chain.descriptors], [3, 3]);
  driver.ring.put(chain, 32);
  driver.ring.publish();
  assertEquals(driver.used(1), { id: 3, bytes: 32, flags: WRITE });
});

// Broken rules.

Deno.test("PackedRing.take() refuses a buffer ID outside the queue", () => {
  for (const id of [8, 0xffff]) {
    const driver = new PackedRingDriver(8);
    driver.offer([ONE, ONE], id);
    assertBreaks(driver, "descriptor-index");
  }
});

Deno.test("PackedRing.take() refuses a buffer ID that is in flight", () => {
  const driver = new PackedRingDriver(8);
  driver.offer([ONE], 2);
  driver.offer([ONE], 2);
  driver.ring.take();
  assertBreaks(driver, "head-in-flight");
});

Deno.test("PackedRing.take() refuses a buffer ID whose completion is held back", () => {
  const driver = new PackedRingDriver(8, { inOrder: true });
  driver.offer([ONE], 1);
  driver.offer([ONE], 2);
  driver.offer([ONE], 2);
  driver.ring.take();
  driver.ring.put(driver.ring.take()!, 0);
  assertBreaks(driver, "head-in-flight");
});

Deno.test("PackedRing.take() refuses more descriptors than are free, at every place", () => {
  for (let place = 0; place < 8; place++) {
    for (const [first, second] of [[1, 4], [4, 1], [2, 3], [3, 2]]) {
      const driver = new PackedRingDriver(4, { base: baseAt(place, 4) });
      driver.offer(Array(first).fill(ONE), 0);
      const chain = driver.ring.take()!;
      driver.offer(Array(second).fill(ONE), 1);
      assertBreaks(driver, "available-index");
      assertEquals(chain.id, 0);
    }
  }
});

Deno.test("PackedRing.take() refuses a list that continues in unavailable descriptors", () => {
  for (let place = 0; place < 8; place++) {
    const driver = new PackedRingDriver(4, { base: baseAt(place, 4) });
    driver.describe(place % 4, { ...ONE, flags: driver.available(place) | NEXT });
    assertBreaks(driver, "list-available");
  }
});

Deno.test("PackedRing.take() refuses a list that is longer than the queue", () => {
  for (const size of [1, 3, 4]) {
    for (let place = 0; place < 2 * size; place++) {
      const driver = new PackedRingDriver(size, { base: baseAt(place, size) });
      driver.offer(Array(size).fill(ONE));
      const last = (place + size - 1) % (2 * size);
      driver.setFlags(last % size, driver.available(last) | NEXT);
      assertBreaks(driver, "chain-length");
    }
  }
});

Deno.test("PackedRing.take() refuses INDIRECT in a list", () => {
  const indirect = { gpa: BUFFERS, bytes: 16, flags: INDIRECT };
  for (const list of [[ONE, indirect], [indirect, ONE]]) {
    const driver = new PackedRingDriver(8);
    driver.offer(list);
    assertBreaks(driver, "indirect-next");
  }
});

Deno.test("PackedRing accepts any size up to 32768", () => {
  for (const size of [0, 32769]) {
    const error = assertThrows(() => new PackedRingDriver(size), RingError);
    assertEquals(error.rule, "queue-size");
  }
  const memory = testMemory(0x100000);
  const { ring } = new PackedRingDriver(32768, {
    descriptorIndex: 0x20000,
    base: baseAt(65535, 32768),
  }, memory);
  assertEquals(ring.base, 0x7fff7fff);
});

Deno.test("PackedRing refuses unaligned areas", () => {
  for (
    const [descriptorIndex, availableIndex, usedIndex] of [
      [0x1008, 0x9000, 0xb000],
      [0x1000, 0x9002, 0xb000],
      [0x1000, 0x9000, 0xb002],
    ]
  ) {
    const error = assertThrows(
      () => new PackedRingDriver(8, { descriptorIndex, availableIndex, usedIndex }),
      RingError,
    );
    assertEquals(error.rule, "ring-alignment");
  }
});

Deno.test("PackedRing accepts every valid base, and refuses all others", () => {
  const size = 3;
  for (let next = 0; next < 2 * size; next++) {
    for (let used = 0; used < 2 * size; used++) {
      const base = (baseAt(next, size) & 0xffff | baseAt(used, size) << 16) >>> 0;
      const between = (next - used + 2 * size) % (2 * size);
      // All descriptors taken, with 0 in the upper half, is what DPDK means by a new ring.
      const isHalf = used === size && between >= size;
      const make = () => new PackedRingDriver(size, { base });
      if (isHalf) assertEquals(make().ring.base, baseAt(next, size));
      else if (between > size) assertThrows(make, RangeError, "inside a packed ring of 3");
      else assertEquals(make().ring.base, base);
    }
  }
  for (const base of [3, 0x8003, 3 << 16, 0x8003_8000]) {
    assertThrows(() => new PackedRingDriver(size, { base }), RangeError);
  }
});

Deno.test("PackedRing reads each descriptor once, so a later change has no effect", () => {
  const driver = new PackedRingDriver(8);
  driver.offer([{ gpa: BUFFERS, bytes: 4 }]);
  const chain = driver.ring.take()!;
  driver.describe(0, { gpa: MEMORY_BYTES, bytes: 0xffff_ffff });
  assertEquals([chain.readable.index(0), chain.readable.length(0)], [BUFFERS, 4]);
});

// Completion.

Deno.test("PackedRing.publish() makes completions visible together, in completion order", () => {
  const driver = new PackedRingDriver(8);
  const buffer = { gpa: BUFFERS, bytes: 64, flags: WRITE };
  driver.offer([buffer, buffer], 3);
  driver.offer([buffer], 1);
  driver.offer([buffer, buffer, buffer], 5);
  const chains = [driver.ring.take()!, driver.ring.take()!, driver.ring.take()!];
  driver.ring.put(chains[2], 9);
  driver.ring.put(chains[0], 0);
  assertStrictEquals(driver.used(0), undefined);
  assertEquals(driver.ring.publish(), true);
  assertEquals(driver.used(3), { id: 5, bytes: 9, flags: WRITE });
  assertEquals(driver.used(2), { id: 3, bytes: 0, flags: 0 });
  assertStrictEquals(driver.used(0), undefined);
  assertEquals(driver.ring.inFlight, 1);
  assertEquals(driver.ring.publish(), false);
  driver.ring.put(chains[1], 64);
  driver.ring.publish();
  assertEquals(driver.used(1), { id: 1, bytes: 64, flags: WRITE });
});

Deno.test("PackedRing in order holds back completions until their predecessors are completed", () => {
  for (let place = 0; place < 8; place++) {
    const driver = new PackedRingDriver(4, { inOrder: true, base: baseAt(place, 4) });
    driver.offer([ONE], 3);
    driver.offer([ONE, ONE], 0);
    driver.offer([ONE], 1);
    const [first, second, third] = [0, 1, 2].map(() => driver.ring.take()!);
    driver.ring.put(third, 0);
    driver.ring.put(second, 0);
    assertEquals([driver.ring.publish(), driver.ring.inFlight], [false, 1]);
    assertStrictEquals(driver.used(1), undefined);
    driver.ring.put(first, 0);
    assertEquals(driver.ring.publish(), true);
    assertEquals([1, 2, 1].map((count) => driver.used(count)?.id), [3, 0, 1]);
    assertEquals(driver.ring.base, baseAt((place + 4) % 8, 4));
  }
});

Deno.test("PackedRing in order completes nothing after an abandoned chain", () => {
  const driver = new PackedRingDriver(4, { inOrder: true });
  driver.offer([ONE], 0);
  driver.offer([ONE], 1);
  driver.offer([ONE], 2);
  const [first, second, third] = [0, 1, 2].map(() => driver.ring.take()!);
  driver.ring.put(third, 0);
  driver.ring.abandon(second);
  driver.ring.put(first, 0);
  driver.ring.publish();
  assertEquals(driver.used(1)?.id, 0);
  assertStrictEquals(driver.used(1), undefined);
  assertEquals(driver.ring.inFlight, 0);
});

// Notifications.

Deno.test("PackedRing.publish() respects the driver's ENABLE and DISABLE, with and without event index", () => {
  for (const eventIndex of [false, true]) {
    const driver = new PackedRingDriver(8, { eventIndex });
    for (const flags of [ENABLE, DISABLE, ENABLE, DISABLE]) {
      driver.setDriverEvent(flags);
      driver.offer([ONE]);
      driver.ring.put(driver.ring.take()!, 0);
      assertEquals(driver.ring.publish(), flags === ENABLE);
    }
  }
});

Deno.test("PackedRing.publish() notifies if DESC was not negotiated", () => {
  const driver = new PackedRingDriver(8);
  driver.setDriverEvent(DESC, 5);
  for (let i = 0; i < 3; i++) {
    driver.offer([ONE]);
    driver.ring.put(driver.ring.take()!, 0);
    assertEquals(driver.ring.publish(), true);
  }
});

Deno.test("PackedRing.publish() notifies when it passes the driver's descriptor: every case of small rings", () => {
  // virtio 1.3, 2.8.10: lists of every length, from every place, for every event.
  for (const size of [1, 2, 3, 4, 5]) {
    for (let place = 0; place < 2 * size; place++) {
      for (let count = 1; count <= size; count++) {
        for (let lists = 1; lists <= count; lists++) {
          for (let event = 0; event < 2 * size; event++) {
            const driver = new PackedRingDriver(size, {
              eventIndex: true,
              base: baseAt(place, size),
            });
            driver.setDriverEvent(DESC, event);
            // The first time it cannot know what the driver saw.
            driver.offer(Array(size).fill(ONE));
            driver.ring.put(driver.ring.take()!, 0);
            assertEquals(driver.ring.publish(), true);
            const from = (place + size) % (2 * size);
            const sizes = [...Array(lists - 1).fill(1), count - lists + 1];
            for (const [id, length] of sizes.entries()) driver.offer(Array(length).fill(ONE), id);
            for (const _ of sizes) driver.ring.put(driver.ring.take()!, 0);
            const passed = Array.from({ length: count }, (_, i) => (from + i) % (2 * size));
            assertEquals(
              driver.ring.publish(),
              passed.includes(event),
              `size ${size}, from ${from}, ${count} descriptors, event ${event}`,
            );
          }
        }
      }
    }
  }
});

Deno.test("passes() agrees with its definition for every step of small rings", () => {
  for (const size of [1, 2, 3, 7]) {
    const round = 2 * size;
    for (let previous = 0; previous < round; previous++) {
      for (let step = 0; step <= size; step++) {
        for (let event = 0; event < round; event++) {
          const passed = Array.from({ length: step }, (_, i) => (previous + i) % round);
          assertEquals(
            passes(event, (previous + step) % round, previous, size),
            passed.includes(event),
          );
        }
      }
    }
  }
});

Deno.test("PackedRing.arm() asks for the next descriptor, at every place", () => {
  for (const size of [1, 3, 4]) {
    const driver = new PackedRingDriver(size, { eventIndex: true });
    for (let place = 0; place < 4 * size; place++) {
      assertEquals(driver.ring.arm(), false);
      assertEquals(driver.deviceEvent, { flags: DESC, place: place % (2 * size) });
      driver.ring.disarm(); // no change with event index
      assertEquals(driver.deviceEvent.flags, DESC);
      driver.offer([ONE]);
      assertEquals([driver.ring.isAvailable, driver.ring.arm()], [true, true]);
      driver.ring.put(driver.ring.take()!, 0);
      driver.ring.publish();
    }
  }
});

Deno.test("PackedRing.arm() and disarm() enable and disable without event index", () => {
  const driver = new PackedRingDriver(8);
  for (let i = 0; i < 3; i++) {
    driver.ring.disarm();
    assertEquals(driver.deviceEvent.flags, DISABLE);
    assertEquals(driver.ring.arm(), false);
    assertEquals(driver.deviceEvent.flags, ENABLE);
  }
  driver.offer([ONE]);
  assertEquals(driver.ring.arm(), true);
});

// Many of them.

Deno.test("PackedRing keeps its position over random lists, whatever the size, the base and the order", () => {
  const step = fc.record({
    parts: fc.integer({ min: 1, max: 4 }),
    indirect: fc.boolean(),
    put: fc.nat(),
    publish: fc.boolean(),
  });
  const start = fc.integer({ min: 1, max: 9 }).chain((size) =>
    fc.record({ size: fc.constant(size), place: fc.nat(2 * size - 1) })
  );
  fc.assert(
    fc.property(
      start,
      fc.boolean(),
      fc.array(step, { minLength: 1, maxLength: 120 }),
      ({ size, place }, inOrder, steps) => {
        const driver = new PackedRingDriver(size, { inOrder, base: baseAt(place, size) });
        const tableAt = (id: number) => BUFFERS + 0x8000 + id * 0x100;
        const ids = Array.from({ length: size }, (_, i) => i);
        const lists = new Map<number, { count: number; bytes: number }>();
        let expected: number[] = [];
        const taken: Chain[] = [];
        let free = size, tag = 0;
        const collect = () => {
          for (;;) {
            const [next] = expected;
            const used = driver.used(next === undefined ? 0 : lists.get(next)!.count);
            if (used === undefined) return;
            assertEquals(used.id, next);
            assertEquals(used.bytes, lists.get(next)!.bytes);
            assertEquals(used.flags, used.bytes > 0 ? WRITE : 0);
            expected = expected.slice(1);
            free += lists.get(next)!.count;
            lists.delete(next);
            ids.push(next);
          }
        };
        const put = (which: number) => {
          const [chain] = taken.splice(which % taken.length, 1);
          driver.ring.put(chain, lists.get(chain.id)!.bytes);
          if (!inOrder) expected.push(chain.id);
        };
        for (const { parts, indirect, put: which, publish } of steps) {
          const count = indirect ? 1 : parts;
          if (count <= free && parts <= size) {
            const id = ids.splice(which % ids.length, 1)[0];
            const bytes = ++tag % 5 === 0 ? 0 : tag;
            const entry = { gpa: BUFFERS, bytes: tag, flags: WRITE };
            if (indirect) {
              for (let i = 0; i < parts; i++) driver.describe(i, entry, tableAt(id));
              driver.offer([{ gpa: tableAt(id), bytes: parts * 16, flags: INDIRECT }], id);
            } else {
              driver.offer(Array(parts).fill(entry), id);
            }
            free -= count;
            lists.set(id, { count, bytes });
            if (inOrder) expected.push(id);
            const chain = driver.ring.take()!;
            assertEquals([chain.id, chain.writableBytes], [id, parts * tag]);
            taken.push(chain);
          }
          assertStrictEquals(driver.ring.take(), null);
          if (which % 3 > 0 && taken.length > 0) put(which);
          if (publish) {
            driver.ring.publish();
            collect();
          }
        }
        while (taken.length > 0) put(0);
        driver.ring.publish();
        collect();
        assertEquals([expected, free, driver.ring.inFlight], [[], size, 0]);
        assertEquals(driver.ring.base, baseAt(driver.place, size));
        assertEquals(driver.usedPlace, driver.place);
      },
    ),
    { numRuns: 1000 },
  );
});

Deno.test("PackedRing.take() returns the driver's chain, or names a rule, for random rings", () => {
  const descriptor = fc.record({
    gpa: fc.oneof(
      fc.integer({ min: 0, max: MEMORY_BYTES + 64 }),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    ),
    bytes: fc.oneof(fc.integer({ min: 0, max: 0x1000 }), fc.integer({ min: 0, max: 0xffff_ffff })),
    flags: fc.integer({ min: 0, max: 7 }),
    id: fc.integer({ min: 0, max: 9 }),
    isAvailable: fc.integer({ min: 0, max: 9 }).map((number) => number > 0),
  });
  const SIZE = 8, TABLE = BUFFERS + 0x2000, TABLE_ENTRIES = 4;
  fc.assert(
    fc.property(
      fc.array(descriptor, { minLength: SIZE, maxLength: SIZE }),
      fc.array(descriptor, { minLength: TABLE_ENTRIES, maxLength: TABLE_ENTRIES }),
      fc.nat(2 * SIZE - 1),
      fc.boolean(),
      (list, table, place, putBack) => {
        const driver = new PackedRingDriver(SIZE, { base: baseAt(place, SIZE) });
        list.forEach((entry, i) => {
          const at = (place + i) % (2 * SIZE);
          const owner = entry.isAvailable
            ? driver.available(at)
            : driver.descriptor(at % SIZE).flags;
          const buffer = entry.flags & INDIRECT ? { gpa: TABLE, bytes: TABLE_ENTRIES * 16 } : entry;
          driver.describe(at % SIZE, { ...buffer, id: entry.id, flags: entry.flags | owner });
        });
        table.forEach((entry, i) => driver.describe(i, entry, TABLE));
        const inFlight = new Set<number>();
        for (let at = 0;;) {
          const expected = at < SIZE && list[at].isAvailable ? model(list, at, inFlight) : null;
          try {
            const chain = driver.ring.take();
            if (chain === null) return assertStrictEquals(expected, null);
            assert(expected !== null && typeof expected !== "string", `took what is ${expected}`);
            const { bytes, id, count } = expected;
            assertEquals([chain.readableBytes, chain.writableBytes], bytes);
            assertEquals([chain.id, chain.ringDescriptors], [id, count]);
            for (const part of [...chain.readable, ...chain.writable]) {
              assert(part.byteOffset + part.length <= MEMORY_BYTES);
            }
            at += count;
            if (putBack) driver.ring.put(chain, 0); // not published: descriptors stay as they are
            else inFlight.add(id);
          } catch (error) {
            if (!(error instanceof RingError)) throw error;
            return assertEquals(error.rule, expected);
          }
          if (putBack) return;
        }

        /** The result by the standard: the content of a list, or the first rule that it breaks. */
        function model(
          entries: typeof list,
          first: number,
          inFlight: Set<number>,
        ): { bytes: [number, number]; id: number; count: number } | RingRule {
          let last = first;
          while (entries[last].flags & NEXT) {
            if (last - first + 1 === SIZE) return "chain-length";
            // After the last descriptor comes the first, available in another round.
            if (last + 1 === SIZE || !entries[last + 1].isAvailable) return "list-available";
            last++;
          }
          const { id } = entries[last];
          const count = last - first + 1;
          if (id >= SIZE) return "descriptor-index";
          if (inFlight.has(id)) return "head-in-flight";
          let [readable, writable, writing] = [0, 0, false];
          for (const { flags, ...entry } of entries.slice(first, last + 1)) {
            const isIndirect = (flags & INDIRECT) !== 0;
            if (isIndirect && count > 1) return "indirect-next";
            for (
              const { gpa, bytes, write } of isIndirect
                ? table.map((inner) => ({ ...inner, write: (inner.flags & WRITE) !== 0 }))
                : [{ ...entry, write: (flags & WRITE) !== 0 }]
            ) {
              if (!write && writing) return "writable-before-readable";
              if (readable + writable + bytes > 2 ** 32) return "chain-bytes";
              if (BigInt(gpa) + BigInt(bytes) > BigInt(MEMORY_BYTES)) return "buffer-address";
              if (write) [writable, writing] = [writable + bytes, true];
              else readable += bytes;
            }
          }
          return { bytes: [readable, writable], id, count };
        }
      },
    ),
    { numRuns: 3000 },
  );
});
