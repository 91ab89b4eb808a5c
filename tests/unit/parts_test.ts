import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { Parts } from "../../src/virtqueue/mod.ts";

/** Parts over memory that hold the given bytes, divided as given, apart from each other. */
function divide(bytes: number[], lengths: number[]): Parts {
  const memory = new Uint8Array(bytes.length + lengths.length * 3 + 3);
  const parts = new Parts(memory);
  let at = 1, from = 0;
  for (const wanted of [...lengths, bytes.length]) {
    const length = Math.min(wanted, bytes.length - from);
    memory.set(bytes.slice(from, from + length), at);
    parts.push(at, length);
    at += length + 3;
    from += length;
    if (at > memory.length - 3) break;
  }
  return parts;
}

const division = fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 12 });
const content = fc.array(fc.integer({ min: 0, max: 255 }), { minLength: 8, maxLength: 32 });

Deno.test("Parts reads numbers wherever the parts divide them", () => {
  fc.assert(fc.property(content, division, fc.nat(24), (bytes, lengths, offset) => {
    const parts = divide(bytes, lengths);
    fc.pre(parts.byteLength === bytes.length && offset + 8 <= bytes.length);
    const view = new DataView(Uint8Array.from(bytes).buffer);
    assertEquals(parts.u8(offset), view.getUint8(offset));
    assertEquals(parts.u16(offset), view.getUint16(offset, true));
    assertEquals(parts.u32(offset), view.getUint32(offset, true));
    assertEquals(parts.u64(offset), Number(view.getBigUint64(offset, true)));
  }));
});

Deno.test("Parts.read() and write() copy any range", () => {
  fc.assert(
    fc.property(content, division, fc.nat(32), fc.nat(32), (bytes, lengths, offset, count) => {
      const parts = divide(bytes, lengths);
      fc.pre(parts.byteLength === bytes.length);
      const into = new Uint8Array(count);
      const expected = bytes.slice(offset, offset + count);
      assertEquals(parts.read(offset, into), expected.length);
      assertEquals([...into.subarray(0, expected.length)], expected);
      const source = Uint8Array.from({ length: count }, (_, i) => i ^ 0xa5);
      assertEquals(parts.write(offset, source), expected.length);
      const all = new Uint8Array(bytes.length);
      parts.read(0, all);
      assertEquals(
        [...all],
        [
          ...bytes.slice(0, offset),
          ...source.subarray(0, expected.length),
          ...bytes.slice(offset + count),
        ].slice(0, bytes.length),
      );
    }),
  );
});

Deno.test("Parts.dropFirst() and dropLast() leave what is between", () => {
  fc.assert(
    fc.property(content, division, fc.nat(16), fc.nat(16), (bytes, lengths, first, last) => {
      const parts = divide(bytes, lengths);
      fc.pre(parts.byteLength === bytes.length && first + last <= bytes.length);
      parts.dropFirst(first);
      parts.dropLast(last);
      assertEquals(parts.byteLength, bytes.length - first - last);
      assertEquals(
        [...parts].flatMap((part) => [...part]),
        bytes.slice(first, bytes.length - last),
      );
    }),
  );
});

Deno.test("Parts throws a RangeError for what is behind the end", () => {
  const parts = divide([1, 2, 3], [1, 1]);
  assertThrows(() => parts.u8(3), RangeError);
  assertThrows(() => parts.u16(2), RangeError);
  assertThrows(() => parts.u32(0), RangeError);
  assertThrows(() => parts.dropFirst(4), RangeError);
  assertThrows(() => parts.setU8(3, 0), RangeError);
  assertEquals(parts.locate(3), -1);
});

Deno.test("Parts.fill() writes every byte of every part and no other", () => {
  const memory = new Uint8Array(16);
  const parts = new Parts(memory);
  parts.push(1, 3);
  parts.push(8, 2);
  parts.fill(7);
  assertEquals([...memory], [0, 7, 7, 7, 0, 0, 0, 0, 7, 7, 0, 0, 0, 0, 0, 0]);
});
