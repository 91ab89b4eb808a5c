/**
 * What the driver says on statusq: LEDs, and other feedback.
 *
 * @module
 */

import { codeName, EV, eventName } from "./codes.ts";
import { type InputEvent, isAnnounced } from "./events.ts";
import type { InputModel } from "./profiles.ts";

/** What the driver said about one LED or the like. */
export interface StatusRecord {
  /** Its type and code: `EV_LED LED_CAPSL`. */
  readonly name: string;
  /** The last value. */
  value: number;
  /** How often it was said. */
  count: number;
  /** When it was said first, in milliseconds since 1970. */
  readonly first: number;
  /** When it was said last, in milliseconds since 1970. */
  last: number;
}

/** Keeps what the driver said. */
export class StatusLog {
  /** Called with each event of the driver. */
  onEvent: (event: InputEvent) => void = () => {};
  /** Called at a reset with what turns off each that the driver has turned on. */
  onRelease: (event: InputEvent) => void = () => {};
  readonly #model: InputModel;
  readonly #now: () => number;
  readonly #records = new Map<number, StatusRecord>();
  readonly #leds = new Map<number, boolean>();
  /** LEDs and sounds that are on. */
  readonly #lit = new Map<number, InputEvent>();
  #others = 0;

  /** Makes an empty log: all LEDs are off. */
  constructor(model: InputModel, now: () => number = Date.now) {
    this.#model = model;
    this.#now = now;
    this.reset();
  }

  /** The driver said something. */
  take(event: InputEvent): void {
    const { type, code, value } = event;
    if (isAnnounced(this.#model, type, code)) {
      if (type === EV.EV_LED) this.#leds.set(code, value !== 0);
      if (value === 0) this.#lit.delete(type << 16 | code);
      else if (type === EV.EV_LED || type === EV.EV_SND) this.#lit.set(type << 16 | code, event);
      this.#count(type << 16 | code, event);
    } else {
      // Only counted: a driver could name 2^32 of them
      this.#others++;
    }
    this.onEvent(event);
  }

  #count(key: number, { type, code, value }: InputEvent): void {
    const now = this.#now();
    const record = this.#records.get(key);
    if (record === undefined) {
      const name = eventName(type, code);
      this.#records.set(key, { name, value, count: 1, first: now, last: now });
    } else {
      record.value = value;
      record.count++;
      record.last = now;
    }
  }

  /** The device was reset: LEDs are off. What was said stays on record. */
  reset(): void {
    for (const code of this.#model.codes.get(EV.EV_LED) ?? []) this.#leds.set(code, false);
    for (const event of this.#lit.values()) this.onRelease({ ...event, value: 0 });
    this.#lit.clear();
  }

  /** Which LEDs are on, by name. */
  get leds(): Record<string, boolean> {
    return Object.fromEntries(
      [...this.#leds].map(([code, on]) => [codeName(EV.EV_LED, code), on]),
    );
  }

  /** Everything that was said, in the order of the first time: copies. */
  get records(): StatusRecord[] {
    return [...this.#records.values()].map((record) => ({ ...record }));
  }

  /** How many events the device did not announce. */
  get others(): number {
    return this.#others;
  }
}
