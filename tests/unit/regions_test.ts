import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { RegionTable } from "../../src/memory/regions.ts";

/** What `place()` makes of an address: as `translate()`. */
function place(table: RegionTable, gpa: number, bytes: number): number {
  const into = Float64Array.of(0, 0);
  const isPlaced = table.place(Uint32Array.of(7, gpa, gpa / 2 ** 32), 1, bytes, into, 1);
  return isPlaced ? into[1] : -1;
}

Deno.test("RegionTable.translate() and place() agree with a search through all regions", () => {
  const gaps = fc.array(
    fc.record({ gap: fc.nat(64), bytes: fc.integer({ min: 1, max: 64 }), shift: fc.nat(1000) }),
    { maxLength: 8 },
  );
  fc.assert(
    fc.property(
      gaps,
      fc.array(fc.tuple(fc.nat(1200), fc.nat(80)), { minLength: 1 }),
      (layout, queries) => {
        let at = 0;
        const regions = layout.map(({ gap, bytes, shift }) => {
          const guestAddress = at + gap;
          at = guestAddress + bytes;
          return {
            guestAddress,
            bytes,
            userAddress: guestAddress + 0x10_0000,
            index: guestAddress + shift,
          };
        });
        const table = new RegionTable(regions.toReversed());
        for (const [gpa, bytes] of queries) {
          const region = regions.find((one) =>
            gpa >= one.guestAddress && gpa < one.guestAddress + one.bytes
          );
          const fits = region !== undefined && gpa + bytes <= region.guestAddress + region.bytes;
          const expected = fits ? gpa - region.guestAddress + region.index : -1;
          assertEquals(place(table, gpa, bytes), expected);
          assertEquals(table.translate(gpa, bytes), expected);
          if (bytes > 0) assertEquals(table.translateUser(gpa + 0x10_0000, bytes), expected);
          assertEquals(
            table.contiguous(gpa),
            region === undefined ? 0 : region.guestAddress + region.bytes - gpa,
          );
        }
      },
    ),
  );
});

Deno.test("RegionTable.place() takes addresses of 64 bits", () => {
  const region = { guestAddress: 2 ** 46, bytes: 0x1000, userAddress: 0, index: 0x3000 };
  const table = new RegionTable([region]);
  assertEquals(place(table, 2 ** 46 + 1, 0xfff), 0x3001);
  assertEquals(place(table, 2 ** 46 + 1, 0x1000), -1);
  assertEquals(place(table, 2 ** 63, 1), -1);
});

Deno.test("RegionTable without regions has no addresses", () => {
  const table = new RegionTable();
  assertEquals([table.translate(0, 1), table.translateUser(0, 1), table.contiguous(0)], [
    -1,
    -1,
    0,
  ]);
});

Deno.test("RegionTable.translate() refuses zero bytes beyond a region, whatever was found before", () => {
  const table = new RegionTable([
    { guestAddress: 0x1000, bytes: 0x10, userAddress: 0, index: 0x1000 },
  ]);
  assertEquals(table.translate(0x1010, 0), -1);
  assertEquals(table.translate(0x100f, 1), 0x100f);
  assertEquals(table.translate(0x1010, 0), -1);
  assertEquals(place(table, 0x1010, 0), -1);
});
