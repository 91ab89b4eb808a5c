/**
 * The self-describing layout of config space, proposed in 2007: a sequence of
 * `[u8 type][u8 length][data]`, ended by type 0. Drivers and devices agree on the meaning of type
 * numbers, not on offsets, and the host sees what the driver understood:
 *
 * - The driver *marks* each field that it takes, by setting 0x80 on its type. It never takes a
 *   field twice, so several may have the same type.
 * - The data of a *bit field* has two equal halves: the bits that the device offers, and the same
 *   bits as the driver acknowledges them, one by one. Only a reset takes them back.
 * - The *status* byte shows the driver's progress. Bits are only added; writing 0 resets the space,
 *   and the next driver finds its fields again.
 *
 * Numbers are little-endian; nothing is aligned.
 *
 * @module
 */

import { type Field, type FieldValue, type FieldView, struct, type ValueField } from "./fields.ts";
import {
  checkSize,
  type ConfigByte,
  type ConfigField,
  type ConfigLayout,
  type ConfigMark,
  fieldBytes,
  flatten,
} from "./layout.ts";
import { access, assignField, dataView, define, hasBit, targetView } from "./view.ts";

/** The bit of a type byte by which the driver marks a field as used. */
export const CONFIG_USED = 0x80;

/** The largest type number; with the mark, 0x7f would be 0xff. */
export const CONFIG_TYPE_MAX = 0x7e;

/** The bits of the status byte. */
export const CONFIG_STATUS = {
  /** The driver's system has seen the device. */
  ACKNOWLEDGE: 0x01,
  /** It has a driver for the device. */
  DRIVER: 0x02,
  /** The driver has taken its fields and works. */
  DRIVER_OK: 0x04,
  /** It has given up on the device. */
  FAILED: 0x80,
} as const;

/** The longest data of a field, in bytes: the length is one byte. */
const LENGTH_MAX = 255;

/** A declared field with its type number. */
export interface TypedField<F = unknown> {
  /** The kind of entry. */
  readonly kind: "field";
  /** The type number, 1 to 0x7e. */
  readonly type: number;
  /** The data. */
  readonly field: F;
}

/** The declared bits of a bit field: numbers by name. */
export type BitNumbers = { readonly [name: string]: number };

/** A declared bit field with its type number. */
export interface BitField<B = unknown> {
  /** The kind of entry. */
  readonly kind: "bits";
  /** The type number, 1 to 0x7e. */
  readonly type: number;
  /** The bits by name. */
  readonly bits: B;
  /** Size of each half of the data, in bytes. */
  readonly half: number;
  /** The meaning of the bits. */
  readonly about: string;
}

/** A declared status byte with its type number. */
export interface StatusField {
  /** The kind of entry. */
  readonly kind: "status";
  /** The type number, 1 to 0x7e. */
  readonly type: number;
  /** The meaning of the byte. */
  readonly about: string;
}

/** Any entry of a self-describing layout. */
export type SelfDescribingField = TypedField | BitField | StatusField;

/** The entries of a self-describing layout by name, in their order. */
export type SelfDescribingFields = { readonly [name: string]: SelfDescribingField };

/** What a device sees of a bit field. */
export interface BitsView<Name extends string = string> {
  /** Whether the device offers the bit. */
  offered(bit: Name): boolean;
  /** Whether the driver has acknowledged the bit. */
  acknowledged(bit: Name): boolean;
  /**
   * Offers the bit, or with `false` stops offering it.
   *
   * @throws {RangeError} if the driver has already acknowledged the bit
   */
  offer(bit: Name, offered?: boolean): void;
}

/** What a device sees of one entry. */
export type SelfDescribingFieldView<E> = E extends TypedField<infer F> ? FieldView<F>
  : E extends BitField<infer B> ? BitsView<keyof B & string>
  : E extends StatusField ? number
  : never;

/** What a device sees of a self-describing space. */
export type SelfDescribingView<E> =
  & {
    [K in keyof E as E[K] extends TypedField<ValueField> ? K : never]: SelfDescribingFieldView<
      E[K]
    >;
  }
  & {
    readonly [
      K in keyof E as E[K] extends TypedField<ValueField> ? never : K
    ]: SelfDescribingFieldView<E[K]>;
  };

/** The bits of a field to offer, as a list of names or as an object. */
export type OfferedBits<Name extends string> = readonly Name[] | { readonly [K in Name]?: boolean };

/**
 * Values for any of the fields. The value of a bit field is all the bits to offer: `{ ALARM: true }`
 * or `["ALARM"] as const`. Only the driver sets the status.
 */
export type SelfDescribingValues<E> = {
  readonly [K in keyof E as E[K] extends StatusField ? never : K]?: E[K] extends TypedField<infer F>
    ? FieldValue<F>
    : E[K] extends BitField<infer B> ? OfferedBits<keyof B & string>
    : never;
};

/** The self-describing layout of declared entries. */
export type SelfDescribingLayout<E extends SelfDescribingFields> = ConfigLayout<
  SelfDescribingView<E>,
  SelfDescribingValues<E>
>;

function checkType(type: number): void {
  if (Number.isInteger(type) && type >= 1 && type <= CONFIG_TYPE_MAX) return;
  throw new RangeError(
    `Cannot declare a config field of type ${type}: expected an integer from 1 to ${CONFIG_TYPE_MAX}`,
  );
}

/**
 * Gives a declared field its type number.
 *
 * @throws {RangeError} if the type is not an integer from 1 to 0x7e, or the field is longer than
 * 255 bytes
 */
export function field<F extends Field>(type: number, field: F): TypedField<F> {
  checkType(type);
  if (field.size > LENGTH_MAX) {
    throw new RangeError(
      `Cannot declare a self-describing field of ${field.size} bytes: at most ${LENGTH_MAX} fit`,
    );
  }
  return { kind: "field", type, field };
}

/**
 * Declares a bit field by the names and numbers of its bits. Bit 0 is the lowest of the first byte.
 * All bits are offered unless the device changes that.
 *
 * @throws {RangeError} if the type is not an integer from 1 to 0x7e, a bit's number is not an
 * integer from 0 to 1015, or two bits have the same one
 *
 * @example Usage
 * ```ts
 * import { bitField } from "./self_describing.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const features = bitField(3, { BARRIER: 0, FUA: 9 });
 * assertEquals(features.half, 2);
 * ```
 */
export function bitField<B extends BitNumbers>(
  type: number,
  bits: B,
  about = "Feature bits, acknowledged one by one",
): BitField<B> {
  checkType(type);
  const limit = Math.floor(LENGTH_MAX / 2) * 8;
  const seen = new Map<number, string>();
  for (const [name, bit] of Object.entries(bits)) {
    if (!Number.isInteger(bit) || bit < 0 || bit >= limit) {
      throw new RangeError(
        `Cannot declare bit ${name} as number ${bit}: expected an integer from 0 to ${limit - 1}`,
      );
    }
    if (seen.has(bit)) {
      throw new RangeError(`Cannot declare bit ${name} as number ${bit}: that is ${seen.get(bit)}`);
    }
    seen.set(bit, name);
  }
  const half = (Math.max(0, ...seen.keys()) >> 3) + 1;
  return { kind: "bits", type, bits, half, about };
}

/**
 * Declares the status byte, which shows the driver's progress in bits of {@linkcode CONFIG_STATUS}.
 *
 * @throws {RangeError} if the type is not an integer from 1 to 0x7e
 */
export function statusField(type: number, about = "How far the driver has come"): StatusField {
  checkType(type);
  return { kind: "status", type, about };
}

interface Entry {
  readonly name: string;
  readonly entry: SelfDescribingField;
  /** Offset of the data: the type is 2 bytes before it, the length 1. */
  readonly offset: number;
  readonly size: number;
}

function dataSize(entry: SelfDescribingField): number {
  if (entry.kind === "bits") return entry.half * 2;
  return entry.kind === "status" ? 1 : (entry.field as Field).size;
}

function flattenEntry({ name, entry, offset, size }: Entry): ConfigField[] {
  const mark: ConfigMark = { type: entry.type, offset: offset - 2 };
  if (entry.kind === "field") {
    return flatten(name, entry.field as Field, offset).map((field) => ({ ...field, mark }));
  }
  const { kind: type, about } = entry;
  const bits = entry.kind === "bits" && { bits: entry.bits as BitNumbers };
  return [{ name, offset, size, type, access: "rw", about, mark, ...bits }];
}

function entryBytes({ name: owner, entry, offset }: Entry, flat: ConfigField[]): ConfigByte[] {
  const header: ConfigByte[] = [{ rule: "mark", owner }, { rule: "fixed", owner }];
  if (entry.kind === "field") return [...header, ...fieldBytes(flat)];
  if (entry.kind === "status") return [...header, { rule: "status", owner }];
  const offered = Array.from({ length: entry.half }, (_, i) => offset + i);
  return [
    ...header,
    ...offered.map((): ConfigByte => ({ rule: "ro", owner })),
    ...offered.map((mirror): ConfigByte => ({ rule: "ack", owner, mirror })),
  ];
}

function bitsView(
  name: string,
  { bits, half }: BitField<BitNumbers>,
  data: DataView,
  offset: number,
): BitsView {
  function number(bit: string): number {
    if (Object.hasOwn(bits, bit)) return bits[bit];
    throw new TypeError(`Config field ${name} has no bit ${bit}`);
  }
  const acknowledged = (bit: string) => hasBit(data, offset + half, number(bit));
  return Object.freeze({
    offered: (bit: string) => hasBit(data, offset, number(bit)),
    acknowledged,
    offer(bit: string, offered = true) {
      if (!offered && acknowledged(bit)) {
        throw new RangeError(
          `Cannot take back bit ${bit} of config field ${name}: the driver has acknowledged it`,
        );
      }
      const n = number(bit);
      const at = offset + (n >> 3);
      const others = data.getUint8(at) & ~(1 << (n & 7));
      data.setUint8(at, offered ? others | (1 << (n & 7)) : others);
    },
  });
}

function offerOnly(view: BitsView, bits: BitNumbers, offered: OfferedBits<string>) {
  const names: readonly string[] = Array.isArray(offered)
    ? offered
    : Object.entries(offered).filter(([, isOffered]) => isOffered).map(([name]) => name);
  for (const name of new Set([...names, ...Object.keys(bits)])) {
    view.offer(name, names.includes(name));
  }
}

/**
 * Lays entries out in a row, each with its type and length, and ends them with type 0.
 *
 * @throws {TypeError} if an entry's name is not an identifier
 * @throws {RangeError} if there are two status bytes, or the whole needs more than 256 bytes
 *
 * @example Usage
 * ```ts
 * import { bitField, field, selfDescribing, statusField } from "./self_describing.ts";
 * import { ConfigSpace } from "./space.ts";
 * import { u16 } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const layout = selfDescribing({
 *   limit: field(5, u16("Degrees")),
 *   features: bitField(6, { ALARM: 0 }),
 *   status: statusField(1),
 * });
 * const space = new ConfigSpace(layout);
 * space.view.limit = 300;
 * assertEquals(
 *   [...space.bytes],
 *   [5, 2, 44, 1, 6, 2, 1, 0, 1, 1, 0, 0],
 * );
 *
 * space.write(0, Uint8Array.of(5 | 0x80)); // the driver takes `limit`
 * space.write(7, Uint8Array.of(1)); // and acknowledges ALARM
 * assertEquals(space.view.features.acknowledged("ALARM"), true);
 * assertEquals(space.observations[0].used, true);
 * ```
 */
export function selfDescribing<E extends SelfDescribingFields>(
  entries: E,
): SelfDescribingLayout<E> {
  const laid = new Map<string, Entry>();
  const flat: ConfigField[] = [];
  const bytes: ConfigByte[] = [];
  for (const [name, entry] of Object.entries(entries)) {
    struct({ [name]: { size: 1 } as Field }, ""); // the names' rule
    if (entry.kind === "status" && flat.some(({ type }) => type === "status")) {
      throw new RangeError(`Cannot declare ${name} as a second status byte`);
    }
    const at: Entry = { name, entry, offset: bytes.length + 2, size: dataSize(entry) };
    const fields = flattenEntry(at);
    laid.set(name, at);
    flat.push(...fields);
    bytes.push(...entryBytes(at, fields));
  }
  bytes.push({ rule: "fixed" }); // the end: a type of 0
  const size = bytes.length;
  checkSize(size);

  return {
    kind: "self-describing",
    size,
    fields: flat,
    bytes,
    view(buffer) {
      const data = dataView(buffer, size);
      const view = {};
      for (const { name, entry, offset } of laid.values()) {
        if (entry.kind === "field") {
          define(view, name, access(name, entry.field as Field, data, offset));
        } else if (entry.kind === "bits") {
          const bits = bitsView(name, entry as BitField<BitNumbers>, data, offset);
          define(view, name, { get: () => bits });
        } else {
          define(view, name, { get: () => data.getUint8(offset) });
        }
      }
      return Object.freeze(view) as SelfDescribingView<E>;
    },
    assign(target, values) {
      const view = targetView(this, target);
      for (const [name, value] of Object.entries(values)) {
        const entry = laid.get(name)?.entry;
        if (entry?.kind === "bits") {
          if (value === undefined) continue;
          const bits = entry.bits as BitNumbers;
          offerOnly(view[name] as BitsView, bits, value as OfferedBits<string>);
        } else if (entry?.kind === "status") {
          throw new TypeError(`Cannot set config field ${name}: the status is the driver's`);
        } else {
          assignField(view, name, entry?.field as Field | undefined, value);
        }
      }
    },
    initialise(buffer) {
      const data = dataView(buffer, size);
      for (const { name, entry, offset, size } of laid.values()) {
        data.setUint8(offset - 2, entry.type);
        data.setUint8(offset - 1, size);
        if (entry.kind !== "bits") continue;
        const { offer } = bitsView(name, entry as BitField<BitNumbers>, data, offset);
        for (const bit of Object.keys(entry.bits as BitNumbers)) offer(bit);
      }
    },
  };
}
