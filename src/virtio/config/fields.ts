/**
 * The fields that a device's config space is declared with, and the types of the values that follow
 * from a declaration.
 *
 * ```ts
 * import { packed } from "./layout.ts";
 * import { struct, u16, u64, u8 } from "./fields.ts";
 *
 * packed({
 *   capacity: u64("Capacity in sectors of 512 bytes"),
 *   geometry: struct({
 *     cylinders: u16("Cylinders"),
 *     heads: u8("Heads"),
 *     sectors: u8("Sectors per track"),
 *   }, "Legacy geometry", { feature: "GEOMETRY" }),
 *   writeback: u8("1: write-back cache", { feature: "CONFIG_WCE", access: "rw" }),
 * });
 * ```
 *
 * @module
 */

/**
 * The largest config space that a vhost-user front-end carries, in bytes (QEMU:
 * `VHOST_USER_MAX_CONFIG_SIZE`).
 */
export const CONFIG_SIZE_MAX = 256;

/** A number of config space, little-endian (virtio 1.3, 1.4 and 2.5). */
export type ScalarType = "u8" | "u16" | "u32" | "u64";

/** What the *driver* may do with a field: read it, or write it as well. */
export type ConfigFieldAccess = "ro" | "rw";

/** What a field's declaration may say beside its type and meaning. */
export interface ConfigFieldOptions {
  /**
   * The feature bit, by name, that makes the field meaningful. The field is laid out in any case. A
   * struct's feature holds for its members.
   */
  feature?: string;
  /**
   * What the driver may do with the field. A struct's access holds for those of its members that
   * say nothing.
   *
   * @default {"ro"}
   */
  access?: ConfigFieldAccess;
}

/** What all declared fields have in common. */
export interface FieldBase {
  /** Size in config space, in bytes. */
  readonly size: number;
  /** What the field means, in one line, with its unit. */
  readonly about: string;
  /** Feature and access. */
  readonly options: ConfigFieldOptions;
}

/** A declared number. */
export interface ScalarField<T extends ScalarType = ScalarType> extends FieldBase {
  /** Tells the kinds of fields apart. */
  readonly kind: "scalar";
  /** The number's type. */
  readonly type: T;
}

/** A declared run of bytes. */
export interface BytesField extends FieldBase {
  /** Tells the kinds of fields apart. */
  readonly kind: "bytes";
}

/** A declared text: UTF-8, filled up with NUL, not necessarily ended by one. */
export interface TextField extends FieldBase {
  /** Tells the kinds of fields apart. */
  readonly kind: "text";
}

/** A declared array of equal fields. */
export interface ArrayField<E = unknown> extends FieldBase {
  /** Tells the kinds of fields apart. */
  readonly kind: "array";
  /** What each element is. */
  readonly element: E;
  /** The number of elements. */
  readonly count: number;
}

/** A declared group of fields. */
export interface StructField<F = unknown> extends FieldBase {
  /** Tells the kinds of fields apart. */
  readonly kind: "struct";
  /** The members, in the order of config space. */
  readonly fields: F;
}

/** Any declared field. */
export type Field =
  | ScalarField
  | BytesField
  | TextField
  | ArrayField
  | StructField;

/** Declared fields by name, in the order of config space. */
export type Fields = { readonly [name: string]: Field };

/** The fields that are read and set as one value. */
export type ValueField = ScalarField | BytesField | TextField;

/** An array in config space: live, of fixed length. */
export interface ConfigArray<T> extends Iterable<T> {
  /** The number of elements. */
  readonly length: number;
  /** An element, by its index from 0. */
  [index: number]: T;
}

/** What a device sees of one field. */
export type FieldView<F> = F extends ScalarField<infer T> ? T extends "u64" ? bigint : number
  : F extends BytesField ? Uint8Array
  : F extends TextField ? string
  : F extends ArrayField<infer E> ? E extends ValueField ? ConfigArray<FieldView<E>>
    : Readonly<ConfigArray<FieldView<E>>>
  : F extends StructField<infer S> ? FieldsView<S>
  : never;

/** What a device sees of a group of fields. */
export type FieldsView<F> =
  & { [K in keyof F as F[K] extends ValueField ? K : never]: FieldView<F[K]> }
  & {
    readonly [K in keyof F as F[K] extends ValueField ? never : K]: FieldView<F[K]>;
  };

/** What a field may be given. */
export type FieldValue<F> = F extends ScalarField<infer T> ? T extends "u64" ? bigint : number
  : F extends BytesField ? ArrayLike<number>
  : F extends TextField ? string
  : F extends ArrayField<infer E> ? ArrayLike<FieldValue<E>>
  : F extends StructField<infer S> ? FieldsValues<S>
  : never;

/** What a group of fields may be given: any part of it. */
export type FieldsValues<F> = { readonly [K in keyof F]?: FieldValue<F[K]> };

function scalar<T extends ScalarType>(
  type: T,
  size: number,
  about: string,
  options: ConfigFieldOptions = {},
): ScalarField<T> {
  return { kind: "scalar", type, size, about, options };
}

function checkLength(what: string, length: number): void {
  if (!Number.isInteger(length) || length < 1 || length > CONFIG_SIZE_MAX) {
    throw new RangeError(
      `Cannot declare ${what} of ${length}: expected an integer from 1 to ${CONFIG_SIZE_MAX}`,
    );
  }
}

/**
 * A number of 8 bits.
 *
 * @example Usage
 * ```ts
 * import { u8 } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(u8("Heads").size, 1);
 * ```
 */
export function u8(about: string, options?: ConfigFieldOptions): ScalarField<"u8"> {
  return scalar("u8", 1, about, options);
}

/**
 * A little-endian number of 16 bits.
 *
 * @example Usage
 * ```ts
 * import { u16 } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(u16("Cylinders").size, 2);
 * ```
 */
export function u16(about: string, options?: ConfigFieldOptions): ScalarField<"u16"> {
  return scalar("u16", 2, about, options);
}

/**
 * A little-endian number of 32 bits.
 *
 * @example Usage
 * ```ts
 * import { u32 } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(u32("Block size in bytes").size, 4);
 * ```
 */
export function u32(about: string, options?: ConfigFieldOptions): ScalarField<"u32"> {
  return scalar("u32", 4, about, options);
}

/**
 * A little-endian number of 64 bits: a bigint.
 *
 * @example Usage
 * ```ts
 * import { u64 } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(u64("Capacity in sectors of 512 bytes").size, 8);
 * ```
 */
export function u64(about: string, options?: ConfigFieldOptions): ScalarField<"u64"> {
  return scalar("u64", 8, about, options);
}

/**
 * A run of `length` bytes.
 *
 * @throws {RangeError} if the length is not an integer from 1 to 256
 *
 * @example Usage
 * ```ts
 * import { bytes } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(bytes(6, "MAC address", { feature: "MAC" }).size, 6);
 * ```
 */
export function bytes(length: number, about: string, options: ConfigFieldOptions = {}): BytesField {
  checkLength("bytes", length);
  return { kind: "bytes", size: length, about, options };
}

/**
 * A text of at most `length` bytes of UTF-8, filled up with NUL. A text that fills the field has no
 * NUL at its end.
 *
 * @throws {RangeError} if the length is not an integer from 1 to 256
 *
 * @example Usage
 * ```ts
 * import { text } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * // virtio 1.3, 5.11.4 Device configuration layout (file system)
 * assertEquals(text(36, "Name of the file system").size, 36);
 * ```
 */
export function text(length: number, about: string, options: ConfigFieldOptions = {}): TextField {
  checkLength("text", length);
  return { kind: "text", size: length, about, options };
}

/**
 * `count` equal fields, one after the other. An element's own options come before the array's.
 *
 * @throws {RangeError} if the count is not an integer from 1 to 256
 *
 * @example Usage
 * ```ts
 * import { array, u16 } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(array(u16("Degrees"), 3, "One per sensor").size, 6);
 * ```
 */
export function array<E extends Field>(
  element: E,
  count: number,
  about: string,
  options: ConfigFieldOptions = {},
): ArrayField<E> {
  checkLength("an array", count);
  const size = element.size * count;
  return { kind: "array", element, count, size, about, options };
}

/**
 * Fields in a group, without padding between or after them. A member's own options come before the
 * group's.
 *
 * @throws {TypeError} if a member's name is not an identifier
 *
 * @example Usage
 * ```ts
 * import { struct, u16, u8 } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const geometry = struct({
 *   cylinders: u16("Cylinders"),
 *   heads: u8("Heads"),
 *   sectors: u8("Sectors per track"),
 * }, "Legacy geometry", { feature: "GEOMETRY" });
 * assertEquals(geometry.size, 4);
 * ```
 */
export function struct<F extends Fields>(
  fields: F,
  about: string,
  options: ConfigFieldOptions = {},
): StructField<F> {
  let size = 0;
  for (const name of Object.keys(fields)) {
    // A number as a key would not keep its place in the order, and a dot separates the parts of a
    // nested name
    if (!/^[A-Za-z_$][\w$]*$/.test(name)) {
      throw new TypeError(
        `Cannot declare the config field ${JSON.stringify(name)}: expected an identifier`,
      );
    }
    size += fields[name].size;
  }
  return { kind: "struct", fields, size, about, options };
}
