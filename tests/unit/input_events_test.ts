import { assertEquals, assertThrows } from "@std/assert";
import {
  decodeEvent,
  encodeEvent,
  EVENTS_AT_ONCE_MAX,
  type InputEvent,
  parseEvents,
} from "../../backends/input/events.ts";
import { profileModel } from "../../backends/input/profiles.ts";
import { keystroke } from "../../backends/input/us_layout.ts";

const keyboard = profileModel("keyboard");
const mouse = profileModel("mouse");
const tablet = profileModel("tablet");

const SYN = [0, 0, 0];
const plain = (groups: InputEvent[][]) =>
  groups.map((group) => group.map(({ type, code, value }) => [type, code, value]));
const parse = (json: unknown, model = keyboard) => plain(parseEvents(json, model));

Deno.test("encodeEvent() writes struct virtio_input_event", () => {
  const bytes = new Uint8Array(8);
  const data = new DataView(bytes.buffer);
  encodeEvent({ type: 2, code: 0x0108, value: -2 }, data);
  assertEquals([...bytes], [2, 0, 8, 1, 0xfe, 0xff, 0xff, 0xff]);
  assertEquals(decodeEvent(data), { type: 2, code: 0x0108, value: -2 });
});

Deno.test("parseEvents() takes names and numbers, and adds the end of the group", () => {
  const expected = [[[1, 30, 1], SYN]];
  assertEquals(parse({ type: "EV_KEY", code: "KEY_A", value: 1 }), expected);
  assertEquals(parse({ type: 1, code: 30, value: 1 }), expected);
  assertEquals(parse([{ type: "EV_KEY", code: 30, value: 1 }, { type: "EV_SYN" }]), expected);
  assertEquals(
    parse([{ type: 1, code: 30, value: 1 }, { type: 0, code: "SYN_REPORT", value: 0 }]),
    expected,
  );
});

Deno.test("parseEvents() keeps raw events together until SYN_REPORT", () => {
  const move = (code: string, value: number) => ({ type: "EV_REL", code, value });
  assertEquals(
    parse([move("REL_X", 1), move("REL_Y", -1), { type: "EV_SYN" }, move("REL_X", 2)], mouse),
    [[[2, 0, 1], [2, 1, -1], SYN], [[2, 0, 2], SYN]],
  );
});

Deno.test("parseEvents() ends a group of raw events before a shorthand event", () => {
  assertEquals(
    parse([{ type: "EV_KEY", code: "KEY_LEFTCTRL", value: 1 }, { key: "c" }]),
    [[[1, 29, 1], SYN], [[1, 46, 1], SYN], [[1, 46, 0], SYN]],
  );
});

Deno.test("parseEvents() presses and releases a key, or does one of the two", () => {
  assertEquals(parse({ key: "a" }), [[[1, 30, 1], SYN], [[1, 30, 0], SYN]]);
  assertEquals(parse({ key: "ctrl", value: 1 }), [[[1, 29, 1], SYN]]);
  assertEquals(parse({ key: "ctrl", value: 0 }), [[[1, 29, 0], SYN]]);
});

Deno.test("parseEvents() knows keys by their Linux names and by their labels", () => {
  const code = (key: string) => parse({ key })[0][0][1];
  assertEquals(["A", "KEY_A", "key_a"].map(code), [30, 30, 30]);
  assertEquals(["1", ";", "\n", "enter", "F1", "leftmeta"].map(code), [2, 39, 28, 28, 59, 125]);
  assertEquals(["shift", "Escape", "kp0"].map(code), [42, 1, 82]);
});

Deno.test("parseEvents() types text with Shift where it is needed", () => {
  assertEquals(parse({ text: "a!\n" }), [
    [[1, 30, 1], SYN],
    [[1, 30, 0], SYN],
    [[1, 42, 1], SYN],
    [[1, 2, 1], SYN],
    [[1, 2, 0], SYN],
    [[1, 42, 0], SYN],
    [[1, 28, 1], SYN],
    [[1, 28, 0], SYN],
  ]);
});

Deno.test("keystroke() knows every printable character of ASCII", () => {
  const seen = new Set<string>();
  for (let i = 0x20; i < 0x7f; i++) {
    const { code, shift } = keystroke(String.fromCharCode(i))!;
    seen.add(`${code} ${shift}`);
  }
  assertEquals(seen.size, 0x7f - 0x20);
  assertEquals(keystroke("\\"), { code: 43, shift: false });
  assertEquals(keystroke("~"), { code: 41, shift: true });
  assertEquals(keystroke("?"), { code: 53, shift: true });
  assertEquals(keystroke(")"), { code: 11, shift: true });
  assertEquals(keystroke("é"), undefined);
});

Deno.test("parseEvents() moves, clicks and scrolls", () => {
  assertEquals(parse({ move: [10, -5] }, mouse), [[[2, 0, 10], [2, 1, -5], SYN]]);
  assertEquals(parse({ position: [0, 32767] }, tablet), [[[3, 0, 0], [3, 1, 32767], SYN]]);
  assertEquals(parse({ wheel: -1 }, tablet), [[[2, 8, -1], SYN]]);
  assertEquals(parse({ button: "left" }, mouse), [[[1, 0x110, 1], SYN], [[1, 0x110, 0], SYN]]);
  assertEquals(parse({ button: "BTN_RIGHT", value: 1 }, mouse), [[[1, 0x111, 1], SYN]]);
});

const bad: [json: unknown, type: typeof TypeError | typeof RangeError, message: string][] = [
  [undefined, TypeError, "Expected an event as an object, got undefined"],
  [null, TypeError, "Expected an event as an object, got null"],
  ["a", TypeError, 'Expected an event as an object, got "a"'],
  [[], TypeError, "Expected an event, got an empty array"],
  [[[]], TypeError, "Event 0: Expected an event as an object, got []"],
  [{}, TypeError, "Expected an event with one of type, key, button, text, move, position, wheel"],
  [{ toString: 1 }, TypeError, "Expected an event with one of"],
  [{ key: "a", vlaue: 1 }, TypeError, 'Expected an event of key, value, got "vlaue" in it'],
  [{ key: "a", text: "b" }, TypeError, 'got "text" in it'],
  [{ key: 1 }, TypeError, "Expected a text as key, got 1"],
  [
    { key: "nokey" },
    RangeError,
    'Expected a key such as a, enter, f1 or KEY_LEFTCTRL, got "nokey"',
  ],
  [{ key: "!" }, RangeError, '{ "text": "!" } types it with Shift'],
  [{ key: "constructor" }, RangeError, "Expected a key"],
  [{ key: "a", value: 3 }, RangeError, "Expected 0 to 2 as the value of EV_KEY KEY_A, got 3"],
  [{ key: "a", value: "1" }, TypeError, 'Expected a whole number as value, got "1"'],
  [{ text: "" }, TypeError, "got an empty one"],
  [{ text: "né" }, RangeError, 'Expected text that a US keyboard types, got "é" in it'],
  [{ text: "a".repeat(1025) }, RangeError, `Expected at most ${EVENTS_AT_ONCE_MAX} events at once`],
  [{ move: [1, 1] }, RangeError, "Expected an event of this device (keyboard), got EV_REL REL_X"],
  [{ move: [1, 1] }, RangeError, "its event types are EV_KEY, EV_LED, EV_REP"],
  [{ button: "left" }, RangeError, "got EV_KEY BTN_LEFT: it has other codes of EV_KEY"],
  [{ button: "upper" }, RangeError, 'Expected a button such as left, right or middle, got "upper"'],
  [{ type: "EV_KEY", code: "KEY_A" }, TypeError, "Expected a whole number as value, got undefined"],
  [{ type: "EV_KEY", value: 1 }, TypeError, "Expected a whole number as code, got undefined"],
  [{ type: "EV_KEYS", code: 1, value: 1 }, RangeError, 'the name of an event type, got "EV_KEYS"'],
  [{ type: "EV_KEY", code: "REL_X", value: 1 }, RangeError, 'a code of EV_KEY, got "REL_X"'],
  [{ type: -1, code: 1, value: 1 }, RangeError, "Expected a name or 0 to 65535 as type, got -1"],
  [{ type: 1, code: 65536, value: 1 }, RangeError, "as code, got 65536"],
  [{ type: 1, code: 1.5, value: 1 }, TypeError, "Expected a whole number as code, got 1.5"],
  [{ type: "EV_SYN", code: "SYN_DROPPED" }, RangeError, "got EV_SYN SYN_DROPPED"],
  [[{ key: "a" }, { key: "?" }], RangeError, "Event 1: Expected a key"],
];

for (const [json, type, message] of bad) {
  Deno.test(`parseEvents() refuses ${JSON.stringify(json)?.slice(0, 60)}: ${message}`, () => {
    assertThrows(() => parseEvents(json, keyboard), type, message);
  });
}

Deno.test("parseEvents() keeps to the announced axes and their ranges", () => {
  const refused = (json: unknown, model: typeof mouse, message: string) =>
    assertThrows(() => parseEvents(json, model), RangeError, message);
  refused({ position: [0, 32768] }, tablet, "Expected 0 to 32767 as the value of EV_ABS ABS_Y");
  refused({ position: [-1, 0] }, tablet, "value of EV_ABS ABS_X, got -1");
  refused({ position: [0, 0] }, mouse, "this device (mouse), got EV_ABS ABS_X");
  refused({ key: "a" }, mouse, "this device (mouse), got EV_KEY KEY_A");
  refused({ wheel: 2 ** 31 }, mouse, "Expected -2147483648 to 2147483647");
  assertThrows(() => parseEvents({ move: [1] }, mouse), TypeError, "two numbers as move, got [1]");
  assertThrows(() => parseEvents({ move: [1, 0.5] }, mouse), TypeError, "whole number as move");
});
