import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { ConfigAccessError } from "../../src/virtio/config/error.ts";
import { array, bytes, struct, text, u16, u32, u8 } from "../../src/virtio/config/fields.ts";
import {
  bitField,
  CONFIG_STATUS,
  CONFIG_TYPE_MAX,
  field,
  selfDescribing,
  statusField,
} from "../../src/virtio/config/self_describing.ts";
import { ConfigSpace } from "../../src/virtio/config/space.ts";
import { defineDevice } from "../../src/virtio/define_device.ts";

const layout = selfDescribing({
  status: statusField(1),
  capacity: field(2, u32("Capacity")),
  sensors: field(5, array(struct({ low: u8("Low"), high: u8("High") }, "Range"), 2, "Sensors")),
  features: bitField(3, { ALARM: 0, LOG: 2, FAR: 9 }, "What it can do"),
  mode: field(4, u8("Mode", { access: "rw" })),
});

// Where things are: [1 1 s] [2 4 c c c c] [5 4 l h l h] [3 4 o o a a] [4 1 m] [0]
const STATUS = 2, CAPACITY = 3, SENSORS = 9, FEATURES = 15, MODE = 21, END = 24;

function space() {
  let time = 1000;
  const space = new ConfigSpace(layout, undefined, { now: () => time++ });
  layout.assign(space.view, { capacity: 0x04030201, mode: 7 });
  return space;
}

function observed(from: ReturnType<typeof space>, name: string) {
  const found = from.observations.find((entry) => entry.name === name);
  assert(found);
  return found;
}

Deno.test("selfDescribing() lays out types, lengths and data, and an end", () => {
  assertEquals(layout.size, END + 1);
  // deno-fmt-ignore
  assertEquals([...space().bytes], [
    1, 1, 0,
    2, 4, 1, 2, 3, 4,
    5, 4, 0, 0, 0, 0,
    3, 4, 0b101, 0b10, 0, 0,
    4, 1, 7,
    0,
  ]);
});

Deno.test("selfDescribing() describes each field with its data and its mark", () => {
  assertEquals(
    layout.fields.map(({ name, offset, size, type, access, mark }) => [
      name,
      offset,
      size,
      type,
      access,
      mark?.type,
      mark?.offset,
    ]),
    [
      ["status", 2, 1, "status", "rw", 1, 0],
      ["capacity", 5, 4, "u32", "ro", 2, 3],
      ["sensors[0].low", 11, 1, "u8", "ro", 5, 9],
      ["sensors[0].high", 12, 1, "u8", "ro", 5, 9],
      ["sensors[1].low", 13, 1, "u8", "ro", 5, 9],
      ["sensors[1].high", 14, 1, "u8", "ro", 5, 9],
      ["features", 17, 4, "bits", "rw", 3, 15],
      ["mode", 23, 1, "u8", "rw", 4, 21],
    ],
  );
  assertEquals(layout.fields[6].bits, { ALARM: 0, LOG: 2, FAR: 9 });
});

Deno.test("selfDescribing().view() reads and sets data, bits and status", () => {
  const { view, bytes } = space();
  view.sensors[1].high = 9;
  assertEquals(bytes[14], 9);
  assertEquals(view.capacity, 0x04030201);
  assertEquals(view.features.offered("FAR"), true);
  view.features.offer("FAR", false);
  assertEquals([view.features.offered("FAR"), bytes[18]], [false, 0]);
  view.features.offer("FAR");
  assertEquals([view.features.acknowledged("FAR"), view.status], [false, 0]);
  // @ts-expect-error: the status is the driver's
  assertThrows(() => view.status = 1, TypeError);
  // @ts-expect-error: no such bit
  assertThrows(() => view.features.offered("NEAR"), TypeError, "has no bit NEAR");
});

Deno.test("selfDescribing().assign() offers exactly the named bits", () => {
  const { view } = space();
  layout.assign(view, { features: ["LOG"], sensors: [{ low: 1 }], mode: undefined });
  assertEquals(
    (["ALARM", "LOG", "FAR"] as const).map((bit) => view.features.offered(bit)),
    [false, true, false],
  );
  assertEquals([view.sensors[0].low, view.mode], [1, 7]);
});

Deno.test("selfDescribing().assign() refuses the status, unknown fields and unknown bits", () => {
  const { view } = space();
  // @ts-expect-error: the status is the driver's
  assertThrows(() => layout.assign(view, { status: 1 }), TypeError, "the status is the driver's");
  // @ts-expect-error: not declared
  assertThrows(() => layout.assign(view, { missing: 1 }), TypeError, "it is not declared");
  // @ts-expect-error: no such bit
  assertThrows(() => layout.assign(view, { features: ["NEAR"] }), TypeError, "no bit NEAR");
});

Deno.test("selfDescribing() accepts several fields of one type, and none at all", () => {
  const two = selfDescribing({ first: field(9, u8("")), second: field(9, u8("")) });
  assertEquals([...new ConfigSpace(two).bytes], [9, 1, 0, 9, 1, 0, 0]);
  assertEquals([...new ConfigSpace(selfDescribing({})).bytes], [0]);
});

Deno.test("selfDescribing() refuses a declaration that breaks a limit", () => {
  for (const type of [0, -1, CONFIG_TYPE_MAX + 1, 0x80, 1.5]) {
    assertThrows(() => field(type, u8("")), RangeError, "expected an integer from 1 to 126");
    assertThrows(() => bitField(type, {}), RangeError, "expected an integer from 1 to 126");
    assertThrows(() => statusField(type), RangeError, "expected an integer from 1 to 126");
  }
  assertEquals(field(CONFIG_TYPE_MAX, u8("")).type, 0x7e);
  assertThrows(() => field(1, bytes(256, "")), RangeError, "at most 255 fit");
  assertThrows(() => bitField(1, { A: -1 }), RangeError, "bit A as number -1");
  assertThrows(() => bitField(1, { A: 1016 }), RangeError, "from 0 to 1015");
  assertThrows(() => bitField(1, { A: 3, B: 3 }), RangeError, "bit B as number 3: that is A");
  assertEquals(bitField(1, { A: 1015 }).half, 127);
  assertThrows(
    () => selfDescribing({ a: statusField(1), b: statusField(2) }),
    RangeError,
    "b as a second status byte",
  );
  assertEquals(selfDescribing({ a: field(1, bytes(253, "")) }).size, 256);
  assertThrows(() => selfDescribing({ a: field(1, bytes(254, "")) }), RangeError, "of 257 bytes");
  assertThrows(() => selfDescribing({ "a.b": field(1, u8("")) }), TypeError, "an identifier");
});

Deno.test("ConfigSpace keeps the content of a buffer with a running self-describing space", () => {
  const first = space();
  first.write(CAPACITY, Uint8Array.of(0x82));
  first.view.mode = 9;
  const second = new ConfigSpace(layout, first.bytes.buffer);
  assertEquals([second.bytes[CAPACITY], second.view.mode], [0x82, 9]);
});

Deno.test("ConfigSpace keeps a self-describing space whose first field is marked", () => {
  const first = space();
  first.write(0, Uint8Array.of(0x81));
  assertEquals(new ConfigSpace(layout, first.bytes.buffer).bytes[0], 0x81);
});

Deno.test("ConfigSpace.write() takes the driver's mark", () => {
  const to = space();
  const { fields } = to.write(CAPACITY, Uint8Array.of(0x82));
  assertEquals(fields, [{
    name: "capacity",
    part: "mark",
    offset: CAPACITY,
    before: Uint8Array.of(0x02),
    after: Uint8Array.of(0x82),
  }]);
  const { used, firstUsed, lastUsed, writes } = observed(to, "capacity");
  assertEquals([used, firstUsed, lastUsed, writes], [true, 1000, 1000, 0]);
  assertEquals(observed(to, "mode").used, false);
});

Deno.test("ConfigSpace.write() marks every flat field of a nested one", () => {
  const to = space();
  to.write(SENSORS, Uint8Array.of(0x85));
  assertEquals(to.observations.filter(({ used }) => used).map(({ name }) => name), [
    "sensors[0].low",
    "sensors[0].high",
    "sensors[1].low",
    "sensors[1].high",
  ]);
});

Deno.test("ConfigSpace.write() takes acknowledgements of offered bits one by one", () => {
  const to = space();
  to.write(FEATURES + 4, Uint8Array.of(0b001));
  const { fields } = to.write(FEATURES + 4, Uint8Array.of(0b101));
  assertEquals(fields.map(({ name, part, before, after }) => [name, part, before[0], after[0]]), [
    ["features", "acknowledged", 0b001, 0b101],
  ]);
  const { acknowledged, left, writes, changes } = observed(to, "features");
  assertEquals([acknowledged, left, writes, changes], [["ALARM", "LOG"], ["FAR"], 2, 2]);
  assertEquals(to.view.features.acknowledged("LOG"), true);
  assertThrows(() => to.view.features.offer("LOG", false), RangeError, "has acknowledged it");
});

Deno.test("ConfigSpace.write() takes the status bit by bit", () => {
  const to = space();
  const { ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED } = CONFIG_STATUS;
  let status = 0;
  for (const bit of [ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED]) {
    status |= bit;
    to.write(STATUS, Uint8Array.of(status));
    assertEquals(to.view.status, status);
  }
  assertEquals(observed(to, "status").changes, 4);
});

Deno.test("ConfigSpace.write() applies the changes in the whole space that QEMU sends", () => {
  const to = space();
  const cached = to.read(0, layout.size);
  to.view.capacity = 99; // QEMU's copy is stale now
  cached[SENSORS] |= 0x80;
  cached[MODE + 2] = 1;
  const { fields, ignored } = to.write(0, cached);
  assertEquals(fields.map(({ name, part }) => `${name} ${part}`), [
    "sensors[0].low mark",
    "sensors[0].high mark",
    "sensors[1].low mark",
    "sensors[1].high mark",
    "mode value",
  ]);
  assertEquals(ignored, ["capacity"]);
  assertEquals(to.view.capacity, 99);
  assertEquals(observed(to, "capacity").writes, 0);
});

Deno.test("ConfigSpace.write() resets the space when the status becomes 0", () => {
  const to = space();
  to.write(STATUS, Uint8Array.of(1));
  to.write(CAPACITY, Uint8Array.of(0x82));
  to.write(FEATURES + 4, Uint8Array.of(1));
  to.write(MODE + 2, Uint8Array.of(3));
  const { reset, fields } = to.write(STATUS, Uint8Array.of(0));
  assertEquals(reset, true);
  assertEquals(fields.map(({ name, part }) => `${name} ${part}`), [
    "status status",
    "capacity mark",
    "features acknowledged",
    "mode value",
  ]);
  assertEquals([...to.bytes], [...space().bytes]);
  const { used, firstUsed } = observed(to, "capacity");
  assertEquals([used, firstUsed], [false, 1001]); // the record remembers
});

Deno.test("ConfigSpace.write() ignores the rest of a write that resets", () => {
  const to = space();
  to.write(STATUS, Uint8Array.of(1));
  const cached = to.read(0, layout.size);
  cached[STATUS] = 0;
  cached[MODE + 2] = 0x55;
  cached[CAPACITY] |= 0x80;
  assertEquals(to.write(0, cached).reset, true);
  assertEquals([...to.bytes], [...space().bytes]);
});

Deno.test("ConfigSpace.write() does not reset when a status of 0 stays 0", () => {
  const to = space();
  to.write(CAPACITY, Uint8Array.of(0x82));
  assertEquals(to.write(0, to.read(0, layout.size)).reset, false);
  assertEquals(to.bytes[CAPACITY], 0x82);
});

Deno.test("ConfigSpace.reset() clears marks, acknowledgements and status", () => {
  const to = space();
  to.write(STATUS, Uint8Array.of(7));
  to.write(FEATURES, Uint8Array.of(0x83));
  to.write(FEATURES + 4, Uint8Array.of(4));
  to.view.features.offer("FAR", false);
  to.reset();
  assertEquals([to.view.status, to.bytes[FEATURES], to.bytes[FEATURES + 4]], [0, 3, 0]);
  assertEquals(to.view.features.offered("FAR"), false);
});

const REFUSED: [string, number, number[], string][] = [
  ["takes back a mark", CAPACITY, [0x02], "capacity (offset 3): takes back mark bits 0x80"],
  ["alters a type", MODE, [0x85], "mode (offset 21): alters its type to 0x85"],
  ["makes a type 0", MODE, [0], "mode (offset 21): alters its type to 0x00"],
  ["alters a length", CAPACITY + 1, [5], "capacity (offset 4): its length is fixed"],
  ["alters the end", END, [1], "the end of config space (offset 24)"],
  ["alters read-only data", CAPACITY + 2, [0], "capacity (offset 5): it is read-only"],
  ["offers bits itself", FEATURES + 2, [0xff], "features (offset 17): it is read-only"],
  ["acknowledges what is not offered", FEATURES + 4, [0b111], "bits 0x02, which are not offered"],
  ["takes back an acknowledgement", FEATURES + 4, [0b100], "takes back acknowledgement bits 0x01"],
  ["sets an unknown status bit", STATUS, [0x09], "sets unknown status bits 0x08"],
  ["takes back a status bit", STATUS, [2], "status (offset 2): takes back status bits 0x01"],
];

for (const [what, offset, data, message] of REFUSED) {
  Deno.test(`ConfigSpace.write() refuses when the driver ${what}, and changes nothing`, () => {
    const to = space();
    to.write(CAPACITY, Uint8Array.of(0x82));
    to.write(FEATURES + 4, Uint8Array.of(1));
    to.write(STATUS, Uint8Array.of(1));
    const before = [...to.bytes];
    assertThrows(() => to.write(offset, Uint8Array.from(data)), ConfigAccessError, message);
    assertEquals([...to.bytes], before);
  });
}

Deno.test("ConfigSpace.write() refuses the whole write when one byte breaks a rule", () => {
  const to = space();
  const whole = to.read(0, layout.size);
  whole[MODE + 2] = 1;
  whole[FEATURES + 4] = 0b10;
  assertThrows(() => to.write(0, whole), ConfigAccessError, "features");
  assertEquals([...to.bytes], [...space().bytes]);
  assertEquals([observed(to, "features").refused, observed(to, "mode").refused], [1, 0]);
});

Deno.test("ConfigSpace.write() counts a refusal for every flat field of a nested one", () => {
  const to = space();
  assertThrows(() => to.write(SENSORS, Uint8Array.of(6)), ConfigAccessError);
  assertEquals(to.observations.filter(({ refused }) => refused === 1).length, 4);
});

Deno.test("ConfigSpace.write() takes a migrated space with marks, bits and data", () => {
  const from = space();
  from.write(STATUS, Uint8Array.of(7));
  from.write(CAPACITY, Uint8Array.of(0x82));
  from.write(FEATURES + 4, Uint8Array.of(5));
  from.view.features.offer("FAR", false);
  from.view.capacity = 5;
  const to = space();
  to.write(0, from.read(0, layout.size), { migration: true });
  assertEquals([...to.bytes], [...from.bytes]);
  assertEquals([observed(to, "capacity").used, observed(to, "capacity").firstUsed], [true, null]);
});

for (
  const [what, at, value] of [
    ["type", MODE, 5],
    ["length", MODE + 1, 2],
    ["end", END, 1],
  ] as const
) {
  Deno.test(`ConfigSpace.write() refuses a migrated space with another ${what}`, () => {
    const to = space();
    const other = to.read(0, layout.size);
    other[at] = value;
    assertThrows(() => to.write(0, other, { migration: true }), ConfigAccessError);
    assertEquals([...to.bytes], [...space().bytes]);
  });
}

Deno.test("ConfigSpace.write() refuses a migrated space that acknowledges what is not offered", () => {
  const to = space();
  const other = to.read(0, layout.size);
  other[FEATURES + 4] = 2;
  assertThrows(() => to.write(0, other, { migration: true }), ConfigAccessError, "not offered");
  assertEquals([...to.bytes], [...space().bytes]);
});

Deno.test("ConfigSpace keeps its structure and its rules when writes are random", () => {
  const named = selfDescribing({
    name: field(7, text(3, "Name")),
    limit: field(7, u16("Limit", { access: "rw" })),
    features: bitField(3, { A: 0, B: 1, C: 6 }),
    status: statusField(1),
  });
  const size = named.size;
  const blank = new ConfigSpace(named).bytes;
  const marks = [...new Set(named.fields.map(({ mark }) => mark!.offset))];
  const [acked, status] = [named.fields[2].offset + 1, named.fields[3].offset];
  // Changes of single bits and bytes get past the rules far more often than noise
  const step = fc.record({
    at: fc.nat(size - 1),
    change: fc.oneof(
      fc.constantFrom(1, 2, 4, 0x40, 0x80).map((bit) => (byte: number) => byte | bit),
      fc.nat(255).map((value) => () => value),
    ),
    isWhole: fc.boolean(),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const to = new ConfigSpace(named);
    for (const { at, change, isWhole } of steps) {
      const before = to.bytes.slice();
      const whole = before.slice();
      whole[at] = change(whole[at]);
      const data = isWhole ? whole : whole.subarray(at, at + 1);
      let write;
      try {
        write = to.write(isWhole ? 0 : at, data);
      } catch (error) {
        assert(error instanceof ConfigAccessError);
        assertEquals([...to.bytes], [...before]);
        continue;
      }
      assertEquals(write.fields.length > 0, before.some((byte, i) => byte !== to.bytes[i]));
      for (const [i, { rule }] of named.bytes.entries()) {
        if (rule === "fixed" || rule === "ro") assertEquals(to.bytes[i], blank[i]);
        if (rule === "mark") assertEquals(to.bytes[i] & 0x7f, blank[i]);
      }
      assertEquals(to.bytes[acked] & ~to.bytes[acked - 1], 0);
      assertEquals(to.bytes[status] & ~0x87, 0);
      for (const i of [...marks, acked, status]) {
        if (write.reset) assertEquals(to.bytes[i] & ~0x7f & ~blank[i], 0);
        else assertEquals(before[i] & ~to.bytes[i], 0);
      }
    }
  }));
});

Deno.test("a definition offers bits by name", () => {
  const device = defineDevice({
    name: "sensor",
    deviceId: 63,
    about: "A sensor",
    module: import.meta.url,
    queues: { q: { about: "q" } },
    config: selfDescribing({ modes: bitField(6, { ALARM: 0, QUIET: 3 }) }),
    open: () => ({ config: { modes: { ALARM: true, QUIET: false } } }),
    handlers: () => ({ queues: { q: () => 0 } }),
  });
  const layout = device.config!;
  const memory = new SharedArrayBuffer(layout.size);
  const space = new ConfigSpace(layout, memory);
  for (const values of [{ modes: { ALARM: true } }, { modes: ["ALARM"] as const }]) {
    layout.assign(memory, values);
    const { modes } = space.view as unknown as { modes: { offered(bit: string): boolean } };
    assertEquals([modes.offered("ALARM"), modes.offered("QUIET")], [true, false]);
  }
});

Deno.test("ConfigSpace.steps lists what the driver marked, acknowledged and wrote, in order", () => {
  const to = space();
  const write = (at: number, ...data: number[]) => to.write(at, Uint8Array.from(data));
  write(STATUS, CONFIG_STATUS.ACKNOWLEDGE);
  write(STATUS, CONFIG_STATUS.ACKNOWLEDGE | CONFIG_STATUS.DRIVER);
  write(SENSORS, 5 | 0x80); // two flat fields, one mark
  write(FEATURES + 4, 0b1);
  assertThrows(() => write(FEATURES + 4, 0b11), ConfigAccessError);
  write(FEATURES + 4, 0b101, 0b10);
  write(MODE + 2, 9);
  to.write(0, to.bytes.slice()); // changes nothing
  write(STATUS, 0);
  assertEquals(
    to.steps.latest.map(({ field, step, bits }) => [field, step, ...bits]),
    [
      ["status", "set", "ACKNOWLEDGE"],
      ["status", "set", "DRIVER"],
      ["sensors", "marked"],
      ["features", "acknowledged", "ALARM"],
      ["features", "acknowledged", "LOG", "FAR"],
      ["mode", "written"],
      [null, "reset"],
    ],
  );
  const times = to.steps.latest.map(({ at }) => at);
  assertEquals(times, times.toSorted((a, b) => a - b));
  to.reset(); // nothing to undo
  assertEquals(to.steps.total, 7);
});

Deno.test("ConfigSpace.steps keeps the latest, and counts all", () => {
  const to = space();
  for (let i = 1; i <= 100; i++) to.write(MODE + 2, Uint8Array.of(100 + i));
  assertEquals([to.steps.total, to.steps.latest.length], [100, 64]);
});
