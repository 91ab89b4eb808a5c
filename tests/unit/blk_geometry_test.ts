/** The geometry that old drivers are told. */
import { assertEquals } from "@std/assert";
import { guessGeometry } from "../../backends/blk/geometry.ts";

const MIB = 2048; // in sectors

/** A master boot record whose partition ends at a head and sector. */
function record(endHead: number, endSector: number, { entry = 0, sectors = 100 } = {}): Uint8Array {
  const bytes = new Uint8Array(512);
  bytes.set([0x55, 0xaa], 510);
  bytes.set([endHead, endSector], 446 + 16 * entry + 5);
  new DataView(bytes.buffer).setUint32(446 + 16 * entry + 12, sectors, true);
  return bytes;
}

Deno.test("guessGeometry() has 16 heads and 63 sectors for any size", () => {
  const common = { heads: 16, sectors: 63 };
  assertEquals(guessGeometry(1, 1), { cylinders: 2, ...common });
  assertEquals(guessGeometry(64 * MIB, 1), { cylinders: 130, ...common });
  assertEquals(guessGeometry(2 ** 40, 1), { cylinders: 16_383, ...common });
});

Deno.test("guessGeometry() takes the partition table's geometry where that is one of a disk", () => {
  const sectors = 64 * MIB;
  const guess = (first: Uint8Array) => guessGeometry(sectors, 1, first);
  assertEquals(guess(record(7, 32)), { cylinders: 512, heads: 8, sectors: 32 });
  // The upper bits are the cylinder's
  assertEquals(guess(record(7, 0xc0 | 32, { entry: 3 }))?.heads, 8);
  const common = guessGeometry(sectors, 1);
  assertEquals(guess(record(254, 63)), common); // translated
  assertEquals(guess(record(0, 63)), common);
  assertEquals(guess(record(7, 0)), common);
  assertEquals(guess(record(7, 32, { sectors: 0 })), common);
  assertEquals(guess(record(7, 32).fill(0, 510)), common);
  assertEquals(guess(new Uint8Array(3)), common);
  // More cylinders than a disk has
  assertEquals(guess(record(1, 1)), common);
});

Deno.test("guessGeometry() has whole blocks in a track, or none", () => {
  assertEquals(guessGeometry(64 * MIB, 8)?.sectors, 56);
  assertEquals(guessGeometry(64 * MIB, 128), undefined);
});
