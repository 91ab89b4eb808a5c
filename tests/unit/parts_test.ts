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

Deno.test("Parts reads numbers however the parts divide them", () => {
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

Deno.test("Parts.contiguous() has the bytes from an offset on, in place where one part has them", () => {
  fc.assert(fc.property(content, division, fc.nat(40), (bytes, lengths, offset) => {
    const parts = divide(bytes, lengths);
    fc.pre(parts.byteLength === bytes.length);
    const found = parts.contiguous(offset);
    assertEquals([...found], bytes.slice(offset));
    if (offset >= bytes.length) return;
    const isInPlace = parts.locate(offset, bytes.length - offset) >= 0;
    parts.setU8(offset, ~bytes[offset]);
    assertEquals(found[0] !== bytes[offset], isInPlace);
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

Deno.test("Parts writes numbers however the parts divide them, and nothing else", () => {
  fc.assert(
    fc.property(content, division, fc.nat(24), fc.nat(2 ** 53 - 1), (bytes, lengths, at, value) => {
      const parts = divide(bytes, lengths);
      fc.pre(parts.byteLength === bytes.length && at + 8 <= bytes.length);
      const view = new DataView(Uint8Array.from(bytes).buffer);
      const expectSame = () => {
        const all = new Uint8Array(bytes.length);
        parts.read(0, all);
        assertEquals([...all], [...new Uint8Array(view.buffer)]);
      };
      parts.setU64(at, value);
      view.setBigUint64(at, BigInt(value), true);
      expectSame();
      parts.setU32(at, value + 1);
      view.setUint32(at, value + 1, true);
      expectSame();
      parts.setU16(at, value + 2);
      view.setUint16(at, value + 2, true);
      expectSame();
      parts.setU8(at, value + 3);
      view.setUint8(at, value + 3);
      expectSame();
    }),
  );
});

Deno.test("Parts.gather(), fill() and isAligned() stay within their range", () => {
  fc.assert(
    fc.property(content, division, fc.nat(32), fc.nat(32), (bytes, lengths, offset, count) => {
      const parts = divide(bytes, lengths);
      fc.pre(parts.byteLength === bytes.length);
      const places: number[] = [];
      const pieces: number[] = [];
      const sink = {
        push(address: number, length: number) {
          places.push(...Array.from({ length }, (_, i) => address + i));
          pieces.push(address - 1000, length);
          return true;
        },
      };
      const wanted = bytes.map((_, i) => parts.locate(i)).slice(offset, offset + count);
      assertEquals(parts.gather(sink, 1000, offset, count), wanted.length);
      assertEquals(places, wanted.map((at) => at + 1000));
      assertEquals(
        parts.isAligned(2, offset, count),
        pieces.every((number) => number % 2 === 0),
      );
      parts.fill(0x5a, offset, count);
      const all = new Uint8Array(bytes.length);
      parts.read(0, all);
      assertEquals([...all], bytes.map((b, i) => i >= offset && i < offset + count ? 0x5a : b));
    }),
  );
});

Deno.test("Parts.gather() ends when the iovec is full", () => {
  const parts = divide([1, 2, 3, 4, 5, 6], [2, 2]);
  const listed: number[] = [];
  const sink = { push: (_: number, bytes: number) => listed.length < 2 && listed.push(bytes) > 0 };
  assertEquals(parts.gather(sink, 0, 1), 3);
  assertEquals(listed, [1, 2]);
});

Deno.test("Parts.locate() finds contiguous bytes", () => {
  const parts = divide([1, 2, 3, 4], [3]);
  const first = parts.index(0);
  assertEquals([parts.locate(0, 3), parts.locate(2)], [first, first + 2]);
  assertEquals([parts.locate(2, 2), parts.locate(0, 4), parts.locate(4), parts.locate(-1)], [
    -1,
    -1,
    -1,
    -1,
  ]);
});

Deno.test("Parts.text() ends at a NUL, the limit or the end", () => {
  const parts = divide([...new TextEncoder().encode("añb\0cd")], [2, 3]);
  assertEquals([parts.text(0, 100), parts.text(1, 2), parts.text(5, 9), parts.text(5, 1)], [
    "añb",
    "ñ",
    "cd",
    "c",
  ]);
  assertEquals([parts.text(7, 4), parts.text(99, 4)], ["", ""]);
});

Deno.test("Parts throws a RangeError beyond the end, and writes nothing", () => {
  const parts = divide([1, 2, 3], [1, 1]);
  assertThrows(() => parts.u8(3), RangeError);
  assertThrows(() => parts.u16(2), RangeError);
  assertThrows(() => parts.u32(0), RangeError);
  assertThrows(() => parts.setU8(3, 0), RangeError);
  assertThrows(() => parts.setU16(2, 0), RangeError);
  assertThrows(() => parts.setU32(0, 0), RangeError);
  assertThrows(() => parts.setU64(0, 0), RangeError);
  assertThrows(() => parts.read(-1, new Uint8Array(1)), RangeError);
  assertEquals([0, 1, 2].map((at) => parts.u8(at)), [1, 2, 3]);
});

Deno.test("Parts.fill() writes every byte of every part and no other", () => {
  const memory = new Uint8Array(16);
  const parts = new Parts(memory);
  parts.push(1, 3);
  parts.push(8, 2);
  parts.fill(7);
  assertEquals([...memory], [0, 7, 7, 7, 0, 0, 0, 0, 7, 7, 0, 0, 0, 0, 0, 0]);
});
