import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  type Chain,
  needsEvent,
  RingError,
  type RingRule,
  SplitRing,
} from "../../src/virtqueue/mod.ts";
import {
  assertBreaks,
  BUFFERS,
  INDIRECT,
  MEMORY_BYTES,
  NEXT,
  places,
  RingDriver,
  WRITE,
} from "./lib/ring_driver.ts";

Deno.test("SplitRing.take() returns null when nothing is available", () => {
  assertStrictEquals(new RingDriver(8).ring.take(), null);
});

Deno.test("SplitRing.take() follows a table chain into an indirect table", () => {
  // virtio 1.3, 2.7.5.3.2: direct descriptors may come before the indirect one.
  const driver = new RingDriver(8);
  const table = BUFFERS + 0x1001; // a table needs no alignment
  driver.describe(0, { gpa: BUFFERS, bytes: 16, flags: NEXT, next: 5 });
  driver.describe(5, { gpa: table, bytes: 48, flags: INDIRECT | WRITE });
  driver.describe(0, { gpa: BUFFERS + 16, bytes: 8, flags: NEXT, next: 2 }, table);
  driver.describe(2, { gpa: BUFFERS + 64, bytes: 32, flags: WRITE }, table);
  driver.offer(0);
  const chain = driver.ring.take()!;
  assertEquals(places(chain.readable), [[BUFFERS, 16], [BUFFERS + 16, 8]]);
  assertEquals(places(chain.writable), [[BUFFERS + 64, 32]]);
  assertEquals(chain.descriptors, 3);
});

Deno.test("SplitRing.take() accepts a zero-length buffer as a part without bytes", () => {
  const driver = new RingDriver(8);
  driver.offerChain([{ gpa: BUFFERS, bytes: 0 }, { gpa: BUFFERS, bytes: 4, flags: WRITE }]);
  const chain = driver.ring.take()!;
  assertEquals([chain.readableBytes, chain.writableBytes], [0, 4]);
});

// Broken rules.

Deno.test("SplitRing.take() refuses a head outside the table", () => {
  const driver = new RingDriver(8);
  driver.offer(8);
  assertBreaks(driver, "descriptor-index");
});

Deno.test("SplitRing.take() refuses an available index that is too far ahead", () => {
  const driver = new RingDriver(8);
  driver.availableIndex = 9;
  assertBreaks(driver, "available-index");
});

Deno.test("SplitRing.take() refuses an available index that decreased", () => {
  const driver = new RingDriver(8, { base: 5 });
  driver.availableIndex = 4;
  assertBreaks(driver, "available-index");
});

Deno.test("SplitRing.take() refuses a next outside the table", () => {
  const driver = new RingDriver(8);
  driver.describe(0, { gpa: BUFFERS, bytes: 4, flags: NEXT, next: 8 });
  driver.offer(0);
  assertBreaks(driver, "descriptor-next");
});

Deno.test("SplitRing.take() refuses a loop", () => {
  const driver = new RingDriver(8);
  driver.describe(0, { gpa: BUFFERS, bytes: 4, flags: NEXT, next: 1 });
  driver.describe(1, { gpa: BUFFERS, bytes: 4, flags: NEXT, next: 0 });
  driver.offer(0);
  assertBreaks(driver, "chain-length");
});

Deno.test("SplitRing.take() refuses an indirect table with a loop", () => {
  const driver = new RingDriver(8);
  driver.describe(0, { gpa: BUFFERS + 0x1000, bytes: 16, flags: INDIRECT });
  driver.describe(0, { gpa: BUFFERS, bytes: 4, flags: NEXT, next: 0 }, BUFFERS + 0x1000);
  driver.offer(0);
  assertBreaks(driver, "chain-length");
});

Deno.test("SplitRing.take() refuses INDIRECT together with NEXT", () => {
  const driver = new RingDriver(8);
  driver.describe(0, { gpa: BUFFERS, bytes: 16, flags: INDIRECT | NEXT, next: 1 });
  driver.offer(0);
  assertBreaks(driver, "indirect-next");
});

Deno.test("SplitRing.take() refuses INDIRECT inside an indirect table", () => {
  const driver = new RingDriver(8);
  driver.describe(0, { gpa: BUFFERS, bytes: 16, flags: INDIRECT });
  driver.describe(0, { gpa: BUFFERS, bytes: 16, flags: INDIRECT }, BUFFERS);
  driver.offer(0);
  assertBreaks(driver, "indirect-nested");
});

Deno.test("SplitRing.take() refuses a next outside an indirect table", () => {
  const driver = new RingDriver(8);
  driver.describe(0, { gpa: BUFFERS, bytes: 32, flags: INDIRECT });
  driver.describe(0, { gpa: BUFFERS, bytes: 1, flags: NEXT, next: 2 }, BUFFERS);
  driver.offer(0);
  assertBreaks(driver, "descriptor-next");
});

Deno.test("SplitRing.take() refuses a head that is in flight", () => {
  const driver = new RingDriver(8);
  driver.offerChain([{ gpa: BUFFERS, bytes: 4 }]);
  driver.offer(0);
  driver.ring.take();
  assertBreaks(driver, "head-in-flight");
});

Deno.test("SplitRing refuses sizes that are no power of 2 up to 32768", () => {
  for (const size of [0, 3, 6, 32769, 65536]) {
    const error = assertThrows(() => new RingDriver(size), RingError);
    assertEquals(error.rule, "queue-size");
  }
});

Deno.test("SplitRing refuses unaligned areas", () => {
  for (
    const [descriptorIndex, availableIndex, usedIndex] of [
      [0x1008, 0x9000, 0xb000],
      [0x1000, 0x9001, 0xb000],
      [0x1000, 0x9000, 0xb002],
    ]
  ) {
    const error = assertThrows(
      () => new RingDriver(8, { descriptorIndex, availableIndex, usedIndex }),
      RingError,
    );
    assertEquals(error.rule, "ring-alignment");
  }
});

Deno.test("SplitRing reads each descriptor once, so a later change has no effect", () => {
  const driver = new RingDriver(8);
  driver.offerChain([{ gpa: BUFFERS, bytes: 4 }]);
  const chain = driver.ring.take()!;
  driver.describe(0, { gpa: MEMORY_BYTES, bytes: 0xffff_ffff });
  assertEquals([chain.readable.index(0), chain.readable.length(0)], [BUFFERS, 4]);
});

// Completion.

Deno.test("SplitRing.publish() makes completions visible at once and in order", () => {
  const driver = new RingDriver(8);
  for (const head of [3, 1, 5]) {
    driver.offerChain([{ gpa: BUFFERS, bytes: 64, flags: WRITE }], head);
  }
  const chains = [driver.ring.take()!, driver.ring.take()!, driver.ring.take()!];
  driver.ring.put(chains[2], 9);
  driver.ring.put(chains[0], 7);
  assertEquals(driver.usedIndex, 0);
  assertEquals(driver.ring.publish(), true);
  assertEquals(driver.usedIndex, 2);
  assertEquals([driver.used(0), driver.used(1)], [{ id: 5, bytes: 9 }, { id: 3, bytes: 7 }]);
  assertEquals(driver.ring.inFlight, 1);
  assertEquals(driver.ring.publish(), false);
});

Deno.test("SplitRing in order holds back completions until their predecessors are completed", () => {
  for (const base of [0, 65534]) {
    const driver = new RingDriver(4, { inOrder: true, base });
    for (const head of [3, 1, 0, 2]) driver.offerChain([{ gpa: BUFFERS, bytes: 1 }], head);
    const [first, second, third, fourth] = [0, 1, 2, 3].map(() => driver.ring.take()!);
    driver.ring.put(third, 7);
    driver.ring.put(second, 8);
    assertEquals([driver.ring.publish(), driver.ring.inFlight], [false, 2]);
    driver.ring.put(first, 9);
    assertEquals(driver.ring.publish(), true);
    assertEquals(driver.usedIndex, (base + 3) & 0xffff);
    assertEquals([0, 1, 2].map((i) => driver.used((base + i) & 0xffff)), [
      { id: 3, bytes: 9 },
      { id: 1, bytes: 8 },
      { id: 0, bytes: 7 },
    ]);
    driver.ring.put(fourth, 6);
    driver.ring.publish();
    assertEquals(driver.used((base + 3) & 0xffff), { id: 2, bytes: 6 });
  }
});

Deno.test("SplitRing.take() refuses a head whose completion is held back", () => {
  const driver = new RingDriver(8, { inOrder: true });
  for (const head of [0, 1, 1]) driver.offerChain([{ gpa: BUFFERS, bytes: 4 }], head);
  driver.ring.take();
  driver.ring.put(driver.ring.take()!, 0);
  assertBreaks(driver, "head-in-flight");
});

Deno.test("SplitRing in order completes nothing after an abandoned chain", () => {
  const driver = new RingDriver(8, { inOrder: true });
  for (const head of [0, 1, 2]) driver.offerChain([{ gpa: BUFFERS, bytes: 4 }], head);
  const [first, second, third] = [0, 1, 2].map(() => driver.ring.take()!);
  driver.ring.put(third, 0);
  driver.ring.abandon(second);
  driver.ring.put(first, 0);
  driver.ring.publish();
  assertEquals([driver.usedIndex, driver.ring.inFlight], [1, 0]);
});

Deno.test("SplitRing publishes completions in any order, or in order if negotiated, for random orders", () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.integer({ min: 0, max: 0xffff }),
      fc.array(fc.tuple(fc.nat(3), fc.nat()), { minLength: 1, maxLength: 100 }),
      (inOrder, base, steps) => {
        const driver = new RingDriver(8, { base, inOrder });
        const free = [0, 1, 2, 3, 4, 5, 6, 7];
        const taken: Chain[] = [];
        const expected: number[] = [];
        let tag = 0, seen = 0;
        const sizes = new Map<number, number>();
        const collect = () => {
          driver.ring.publish();
          for (; ((base + seen) & 0xffff) !== driver.usedIndex; seen++) {
            const { id, bytes } = driver.used((base + seen) & 0xffff);
            assertEquals([id, bytes], [expected[seen], sizes.get(id)!]);
            free.push(id);
          }
        };
        const put = (which: number) => {
          const [chain] = taken.splice(which % taken.length, 1);
          if (!inOrder) expected.push(chain.id);
          driver.ring.put(chain, chain.writableBytes);
        };
        for (const [count, which] of steps) {
          for (let i = 0; i < count && free.length > 0; i++) {
            const head = free.shift()!;
            sizes.set(head, ++tag);
            driver.offerChain([{ gpa: BUFFERS, bytes: tag, flags: WRITE }], head);
            if (inOrder) expected.push(head);
            taken.push(driver.ring.take()!);
          }
          if (taken.length > 0) put(which);
          collect();
        }
        while (taken.length > 0) put(0);
        collect();
        assertEquals([seen, driver.ring.inFlight, free.length], [tag, 0, 8]);
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("SplitRing.publish() respects VIRTQ_AVAIL_F_NO_INTERRUPT", () => {
  const driver = new RingDriver(8);
  for (const wanted of [true, false, true]) {
    driver.availableFlags = wanted ? 0 : 1;
    driver.offerChain([{ gpa: BUFFERS, bytes: 1 }]);
    driver.ring.put(driver.ring.take()!, 0);
    assertEquals(driver.ring.publish(), wanted);
  }
});

Deno.test("SplitRing.disarm() and arm() set VIRTQ_USED_F_NO_NOTIFY", () => {
  const driver = new RingDriver(8);
  driver.ring.disarm();
  assertEquals(driver.usedFlags, 1);
  assertEquals(driver.ring.arm(), false);
  assertEquals(driver.usedFlags, 0);
  driver.offerChain([{ gpa: BUFFERS, bytes: 1 }]);
  assertEquals(driver.ring.arm(), true);
});

Deno.test("SplitRing.arm() asks for a notification of the next buffer", () => {
  const driver = new RingDriver(8, { eventIndex: true, base: 65535 });
  assertEquals(driver.ring.arm(), false);
  assertEquals(driver.availableEvent, 65535);
  driver.offerChain([{ gpa: BUFFERS, bytes: 1 }]);
  assertEquals(driver.ring.arm(), true);
  driver.ring.take();
  assertEquals(driver.ring.arm(), false);
  assertEquals(driver.availableEvent, 0);
});

Deno.test("needsEvent() agrees with its definition for every small distance around every wrap", () => {
  // virtio 1.3, 2.7.7.2: notify when used_event lies in [old, new).
  for (const old of [0, 1, 32767, 32768, 65530, 65535]) {
    for (let step = 0; step <= 16; step++) {
      for (let ahead = -20; ahead <= 20; ahead++) {
        const next = (old + step) & 0xffff, event = (old + ahead) & 0xffff;
        assertEquals(
          needsEvent(event, next, old),
          ahead >= 0 && ahead < step,
          `${event} ${next} ${old}`,
        );
      }
    }
  }
});

Deno.test("SplitRing.publish() respects used_event", () => {
  const driver = new RingDriver(8, { eventIndex: true, base: 65534 });
  const complete = () => {
    driver.offerChain([{ gpa: BUFFERS, bytes: 1 }]);
    driver.ring.put(driver.ring.take()!, 0);
    return driver.ring.publish();
  };
  assertEquals(complete(), true); // the first time it cannot know what the driver saw
  driver.usedEvent = 1;
  assertEquals([complete(), complete(), complete(), complete()], [false, false, true, false]);
});

Deno.test("SplitRing keeps its position over 200,000 buffers, whatever the size and the base", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(1, 2, 8, 256),
      fc.integer({ min: 0, max: 0xffff }),
      fc.boolean(),
      fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 200 }),
      (size, base, eventIndex, batches) => {
        const driver = new RingDriver(size, { base, eventIndex });
        let done = 0;
        for (const wanted of batches) {
          const batch = Math.min(wanted, size);
          for (let i = 0; i < batch; i++) {
            driver.offerChain([{ gpa: BUFFERS, bytes: (done + i) % 1000, flags: WRITE }], i);
          }
          for (let i = 0; i < batch; i++) {
            const chain = driver.ring.take()!;
            assertEquals(chain.id, i);
            assertEquals(chain.writableBytes, (done + i) % 1000);
            driver.ring.put(chain, chain.writableBytes);
          }
          assertStrictEquals(driver.ring.take(), null);
          driver.ring.publish();
          for (let i = 0; i < batch; i++) {
            assertEquals(driver.used((base + done + i) & 0xffff), {
              id: i,
              bytes: (done + i) % 1000,
            });
          }
          done += batch;
          assertEquals(driver.usedIndex, (base + done) & 0xffff);
          assertEquals(driver.ring.base, (base + done) & 0xffff);
        }
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("SplitRing.take() returns the driver's chain, or names a rule, for random tables", () => {
  const descriptor = fc.record({
    gpa: fc.oneof(
      fc.integer({ min: 0, max: MEMORY_BYTES + 64 }),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    ),
    bytes: fc.oneof(fc.integer({ min: 0, max: 0x1000 }), fc.integer({ min: 0, max: 0xffff_ffff })),
    flags: fc.integer({ min: 0, max: 7 }),
    next: fc.integer({ min: 0, max: 10 }),
  });
  fc.assert(
    fc.property(
      fc.array(descriptor, { minLength: 8, maxLength: 8 }),
      fc.array(descriptor, { minLength: 4, maxLength: 4 }),
      fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 8 }),
      (table, indirect, heads) => {
        const driver = new RingDriver(8);
        const tableAt = BUFFERS + 0x2000;
        table.forEach((entry, i) =>
          driver.describe(i, entry.flags & INDIRECT ? { ...entry, gpa: tableAt, bytes: 64 } : entry)
        );
        indirect.forEach((entry, i) => driver.describe(i, entry, tableAt));
        for (const head of heads) driver.offer(head);
        for (const head of heads) {
          const expected = model(head, table, indirect);
          const fresh = !heads.slice(0, heads.indexOf(head)).includes(head) &&
            heads.indexOf(head) >= 0;
          try {
            const chain = driver.ring.take()!;
            assert(typeof expected !== "string", `took a chain that breaks ${expected}`);
            assertEquals([chain.readableBytes, chain.writableBytes], expected);
            for (const part of [...chain.readable, ...chain.writable]) {
              assert(part.byteOffset + part.length <= MEMORY_BYTES);
            }
          } catch (error) {
            if (!(error instanceof RingError)) throw error;
            if (error.rule === "head-in-flight") {
              return assert(heads.filter((other) => other === head).length > 1 || !fresh);
            }
            return assertEquals(error.rule, expected);
          }
        }
      },
    ),
    { numRuns: 3000 },
  );

  /** The result by the standard: a chain's bytes each way, or the first rule that it breaks. */
  function model(
    head: number,
    table: { gpa: number | bigint; bytes: number; flags: number; next: number }[],
    indirect: typeof table,
  ): [number, number] | RingRule {
    if (head >= 8) return "descriptor-index";
    let [readable, writable, count, writing] = [0, 0, 0, false];
    let [entries, at, inside] = [table, head, false];
    for (;;) {
      const { gpa, bytes, flags, next } = entries[at];
      if (flags & INDIRECT) {
        if (inside) return "indirect-nested";
        if (flags & NEXT) return "indirect-next";
        [entries, at, inside] = [indirect, 0, true];
        continue;
      }
      if (++count > (inside ? 1024 : 8)) return "chain-length";
      const write = (flags & WRITE) !== 0;
      if (!write && writing) return "writable-before-readable";
      if (readable + writable + bytes > 2 ** 32) return "chain-bytes";
      if (BigInt(gpa) + BigInt(bytes) > BigInt(MEMORY_BYTES)) return "buffer-address";
      if (write) [writable, writing] = [writable + bytes, true];
      else readable += bytes;
      if (!(flags & NEXT)) return [readable, writable];
      if (next >= entries.length) return "descriptor-next";
      at = next;
    }
  }
});

Deno.test("SplitRing resumes at any base", () => {
  const driver = new RingDriver(8, { base: 40_000 });
  driver.offerChain([{ gpa: BUFFERS, bytes: 1 }], 6);
  assertEquals(driver.ring.take()!.id, 6);
  assertEquals(driver.ring.base, 40_001);
  assert(driver.ring instanceof SplitRing);
});
