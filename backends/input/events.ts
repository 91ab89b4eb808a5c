/**
 * Input events: from JSON to what the driver gets.
 *
 * An event is one of
 *
 * ```jsonc
 * { "type": "EV_KEY", "code": "KEY_A", "value": 1 } // as Linux has it; names or numbers
 * { "key": "a" }            // pressed and released; "value": 1 only presses, 0 only releases
 * { "text": "hello\n" }     // typed on a US keyboard
 * { "button": "left" }      // clicked; "value" as for a key
 * { "move": [10, -5] }      // by that much, right and down
 * { "position": [0, 32767] } // to there, from the upper left corner
 * { "wheel": 1 }            // up by one notch
 * ```
 *
 * Events between two `EV_SYN SYN_REPORT` are a group: one update of the device.
 *
 * @module
 */

import { ABS, codeNumber, EV, eventName, KEY, REL, SYN, typeName, typeNumber } from "./codes.ts";
import type { InputModel } from "./profiles.ts";
import { keystroke } from "./us_layout.ts";

/** One event: struct virtio_input_event, virtio 1.3, 5.8.6 Device Operation. */
export interface InputEvent {
  /** The event type, `EV_*`. */
  readonly type: number;
  /** What of that type. */
  readonly code: number;
  /** The new state, or by how much it changed; signed. */
  readonly value: number;
}

/** The size of struct virtio_input_event. */
export const EVENT_BYTES = 8;

/** Encodes an event: le16 type, le16 code, le32 value. */
export function encodeEvent({ type, code, value }: InputEvent, into: DataView): void {
  into.setUint16(0, type, true);
  into.setUint16(2, code, true);
  into.setInt32(4, value, true);
}

/** Decodes an event. */
export function decodeEvent(from: DataView): InputEvent {
  return {
    type: from.getUint16(0, true),
    code: from.getUint16(2, true),
    value: from.getInt32(4, true),
  };
}

/** The end of a group. */
export const SYN_REPORT: InputEvent = { type: EV.EV_SYN, code: SYN.SYN_REPORT, value: 0 };

/** Whether an event ends its group. */
export function endsGroup({ type, code }: InputEvent): boolean {
  return type === EV.EV_SYN && code === SYN.SYN_REPORT;
}

/** Whether the device announced events of that type and code to the driver. */
export function isAnnounced(model: InputModel, type: number, code: number): boolean {
  // Every device ends groups, so EV_SYN is not announced.
  if (type === EV.EV_SYN) return code === SYN.SYN_REPORT || code === SYN.SYN_MT_REPORT;
  return model.codes.get(type)?.has(code) ?? false;
}

/** The most events that one message may come to, with the ends of groups. */
export const EVENTS_AT_ONCE_MAX = 4096;

/**
 * Reads an event, or an array of them, as the JSON forms above. Nothing is
 * returned of a message that has a bad event in it.
 *
 * @returns Groups of events, each with its end.
 * @throws {TypeError} When it is none of the forms.
 * @throws {RangeError} When a name or a number is not possible for this device.
 */
export function parseEvents(json: unknown, model: InputModel): InputEvent[][] {
  const groups = new Groups(model);
  if (Array.isArray(json)) {
    if (json.length === 0) throw new TypeError("Expected an event, got an empty array");
    for (const [i, event] of json.entries()) {
      try {
        addJson(groups, event);
      } catch (error) {
        if (error instanceof Error) error.message = `Event ${i}: ${error.message}`;
        throw error;
      }
    }
  } else {
    addJson(groups, json);
  }
  groups.end();
  return groups.all;
}

/** Collects groups of events that the device can send. */
class Groups {
  readonly all: InputEvent[][] = [];
  readonly #model: InputModel;
  #open: InputEvent[] = [];
  #count = 0;

  constructor(model: InputModel) {
    this.#model = model;
  }

  /** Adds an event to the group. */
  add(type: number, code: number, value: number): void {
    this.#check(type, code, value);
    if (++this.#count > EVENTS_AT_ONCE_MAX) {
      throw new RangeError(`Expected at most ${EVENTS_AT_ONCE_MAX} events at once`);
    }
    const event = { type, code, value };
    this.#open.push(event);
    if (endsGroup(event)) {
      this.all.push(this.#open);
      this.#open = [];
    }
  }

  /** Ends the group, if there is anything in it. */
  end(): void {
    if (this.#open.length > 0) this.add(EV.EV_SYN, SYN.SYN_REPORT, 0);
  }

  #check(type: number, code: number, value: number): void {
    const { kind, codes, axes } = this.#model;
    if (!isAnnounced(this.#model, type, code)) {
      const has = codes.has(type)
        ? `it has other codes of ${typeName(type)}`
        : `its event types are ${[...codes.keys()].map(typeName).join(", ")}`;
      throw new RangeError(
        `Expected an event of this device (${kind}), got ${eventName(type, code)}: ${has}`,
      );
    }
    const axis = type === EV.EV_ABS ? axes.get(code) : undefined;
    const [least, most] = axis !== undefined ? [axis.min, axis.max] : type === EV.EV_KEY
      ? [0, 2] // released, pressed, repeated
      : [-(2 ** 31), 2 ** 31 - 1];
    if (value < least || value > most) {
      throw new RangeError(
        `Expected ${least} to ${most} as the value of ${eventName(type, code)}, got ${value}`,
      );
    }
  }
}

type Json = Record<string, unknown>;

/** A form of an event: the field that tells it, the fields it may have beside it, and how it is read. */
interface Form {
  readonly field: string;
  readonly also?: readonly string[];
  add(groups: Groups, event: Json): void;
}

const forms: readonly Form[] = [
  { field: "type", also: ["code", "value"], add: addRaw },
  {
    field: "key",
    also: ["value"],
    add: (groups, { key, value }) => addPress(groups, keyCode(text("key", key)), value),
  },
  {
    field: "button",
    also: ["value"],
    add: (groups, { button, value }) => addPress(groups, buttonCode(text("button", button)), value),
  },
  { field: "text", add: (groups, event) => addText(groups, text("text", event.text)) },
  {
    field: "move",
    add(groups, { move }) {
      const [dx, dy] = pair("move", move);
      addGroup(groups, [EV.EV_REL, REL.REL_X, dx], [EV.EV_REL, REL.REL_Y, dy]);
    },
  },
  {
    field: "position",
    add(groups, { position }) {
      const [x, y] = pair("position", position);
      addGroup(groups, [EV.EV_ABS, ABS.ABS_X, x], [EV.EV_ABS, ABS.ABS_Y, y]);
    },
  },
  {
    field: "wheel",
    add: (groups, { wheel }) =>
      addGroup(groups, [EV.EV_REL, REL.REL_WHEEL, integer("wheel", wheel)]),
  },
];

function addJson(groups: Groups, event: unknown): void {
  if (typeof event !== "object" || event === null || Array.isArray(event)) {
    throw new TypeError(`Expected an event as an object, got ${show(event)}`);
  }
  const form = forms.find(({ field }) => Object.hasOwn(event, field));
  if (form === undefined) {
    const fields = forms.map(({ field }) => field).join(", ");
    throw new TypeError(`Expected an event with one of ${fields}, got ${show(event)}`);
  }
  const { field, also = [] } = form;
  const unknown = Object.keys(event).find((name) => name !== field && !also.includes(name));
  if (unknown !== undefined) {
    throw new TypeError(
      `Expected an event of ${[field, ...also].join(", ")}, got ${show(unknown)} in it`,
    );
  }
  form.add(groups, event as Json);
}

function addRaw(groups: Groups, event: Json): void {
  const type = typeof event.type === "string" ? typeNumber(event.type) : u16("type", event.type);
  if (type === undefined) {
    throw new RangeError(`Expected the name of an event type, got ${show(event.type)}`);
  }
  const isSyn = type === EV.EV_SYN;
  const { code: codeOrName = isSyn ? SYN.SYN_REPORT : undefined, value = isSyn ? 0 : undefined } =
    event;
  const code = typeof codeOrName === "string"
    ? codeNumber(type, codeOrName)
    : u16("code", codeOrName);
  if (code === undefined) {
    throw new RangeError(
      `Expected the name of a code of ${typeName(type)}, got ${show(codeOrName)}`,
    );
  }
  groups.add(type, code, integer("value", value));
}

/** Adds a group of its own. */
function addGroup(groups: Groups, ...events: [type: number, code: number, value: number][]): void {
  groups.end();
  for (const [type, code, value] of events) groups.add(type, code, value);
  groups.end();
}

/** Presses or releases; without a value both, one after the other. */
function addPress(groups: Groups, code: number, value: unknown): void {
  const values = value === undefined ? [1, 0] : [integer("value", value)];
  for (const value of values) addGroup(groups, [EV.EV_KEY, code, value]);
}

function addText(groups: Groups, text: string): void {
  if (text === "") throw new TypeError("Expected a text with something in it, got an empty one");
  for (const character of text) {
    const stroke = keystroke(character);
    if (stroke === undefined) {
      throw new RangeError(`Expected text that a US keyboard types, got ${show(character)} in it`);
    }
    if (stroke.shift) addPress(groups, KEY.KEY_LEFTSHIFT, 1);
    addPress(groups, stroke.code, undefined);
    if (stroke.shift) addPress(groups, KEY.KEY_LEFTSHIFT, 0);
  }
}

/** What keys are called beside their Linux names. */
const keyAliases: Readonly<Record<string, number>> = {
  ALT: KEY.KEY_LEFTALT,
  CTRL: KEY.KEY_LEFTCTRL,
  ESCAPE: KEY.KEY_ESC,
  META: KEY.KEY_LEFTMETA,
  RETURN: KEY.KEY_ENTER,
  SHIFT: KEY.KEY_LEFTSHIFT,
};

/** The key of a Linux name with or without `KEY_`, or of a label. */
function keyCode(name: string): number {
  const stroke = keystroke(name.length === 1 ? name.toLowerCase() : name);
  if (stroke !== undefined && !stroke.shift) return stroke.code;
  const upper = name.toUpperCase();
  const code = codeNumber(EV.EV_KEY, upper) ?? codeNumber(EV.EV_KEY, `KEY_${upper}`) ??
    (Object.hasOwn(keyAliases, upper) ? keyAliases[upper] : undefined);
  if (code === undefined) {
    const hint = stroke === undefined ? "" : `; { "text": ${show(name)} } types it with Shift`;
    throw new RangeError(
      `Expected a key such as a, enter, f1 or KEY_LEFTCTRL, got ${show(name)}${hint}`,
    );
  }
  return code;
}

function buttonCode(name: string): number {
  const upper = name.toUpperCase();
  const code = codeNumber(EV.EV_KEY, upper) ?? codeNumber(EV.EV_KEY, `BTN_${upper}`);
  if (code === undefined) {
    throw new RangeError(`Expected a button such as left, right or middle, got ${show(name)}`);
  }
  return code;
}

function text(what: string, value: unknown): string {
  if (typeof value !== "string") {
    throw new TypeError(`Expected a text as ${what}, got ${show(value)}`);
  }
  return value;
}

function integer(what: string, value: unknown): number {
  if (typeof value !== "number" || !Number.isInteger(value)) {
    throw new TypeError(`Expected a whole number as ${what}, got ${show(value)}`);
  }
  return value;
}

function u16(what: string, value: unknown): number {
  const number = integer(what, value);
  if (number < 0 || number > 0xffff) {
    throw new RangeError(`Expected a name or 0 to 65535 as ${what}, got ${number}`);
  }
  return number;
}

function pair(what: string, value: unknown): [number, number] {
  if (!Array.isArray(value) || value.length !== 2) {
    throw new TypeError(`Expected two numbers as ${what}, got ${show(value)}`);
  }
  return [integer(what, value[0]), integer(what, value[1])];
}

/** A value as JSON, not longer than a line has room for. */
function show(value: unknown): string {
  const json = JSON.stringify(value) ?? `${value}`;
  return json.length > 60 ? `${json.slice(0, 57)}...` : json;
}
