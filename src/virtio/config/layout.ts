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
import { assignFields, dataView, fieldsView, targetView } from "./view.ts";

/** A field's type as people read it. */
export type ConfigFieldType =
  | ScalarType
  | `${ScalarType}[${number}]`
  | "bytes"
  | "text"
  | "bits"
  | "status";

/** The mark of a self-describing field. */
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
  /** Its meaning. */
  readonly about: string;
  /** The meaning of the group that it belongs to, if any. */
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
   * The field that it belongs to: the flat name, or for a mark and a length the declared one. The
   * end of the space belongs to none.
   */
  readonly owner?: string;
  /** For `ack`: the offset of the byte with the bits that are offered. */
  readonly mirror?: number;
}

/** A layout of config space. */
export interface ConfigLayout<View = object, Values = object> {
  /** The kind of layout. */
  readonly kind: "packed" | "self-describing";
  /** Size of the config space, in bytes, at most 256. */
  readonly size: number;
  /** All fields, flat, in the order of config space. */
  readonly fields: readonly ConfigField[];
  /** The rule of every byte. */
  readonly bytes: readonly ConfigByte[];

  /**
   * Makes typed accessors over a config space, which read and write the buffer directly; it stays
   * the caller's. Make a view once per thread, not per access. Reading a number allocates nothing
   * (a u64 is a bigint). A field of several bytes that another thread is writing may read half new.
   *
   * @throws {RangeError} if the buffer is smaller than the layout
   */
  view(buffer: ArrayBufferLike): View;

  /**
   * Sets the given fields for the device: `access` restricts only the driver. Other fields keep
   * their values; short bytes and texts are padded with 0. Stops at the first value that does not
   * fit.
   *
   * @throws {TypeError} if a field is not declared
   * @throws {RangeError} if a value does not fit its field
   */
  assign(target: View | ArrayBufferLike, values: Values): void;

  /**
   * Writes the initial content into zeroed memory: nothing, or the types and lengths of the
   * self-describing layout.
   */
  initialise(buffer: ArrayBufferLike): void;
}

/** The typed accessors of a layout. */
export type ConfigView<L> = L extends { view(buffer: never): infer V } ? V : never;

/** The values that a layout may be given: any part of it. */
export type ConfigValues<L> = L extends { assign(target: never, values: infer V): void } ? V
  : never;

/** The packed layout of declared fields. */
export type PackedLayout<F extends Fields> = ConfigLayout<FieldsView<F>, FieldsValues<F>>;

/**
 * The flat fields that one declared field stands for: the members of a struct, one for an array of
 * numbers, one per element for any other array.
 */
export function flatten(
  name: string,
  field: Field,
  offset: number,
  outer: ConfigFieldOptions = {},
  group?: string,
): ConfigField[] {
  const options = { ...outer, ...field.options };
  const { size, about } = field;
  if (field.kind === "struct") {
    return flattenAll(field.fields as Fields, offset, {
      prefix: `${name}.`,
      options,
      group: about,
    });
  }
  let type: ConfigFieldType;
  if (field.kind === "array") {
    const element = field.element as Field;
    Object.assign(options, element.options);
    if (element.kind !== "scalar") {
      return Array.from(
        { length: field.count },
        (_, i) => flatten(`${name}[${i}]`, element, offset + i * element.size, options, about),
      ).flat();
    }
    type = `${element.type}[${field.count}]`;
  } else {
    type = field.kind === "scalar" ? field.type : field.kind;
  }
  const { access = "ro", feature } = options;
  return [{
    ...{ name, offset, size, type, access, about },
    ...(feature !== undefined && { feature }),
    ...(group !== undefined && { group }),
  }];
}

function flattenAll(
  fields: Fields,
  offset: number,
  { prefix = "", options, group }: {
    prefix?: string;
    options?: ConfigFieldOptions;
    group?: string;
  },
): ConfigField[] {
  return Object.entries(fields).flatMap(([name, field]) => {
    const flat = flatten(`${prefix}${name}`, field, offset, options, group);
    offset += field.size;
    return flat;
  });
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
 * Lays fields out in a row, little-endian and without padding, like the virtio standard's structs
 * (virtio 1.3, 2.5 Device Configuration Space). Declare padding of the standard as a field.
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
  const flat = flattenAll(fields, 0, {});
  return {
    kind: "packed",
    size,
    fields: flat,
    bytes: fieldBytes(flat),
    view: (buffer) => fieldsView(fields, dataView(buffer, size), 0) as FieldsView<F>,
    assign(target, values) {
      assignFields(targetView(this, target), fields, values);
    },
    initialise() {},
  };
}
