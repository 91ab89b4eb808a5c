/**
 * The driver's steps in a self-describing config space: what it marked, acknowledged and wrote, in
 * order. A packed space has none: drivers write some of them dozens of times (`input`'s `select`).
 *
 * @module
 */

import type { ConfigLayout } from "./layout.ts";
import { type BitNumbers, CONFIG_STATUS } from "./self_describing.ts";
import { hasBit } from "./view.ts";
import type { ConfigWrite } from "./write.ts";

/** One step of the driver. */
export interface ConfigStep {
  /** The time, in milliseconds since 1970. */
  at: number;
  /** The field: its declared name where it is marked, else its flat name. Null for a reset. */
  field: string | null;
  /** What the driver did; `set` is for bits of the status. */
  step: "marked" | "acknowledged" | "set" | "written" | "reset";
  /** The names of the bits that the step acknowledged, or set in the status. */
  bits: string[];
}

/** The steps that are kept. */
export interface ConfigSteps {
  /** Number of all steps. */
  total: number;
  /** The latest of them, oldest first. */
  latest: ConfigStep[];
}

/** Number of steps that are kept. */
const MAX_STEPS = 64;

/** Keeps the latest steps. */
export class ConfigStepLog {
  readonly #layout: ConfigLayout;
  readonly #latest: ConfigStep[] = [];
  #total = 0;

  /** A log of a space in this layout. */
  constructor(layout: ConfigLayout) {
    this.#layout = layout;
  }

  /** The steps up to now: a copy. */
  get steps(): ConfigSteps {
    return {
      total: this.#total,
      latest: this.#latest.map((step) => ({ ...step, bits: [...step.bits] })),
    };
  }

  /** The driver's write was accepted. */
  written({ fields, reset }: ConfigWrite, at: number): void {
    if (reset) return this.reset(at);
    let markedAt = -1;
    for (const { name, part, offset, before, after } of fields) {
      if (part === "mark") {
        // The flat fields of a struct share its mark
        const field = this.#layout.bytes[offset].owner ?? name;
        if (offset !== markedAt) this.#add({ at, field, step: "marked", bits: [] });
        markedAt = offset;
      } else if (part === "value") {
        this.#add({ at, field: name, step: "written", bits: [] });
      } else {
        const { bits = STATUS_BITS } = this.#layout.fields.find((field) => field.name === name)!;
        const step = part === "status" ? "set" : part;
        this.#add({ at, field: name, step, bits: addedBits(bits, before, after) });
      }
    }
  }

  /** The driver's writes were undone. */
  reset(at: number): void {
    this.#add({ at, field: null, step: "reset", bits: [] });
  }

  #add(step: ConfigStep): void {
    if (this.#layout.kind === "packed") return;
    this.#total++;
    this.#latest.push(step);
    if (this.#latest.length > MAX_STEPS) this.#latest.shift();
  }
}

/** The numbers of the status bits by name. */
const STATUS_BITS: BitNumbers = Object.fromEntries(
  Object.entries(CONFIG_STATUS).map(([name, mask]) => [name, Math.log2(mask)]),
);

function addedBits(bits: BitNumbers, before: Uint8Array, after: Uint8Array): string[] {
  const [old, now] = [before, after].map(({ buffer, byteOffset, length }) =>
    new DataView(buffer, byteOffset, length)
  );
  return Object.keys(bits).filter((name) =>
    hasBit(now, 0, bits[name]) && !hasBit(old, 0, bits[name])
  );
}
