import { assertEquals, assertThrows } from "@std/assert";
import { profileModel } from "../../backends/input/profiles.ts";
import {
  selectionAnswer,
  SelectionLog,
  selectionName,
  SELECTIONS_MAX,
} from "../../backends/input/selection.ts";

const keyboard = profileModel("keyboard", { serial: "é1" });
const mouse = profileModel("mouse", { name: "Maus", vendorId: 0x1234, productId: 0xabcd });
const tablet = profileModel("tablet");

function answers(model: typeof mouse, select: number, subsel = 0): number[] {
  return [...selectionAnswer(model, select, subsel)];
}

Deno.test("selectionAnswer() returns the name without a NUL", () => {
  assertEquals(answers(mouse, 0x01), [0x4d, 0x61, 0x75, 0x73]);
  assertEquals(new TextDecoder().decode(selectionAnswer(tablet, 0x01, 0)), "vhostd tablet");
});

Deno.test("selectionAnswer() returns the serial number, and nothing if there is none", () => {
  assertEquals(answers(keyboard, 0x02), [0xc3, 0xa9, 0x31]);
  assertEquals(answers(mouse, 0x02), []);
});

Deno.test("selectionAnswer() returns bus type, vendor, product and version", () => {
  assertEquals(answers(mouse, 0x03), [6, 0, 0x34, 0x12, 0xcd, 0xab, 1, 0]);
  assertEquals(answers(tablet, 0x03), [6, 0, 0, 0, 3, 0, 1, 0]);
});

Deno.test("selectionAnswer() returns no properties to the profiles, and a bit for each to a model", () => {
  assertEquals(answers(mouse, 0x10), []);
  assertEquals(answers({ ...mouse, properties: new Set([0, 5]) }, 0x10), [0x21]);
});

Deno.test("selectionAnswer() returns the keys, LEDs and repetition of a keyboard", () => {
  const keys = answers(keyboard, 0x11, 1);
  // KEY_ESC (1) to KEY_MICMUTE (248), and KEY_FN (0x1d0)
  assertEquals(keys.length, 0x1d0 / 8 + 1);
  assertEquals(keys.slice(0, 12), [0xfe, ...new Array(9).fill(0xff), 0xef, 0xff]); // no code 84
  assertEquals(keys[30], 0xfe); // KEY_UNKNOWN (240) is no key
  assertEquals(keys.slice(31, 58), [0x01, ...new Array(26).fill(0)]);
  assertEquals(keys[58], 0x01);
  assertEquals(answers(keyboard, 0x11, 0x11), [0x07]);
  assertEquals(answers(keyboard, 0x11, 0x14), [0x03]);
});

Deno.test("selectionAnswer() returns the buttons and axes of a mouse", () => {
  // BTN_LEFT (0x110) to BTN_EXTRA (0x114)
  assertEquals(answers(mouse, 0x11, 1), [...new Array(34).fill(0), 0x1f]);
  // REL_X, REL_Y, REL_HWHEEL (6), REL_WHEEL (8)
  assertEquals(answers(mouse, 0x11, 2), [0x43, 0x01]);
});

Deno.test("selectionAnswer() returns the axes of a tablet with their ranges", () => {
  assertEquals(answers(tablet, 0x11, 1), [...new Array(34).fill(0), 0x1f]);
  assertEquals(answers(tablet, 0x11, 2), [0x40, 0x01]);
  assertEquals(answers(tablet, 0x11, 3), [0x03]);
  const range = [0, 0, 0, 0, 0xff, 0x7f, 0, 0, ...new Array(12).fill(0)];
  assertEquals(answers(tablet, 0x12, 0), range);
  assertEquals(answers(tablet, 0x12, 1), range);
});

Deno.test("selectionAnswer() returns signed ranges", () => {
  const axes = new Map([[2, { min: -2, max: 1, fuzz: 3, flat: 4, res: 5 }]]);
  assertEquals(answers({ ...tablet, axes }, 0x12, 2), [
    ...[0xfe, 0xff, 0xff, 0xff],
    ...[1, 0, 0, 0],
    ...[3, 0, 0, 0],
    ...[4, 0, 0, 0],
    ...[5, 0, 0, 0],
  ]);
});

Deno.test("selectionAnswer() returns nothing for an unknown selection", () => {
  const supported = new Set<string>();
  for (let select = 0; select < 256; select++) {
    for (let subsel = 0; subsel < 256; subsel++) {
      if (answers(tablet, select, subsel).length > 0) {
        supported.add(selectionName(select, subsel));
      }
    }
  }
  assertEquals([...supported], [
    "ID_NAME",
    "ID_DEVIDS",
    "EV_BITS EV_KEY",
    "EV_BITS EV_REL",
    "EV_BITS EV_ABS",
    "ABS_INFO ABS_X",
    "ABS_INFO ABS_Y",
  ]);
});

Deno.test("profileModel() refuses texts and ids that do not fit", () => {
  assertEquals(profileModel("mouse", { name: "é".repeat(64) }).name.length, 64);
  assertThrows(() => profileModel("mouse", { name: "é".repeat(65) }), RangeError, "got 130");
  assertThrows(() => profileModel("mouse", { serial: "x".repeat(129) }), RangeError, "serial");
  assertThrows(() => profileModel("mouse", { vendorId: 65536 }), RangeError, "vendor id");
});

Deno.test("selectionName() names selections", () => {
  assertEquals(selectionName(0, 0), "UNSET");
  assertEquals(selectionName(0x11, 1), "EV_BITS EV_KEY");
  assertEquals(selectionName(0x11, 0x1f), "EV_BITS 31");
  assertEquals(selectionName(0x12, 1), "ABS_INFO ABS_Y");
  assertEquals(selectionName(0x03, 7), "ID_DEVIDS 7");
  assertEquals(selectionName(0x20, 0), "0x20");
});

Deno.test("SelectionLog counts a selection once, when it is read after it was written", () => {
  let now = 100;
  const log = new SelectionLog(() => now++);
  log.read(0, 0, 0); // nothing was selected
  log.written();
  log.written(); // subsel
  log.read(0x11, 1, 59);
  log.read(0x11, 1, 59); // u, byte by byte
  log.written();
  log.written();
  log.read(0x02, 0, 0);
  log.written();
  log.read(0x11, 1, 59);
  assertEquals(log.records, [
    { name: "EV_BITS EV_KEY", select: 0x11, subsel: 1, size: 59, count: 2, first: 100, last: 102 },
    { name: "ID_SERIAL", select: 2, subsel: 0, size: 0, count: 1, first: 101, last: 101 },
  ]);
});

Deno.test("SelectionLog keeps selections over a reset", () => {
  const log = new SelectionLog(() => 1);
  log.written();
  log.read(1, 0, 4);
  log.written();
  log.reset();
  log.read(0, 0, 0);
  assertEquals(log.records.map(({ name }) => name), ["ID_NAME"]);
});

Deno.test("SelectionLog only counts selections beyond its limit", () => {
  const log = new SelectionLog(() => 1);
  for (let i = 0; i < SELECTIONS_MAX + 3; i++) {
    log.written();
    log.read(i >> 8, i & 0xff, 0);
  }
  assertEquals(log.records.length, SELECTIONS_MAX);
  assertEquals(log.others, 3);
});
