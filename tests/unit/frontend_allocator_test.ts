import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { Allocator } from "../../src/frontend/allocator.ts";

Deno.test("Allocator.alloc() aligns addresses and uses the gaps before them", () => {
  const allocator = new Allocator(0x1001, 0x1000);
  assertEquals(allocator.alloc(16, 256), 0x1100);
  assertEquals(allocator.alloc(0xff, 1), 0x1001);
  assertEquals(allocator.alloc(1, 1), 0x1110);
});

Deno.test("Allocator.alloc() returns undefined when nothing fits", () => {
  const allocator = new Allocator(0, 64);
  assertStrictEquals(allocator.alloc(65), undefined);
  assertStrictEquals(allocator.alloc(64), 0);
  assertStrictEquals(allocator.alloc(1), undefined);
});

Deno.test("Allocator.free() throws when nothing was allocated there", () => {
  const allocator = new Allocator(0, 64);
  const at = allocator.alloc(16)!;
  assertThrows(() => allocator.free(at + 1), RangeError);
  allocator.free(at);
  assertThrows(() => allocator.free(at), RangeError);
});

Deno.test("Allocator returns parts that never overlap, and merges them when all are freed", () => {
  const step = fc.record({
    bytes: fc.integer({ min: 1, max: 200 }),
    align: fc.constantFrom(1, 2, 16, 64),
    free: fc.nat(),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
    const allocator = new Allocator(8, 1000);
    const parts: { at: number; bytes: number }[] = [];
    for (const { bytes, align, free } of steps) {
      const at = allocator.alloc(bytes, align);
      if (at === undefined) {
        if (parts.length > 0) allocator.free(parts.splice(free % parts.length, 1)[0].at);
        continue;
      }
      assert(at % align === 0 && at >= 8 && at + bytes <= 1008);
      assert(parts.every((part) => at + bytes <= part.at || part.at + part.bytes <= at));
      parts.push({ at, bytes });
    }
    for (const { at } of parts) allocator.free(at);
    assertEquals(allocator.size, 0);
    assertEquals(allocator.alloc(1000, 1), 8);
  }));
});
