/**
 * How declared fields lie in config space: what every layout offers, and the packed layout of the
 * virtio standard's structs.
 *
 * @module
 */

import {
  CONFIG_SIZE_MAX,
  type ConfigFieldAccess,
  type ConfigFieldOptions,
  type Field,
  type Fields,
  type FieldsValues,
  type FieldsView,
  type ScalarType,
  struct,
} from "./fields.ts";
import { assignField, dataView, defineField, isBuffer } from "./view.ts";

/** A field's type as it is written for people. */
export type ConfigFieldType =
  | ScalarType
  | `${ScalarType}[${number}]`
  | "bytes"
  | "text"
  | "bits"
  | "status";

/** Where the mark of a self-describing field is. */
export interface ConfigMark {
  /** The field's type number, 1 to 0x7e. Several fields may have the same. */
  readonly type: number;
  /** Offset of the type byte, whose bit 0x80 is the mark. */
  readonly offset: number;
}

/** One field of a layout, flat: nested names are joined by dots. */
export interface ConfigField {
  /** Its name, as `capacity`, `geometry.heads` or `sensors[2].limit`. */
  readonly name: string;
  /** Offset of its data in config space, in bytes. */
  readonly offset: number;
  /** Size of its data, in bytes. */
  readonly size: number;
  /** Its type. */
  readonly type: ConfigFieldType;
  /** What the driver may do with it. */
  readonly access: ConfigFieldAccess;
  /** The feature bit that makes it meaningful, if any. */
  readonly feature?: string;
  /** What it means. */
  readonly about: string;
  /** What the group that it belongs to means, if any. */
  readonly group?: string;
  /** Its mark, in the self-describing layout. */
  readonly mark?: ConfigMark;
  /** The names and numbers of its bits, if it is a bit field. */
  readonly bits?: Readonly<Record<string, number>>;
}

/**
 * What a driver may do with one byte:
 *
 * - `fixed`: nothing, it is part of the structure
 * - `ro`: read it
 * - `rw`: write it
 * - `mark`: set bit 0x80
 * - `ack`: set those bits that are set in the byte at `mirror`
 * - `status`: set status bits, or write 0, which resets the space
 */
export type ConfigByteRule = "fixed" | "ro" | "rw" | "mark" | "ack" | "status";

/** One byte of a layout. */
export interface ConfigByte {
  /** What the driver may do with it. */
  readonly rule: ConfigByteRule;
  /**
   * The field that it belongs to: its flat name, or for a mark and a length the name that was
   * declared. The end of the space belongs to none.
   */
  readonly owner?: string;
  /** For `ack`: the offset of the byte with the bits that are offered. */
  readonly mirror?: number;
}

/** What every layout of a config space offers. */
export interface ConfigLayout<View = object, Values = object> {
  /** Which layout it is. */
  readonly kind: "packed" | "self-describing";
  /** Size of the config space, in bytes, at most 256. */
  readonly size: number;
  /** All fields, flat, in the order of config space. */
  readonly fields: readonly ConfigField[];
  /** The rule of every byte. */
  readonly bytes: readonly ConfigByte[];

  /**
   * Typed accessors over a config space. They read and write the buffer at once; it stays the
   * caller's. Make a view once per thread, not per access. Reading a number allocates nothing (a
   * u64 is a bigint). A field of more than one byte that another thread writes meanwhile may be
   * seen half new.
   *
   * @throws {RangeError} if the buffer is smaller than the layout
   */
  view(buffer: ArrayBufferLike): View;

  /**
   * Sets the given fields, by the device's own right: `access` binds only the driver. Parts that
   * are not given stay as they are; bytes and texts that are shorter than their field are filled up
   * with 0. At the first value that does not fit it stops.
   *
   * @throws {TypeError} if a field is not declared
   * @throws {RangeError} if a value does not fit its field
   */
  assign(target: View | ArrayBufferLike, values: Values): void;

  /**
   * Writes what a space starts with into zeroed memory: nothing, or the types and lengths of the
   * self-describing layout.
   */
  initialise(buffer: ArrayBufferLike): void;
}

/** The typed accessors of a layout. */
export type ConfigView<L> = L extends { view(buffer: never): infer V } ? V
  : never;

/** The values that a layout may be given: any part of it. */
export type ConfigValues<L> = L extends { assign(target: never, values: infer V): void } ? V
  : never;

/** The packed layout of declared fields. */
export type PackedLayout<F extends Fields> = ConfigLayout<FieldsView<F>, FieldsValues<F>>;

/**
 * The flat fields that one declared field stands for. An array of numbers is one flat field, any
 * other array one per element.
 */
export function flatten(
  name: string,
  field: Field,
  offset: number,
  outer: ConfigFieldOptions = {},
  group?: string,
): ConfigField[] {
  const options = { ...outer, ...field.options };
  if (field.kind === "struct") {
    const flat: ConfigField[] = [];
    for (const [part, inner] of Object.entries(field.fields as Fields)) {
      flat.push(
        ...flatten(`${name}.${part}`, inner, offset, options, field.about),
      );
      offset += inner.size;
    }
    return flat;
  }
  let type: ConfigFieldType;
  if (field.kind === "array") {
    const element = field.element as Field;
    const inner = { ...options, ...element.options };
    if (element.kind !== "scalar") {
      return Array.from({ length: field.count }, (_, i) =>
        flatten(
          `${name}[${i}]`,
          element,
          offset + i * element.size,
          inner,
          field.about,
        )).flat();
    }
    Object.assign(options, inner);
    type = `${element.type}[${field.count}]`;
  } else {
    type = field.kind === "scalar" ? field.type : field.kind;
  }
  return [{
    name,
    offset,
    size: field.size,
    type,
    access: options.access ?? "ro",
    ...(options.feature !== undefined && { feature: options.feature }),
    about: field.about,
    ...(group !== undefined && { group }),
  }];
}

/** The rules of the bytes of flat fields. */
export function fieldBytes(fields: readonly ConfigField[]): ConfigByte[] {
  return fields.flatMap(({ name, size, access }) =>
    new Array<ConfigByte>(size).fill({ rule: access, owner: name })
  );
}

/**
 * Refuses a layout that no front-end could carry.
 *
 * @throws {RangeError} if the size is above 256 bytes
 */
export function checkSize(size: number): void {
  if (size > CONFIG_SIZE_MAX) {
    throw new RangeError(
      `Cannot lay out a config space of ${size} bytes: at most ${CONFIG_SIZE_MAX} can be carried`,
    );
  }
}

/**
 * Lays fields out one after the other, little-endian and without padding, as the virtio standard's
 * structs are (virtio 1.3, 2.5 Device Configuration Space). Padding that a struct of the standard
 * has is declared as a field.
 *
 * @throws {TypeError} if a field's name is not an identifier
 * @throws {RangeError} if the fields need more than 256 bytes
 *
 * @example Usage
 * ```ts
 * import { packed } from "./layout.ts";
 * import { struct, u16, u64, u8 } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const layout = packed({
 *   capacity: u64("Capacity in sectors of 512 bytes"),
 *   geometry: struct({
 *     cylinders: u16("Cylinders"),
 *     heads: u8("Heads"),
 *   }, "Legacy geometry", { feature: "GEOMETRY" }),
 * });
 * assertEquals(layout.size, 11);
 * assertEquals(layout.fields[2].name, "geometry.heads");
 * assertEquals(layout.fields[2].offset, 10);
 *
 * const view = layout.view(new ArrayBuffer(layout.size));
 * layout.assign(view, { capacity: 8n, geometry: { heads: 2 } });
 * view.geometry.cylinders = 7;
 * assertEquals(view.capacity, 8n);
 * assertEquals(view.geometry.heads, 2);
 * ```
 */
export function packed<F extends Fields>(fields: F): PackedLayout<F> {
  const { size } = struct(fields, "");
  checkSize(size);

  const flat: ConfigField[] = [];
  const offsets = new Map<string, number>();
  let offset = 0;
  for (const [name, field] of Object.entries(fields)) {
    offsets.set(name, offset);
    flat.push(...flatten(name, field, offset));
    offset += field.size;
  }

  return {
    kind: "packed",
    size,
    fields: flat,
    bytes: fieldBytes(flat),
    view(buffer) {
      const data = dataView(buffer, size);
      const view = {};
      for (const [name, offset] of offsets) {
        defineField(view, name, fields[name], data, offset);
      }
      return Object.freeze(view) as FieldsView<F>;
    },
    assign(target, values) {
      const view = isBuffer(target) ? this.view(target) : target;
      for (const [name, value] of Object.entries(values)) {
        const field = offsets.has(name) ? fields[name] : undefined;
        assignField(view as Record<string, unknown>, name, field, value);
      }
    },
    initialise() {},
  };
}
