import { assert, assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { ConfigAccessError } from "../../src/virtio/config/error.ts";
import { array, bytes, struct, u16, u64, u8 } from "../../src/virtio/config/fields.ts";
import { packed } from "../../src/virtio/config/layout.ts";
import { ConfigSpace } from "../../src/virtio/config/space.ts";
import { observation } from "./lib/sample_record.ts";

const layout = packed({
  capacity: u64("Capacity"),
  geometry: struct({ cylinders: u16("Cylinders"), heads: u8("Heads") }, "Geometry", {
    feature: "GEOMETRY",
  }),
  writeback: u8("Write-back", { feature: "CONFIG_WCE", access: "rw" }),
  limit: u16("Limit", { access: "rw" }),
  tail: u8("Tail"),
});

function space() {
  let time = 1000;
  const space = new ConfigSpace(layout, undefined, { now: () => time++ });
  layout.assign(space.view, {
    capacity: 0x0807060504030201n,
    geometry: { cylinders: 0x0a09, heads: 11 },
    writeback: 12,
    limit: 0x0e0d,
    tail: 15,
  });
  return space;
}

function observed(from: ReturnType<typeof space>, name: string) {
  const found = from.observations.find((entry) => entry.name === name);
  assert(found);
  return found;
}

Deno.test("ConfigSpace lives in shared memory of the layout's size by default", () => {
  const { bytes, view } = new ConfigSpace(layout);
  assert(bytes.buffer instanceof SharedArrayBuffer);
  assertEquals(bytes.length, 15);
  view.tail = 3;
  assertEquals(bytes[14], 3);
});

Deno.test("ConfigSpace uses the start of a buffer that is given", () => {
  const buffer = new ArrayBuffer(20);
  const space = new ConfigSpace(layout, buffer);
  space.view.capacity = 1n;
  assertEquals(new Uint8Array(buffer)[0], 1);
  assertEquals(space.bytes.length, 15);
  assertThrows(() => new ConfigSpace(layout, new ArrayBuffer(14)), RangeError);
});

Deno.test("ConfigSpace.read() gives the bytes for every offset and size inside, and refuses the rest", () => {
  const from = space();
  const size = from.bytes.length;
  for (let offset = 0; offset <= size + 2; offset++) {
    for (let length = 0; length <= size + 2; length++) {
      if (offset + length <= size) {
        const expected = Array.from({ length }, (_, i) => offset + i + 1);
        assertEquals([...from.read(offset, length)], expected);
      } else {
        assertThrows(() => from.read(offset, length), ConfigAccessError, "outside its 15 bytes");
      }
    }
  }
});

for (const [offset, size] of [[-1, 1], [0, -1], [0.5, 1], [0, 1.5], [NaN, 1], [0, Infinity]]) {
  Deno.test(`ConfigSpace.read() refuses when asked for ${size} bytes at ${offset}`, () => {
    assertThrows(() => space().read(offset, size), ConfigAccessError, "outside");
  });
}

Deno.test("ConfigSpace.read() gives a copy", () => {
  const from = space();
  from.read(0, 4).fill(0xff);
  assertEquals(from.bytes[0], 1);
});

Deno.test("ConfigSpace.write() applies exactly the writable bytes for every offset and size", () => {
  const isWritable = (at: number) => at >= 11 && at < 14;
  for (let offset = 0; offset <= 17; offset++) {
    for (let length = 0; length <= 17; length++) {
      const to = space();
      const before = [...to.bytes];
      const data = new Uint8Array(length).fill(0xee);
      const covered = Array.from({ length }, (_, i) => offset + i);
      if (offset + length > 15) {
        assertThrows(() => to.write(offset, data), ConfigAccessError, "outside");
        assertEquals([...to.bytes], before);
      } else if (length > 0 && !covered.some(isWritable)) {
        assertThrows(() => to.write(offset, data), ConfigAccessError, "it is read-only");
        assertEquals([...to.bytes], before);
      } else {
        to.write(offset, data);
        const expected = before.map((byte, at) =>
          covered.includes(at) && isWritable(at) ? 0xee : byte
        );
        assertEquals([...to.bytes], expected);
      }
    }
  }
});

Deno.test("ConfigSpace.write() reports the changed fields, before and after", () => {
  const to = space();
  const whole = to.read(0, 15);
  whole[0] = 0x77; // a stale capacity
  whole[11] = 1;
  whole[13] = 0;
  const write = to.write(0, whole);
  assertEquals(write, {
    fields: [
      {
        name: "writeback",
        part: "value",
        offset: 11,
        before: Uint8Array.of(12),
        after: Uint8Array.of(1),
      },
      {
        name: "limit",
        part: "value",
        offset: 12,
        before: Uint8Array.of(0x0d, 0x0e),
        after: Uint8Array.of(0x0d, 0),
      },
    ],
    ignored: ["capacity"],
    migration: false,
    reset: false,
  });
});

Deno.test("ConfigSpace.write() accepts read-only bytes that change nothing", () => {
  const to = space();
  const { fields, ignored } = to.write(8, Uint8Array.of(9, 10, 11));
  assertEquals([fields, ignored], [[], []]);
  assertEquals(observed(to, "geometry.heads").writes, 0);
});

Deno.test("ConfigSpace.write() names the field when it refuses", () => {
  const to = space();
  const error = assertThrows(() => to.write(9, Uint8Array.of(10, 12)), ConfigAccessError);
  assertEquals(
    error.message,
    "Cannot write config field geometry.heads (offset 10): it is read-only",
  );
  assertEquals([error.name, error.field], ["ConfigAccessError", "geometry.heads"]);
  assertInstanceOf(error, RangeError);
  assertEquals(observed(to, "geometry.heads").refused, 1);
  assertEquals(observed(to, "geometry.cylinders").refused, 0);
});

Deno.test("ConfigSpace.write() changes nothing when the check refuses", () => {
  const to = space();
  const before = [...to.bytes];
  let seen: string[] = [];
  assertThrows(
    () =>
      to.write(11, Uint8Array.of(7, 7, 7), {
        check({ fields }) {
          seen = fields.map(({ name }) => name);
          assertEquals([...to.bytes], before);
          throw new TypeError("No");
        },
      }),
    TypeError,
    "No",
  );
  assertEquals(seen, ["writeback", "limit"]);
  assertEquals([...to.bytes], before);
  assertEquals([observed(to, "limit").writes, observed(to, "limit").refused], [0, 1]);
});

Deno.test("ConfigSpace.write() keeps the device's changes during the check", () => {
  const to = space();
  to.write(11, Uint8Array.of(7), { check: () => to.view.capacity = 99n });
  assertEquals([to.view.writeback, to.view.capacity], [7, 99n]);
});

Deno.test("ConfigSpace.write() applies everything when it is a migration", () => {
  const to = space();
  const data = new Uint8Array(15).fill(0x44);
  const { fields, migration } = to.write(0, data, { migration: true });
  assertEquals([...to.bytes], [...data]);
  assertEquals(migration, true);
  assertEquals(fields.map(({ name }) => name), layout.fields.map(({ name }) => name));
  assertEquals(observed(to, "writeback").writes, 0);
  assertThrows(() => to.write(1, data, { migration: true }), ConfigAccessError, "outside");
});

Deno.test("ConfigSpace.write() accepts QEMU's stale writes to an input device", () => {
  const to = new ConfigSpace(packed({
    select: u8("Which", { access: "rw" }),
    subsel: u8("Which of these", { access: "rw" }),
    size: u8("Bytes of the answer"),
    reserved: bytes(5, "Reserved"),
    u: bytes(128, "The answer"),
  }));
  const cached = to.read(0, 136);
  to.view.u = new TextEncoder().encode("a name");
  to.view.size = 6;
  cached[0] = 1; // VIRTIO_INPUT_CFG_ID_NAME: the rest of the copy is stale
  const { fields } = to.write(0, cached);
  assertEquals(fields.map(({ name }) => name), ["select"]);
  assertEquals([to.view.select, to.view.size, to.view.u[0]], [1, 6, 0x61]);
});

Deno.test("ConfigSpace.reset() restores writable fields", () => {
  const to = space();
  to.write(11, Uint8Array.of(1));
  to.write(11, Uint8Array.of(2));
  to.view.capacity = 5n;
  to.reset();
  assertEquals([to.view.writeback, to.view.limit, to.view.capacity], [12, 0x0e0d, 5n]);
  to.view.writeback = 3; // the device's own change is the next start
  to.write(11, Uint8Array.of(4));
  to.reset();
  assertEquals(to.view.writeback, 3);
});

Deno.test("ConfigSpace.observations counts one access per field that it covers", () => {
  const to = space();
  to.read(7, 2); // the last byte of capacity, the first of geometry.cylinders
  to.read(0, 15);
  to.read(3, 0);
  to.write(11, Uint8Array.of(12, 1));
  assertEquals(
    observed(to, "capacity"),
    observation("capacity", { reads: 2, firstRead: 1000, lastRead: 1001 }),
  );
  const writeback = observed(to, "writeback");
  assertEquals([writeback.feature, writeback.reads, writeback.writes, writeback.changes], [
    "CONFIG_WCE",
    1,
    1,
    0,
  ]);
  const limit = observed(to, "limit");
  assertEquals([limit.writes, limit.changes, limit.firstWrite], [1, 1, 1003]);
});

Deno.test("ConfigSpace accepts a layout without fields", () => {
  const rng = new ConfigSpace(packed({}));
  assertEquals(rng.read(0, 0).length, 0);
  assertEquals(rng.write(0, new Uint8Array()).fields, []);
  assertThrows(() => rng.read(0, 1), ConfigAccessError, "outside its 0 bytes");
  rng.reset();
});

Deno.test("ConfigSpace behaves as a byte-by-byte model does when accesses are random", () => {
  const field = fc.record({
    access: fc.constantFrom<"ro" | "rw">("ro", "rw"),
    count: fc.integer({ min: 1, max: 5 }),
  });
  const step = fc.record({
    offset: fc.nat(25),
    data: fc.uint8Array({ maxLength: 20 }),
    kind: fc.constantFrom("write", "write", "write", "migration", "reset"),
  });
  fc.assert(fc.property(
    fc.array(field, { minLength: 1, maxLength: 5 }),
    fc.array(step, { maxLength: 15 }),
    (fields, steps) => {
      const layout = packed(Object.fromEntries(fields.map(({ access, count }, i) => [
        `f${i}`,
        array(u8(""), count, "", { access }),
      ])));
      const writable = fields.flatMap(({ access, count }) =>
        new Array<boolean>(count).fill(access === "rw")
      );
      const to = new ConfigSpace(layout);
      const model = new Uint8Array(layout.size);
      for (const { offset, data, kind } of steps) {
        if (kind === "reset") {
          to.reset();
          // Nothing but the driver and migrations wrote here
          writable.forEach((rw, at) => rw && (model[at] = 0));
        } else {
          const migration = kind === "migration";
          const covered = Array.from(data, (_, i) => offset + i);
          const isInside = offset + data.length <= layout.size;
          const isAllowed = isInside && (migration || covered.some((at) => writable[at]) ||
            data.every((byte, i) => byte === model[offset + i]));
          if (isAllowed) {
            to.write(offset, data, { migration });
            covered.forEach((at, i) => (migration || writable[at]) && (model[at] = data[i]));
          } else {
            assertThrows(() => to.write(offset, data, { migration }), ConfigAccessError);
          }
        }
        assertEquals([...to.bytes], [...model]);
      }
    },
  ));
});
