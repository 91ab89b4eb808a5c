/**
 * Config space by selection: the driver writes `select` and `subsel`, and finds
 * the answer in `size` and `u`. Virtio 1.3, 5.8.4 Device configuration layout.
 *
 * @module
 */

import { codeName, EV, typeName } from "./codes.ts";
import { ANSWER_BYTES_MAX, type InputModel } from "./profiles.ts";

/** What `select` can ask for: enum virtio_input_config_select. */
const Select = {
  UNSET: 0x00,
  ID_NAME: 0x01,
  ID_SERIAL: 0x02,
  ID_DEVIDS: 0x03,
  PROP_BITS: 0x10,
  EV_BITS: 0x11,
  ABS_INFO: 0x12,
} as const;

const selectNames = new Map<number, string>(
  Object.entries(Select).map(([name, number]) => [number, name]),
);

const encoder = new TextEncoder();

/**
 * What the device answers to a selection: up to 128 bytes; none for what does
 * not exist.
 */
export function selectionAnswer(
  model: InputModel,
  select: number,
  subsel: number,
): Uint8Array<ArrayBuffer> {
  switch (select) {
    case Select.EV_BITS:
      return bitmap(model.codes.get(subsel) ?? []);
    case Select.ABS_INFO: {
      const axis = model.axes.get(subsel);
      if (axis === undefined) break;
      const { min, max, fuzz, flat, res } = axis;
      return new Uint8Array(Int32Array.of(min, max, fuzz, flat, res).buffer);
    }
  }
  if (subsel !== 0) return new Uint8Array();
  switch (select) {
    case Select.ID_NAME:
      return encoder.encode(model.name);
    case Select.ID_SERIAL:
      return encoder.encode(model.serial);
    case Select.ID_DEVIDS: {
      const { bustype, vendor, product, version } = model.ids;
      return new Uint8Array(Uint16Array.of(bustype, vendor, product, version).buffer);
    }
    case Select.PROP_BITS:
      return bitmap(model.properties);
  }
  return new Uint8Array();
}

/** A bit for each number, as many bytes as the largest needs. */
function bitmap(numbers: Iterable<number>): Uint8Array<ArrayBuffer> {
  const bits = new Uint8Array(ANSWER_BYTES_MAX);
  let size = 0;
  for (const number of numbers) {
    const at = number >> 3;
    if (at >= bits.length) continue; // no room in u, so it cannot be announced
    bits[at] |= 1 << (number & 7);
    size = Math.max(size, at + 1);
  }
  return bits.slice(0, size);
}

/** A selection for people: `EV_BITS EV_KEY`, `ABS_INFO ABS_X`, `ID_NAME`. */
export function selectionName(select: number, subsel: number): string {
  const name = selectNames.get(select) ?? `0x${select.toString(16).padStart(2, "0")}`;
  if (select === Select.EV_BITS) return `${name} ${typeName(subsel)}`;
  if (select === Select.ABS_INFO) return `${name} ${codeName(EV.EV_ABS, subsel)}`;
  return subsel === 0 ? name : `${name} ${subsel}`;
}

/** A selection that the driver asked for. */
export interface SelectionRecord {
  /** Its name. */
  readonly name: string;
  /** What was in `select`. */
  readonly select: number;
  /** What was in `subsel`. */
  readonly subsel: number;
  /** How many bytes were answered; 0 when there is no such thing. */
  readonly size: number;
  /** How often the driver selected it and then read. */
  count: number;
  /** When it did so first, in milliseconds since 1970. */
  readonly first: number;
  /** When it did so last, in milliseconds since 1970. */
  last: number;
}

/**
 * How many different selections are told apart; Linux asks for about 20, and a
 * driver could ask for 65,536.
 */
export const SELECTIONS_MAX = 256;

/**
 * Which selections the driver asked for. One counts when it is read after it
 * was written: the driver writes `select` and `subsel` one after the other, and
 * the pair in between was never meant.
 *
 * This is the read-mark of the proposal of 2007, which virtio's config space
 * has for this device alone.
 */
export class SelectionLog {
  readonly #now: () => number;
  readonly #records = new Map<number, SelectionRecord>();
  #written = false;
  #others = 0;

  /** Makes an empty log. */
  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** The driver wrote `select` or `subsel`. */
  written(): void {
    this.#written = true;
  }

  /** The driver reads the answer. */
  read(select: number, subsel: number, size: number): void {
    if (!this.#written) return;
    this.#written = false;
    const now = this.#now();
    const key = select << 8 | subsel;
    const record = this.#records.get(key);
    if (record !== undefined) {
      record.count++;
      record.last = now;
    } else if (this.#records.size < SELECTIONS_MAX) {
      const name = selectionName(select, subsel);
      this.#records.set(key, { name, select, subsel, size, count: 1, first: now, last: now });
    } else {
      this.#others++;
    }
  }

  /** The device was reset: nothing is selected. What was asked for stays on record. */
  reset(): void {
    this.#written = false;
  }

  /** Everything that was asked for, in the order of the first time: copies. */
  get records(): SelectionRecord[] {
    return [...this.#records.values()].map((record) => ({ ...record }));
  }

  /** How often the driver asked for selections beyond {@linkcode SELECTIONS_MAX}. */
  get others(): number {
    return this.#others;
  }
}
