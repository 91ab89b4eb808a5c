/**
 * Declarations of config fields, and the types of their values.
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
   * The name of the feature bit that makes the field meaningful. The field is laid out in any case.
   * Members of a struct inherit it.
   */
  feature?: string;
  /**
   * What the driver may do with the field. Members of a struct inherit it.
   *
   * @default {"ro"}
   */
  access?: ConfigFieldAccess;
}

/** The common part of declared fields. */
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
  /** The kind of field. */
  readonly kind: "scalar";
  /** The number's type. */
  readonly type: T;
}

/** A declared run of bytes. */
export interface BytesField extends FieldBase {
  /** The kind of field. */
  readonly kind: "bytes";
}

/** A declared text: UTF-8, padded with NUL, which may have none at its end. */
export interface TextField extends FieldBase {
  /** The kind of field. */
  readonly kind: "text";
}

/** A declared array of equal fields. */
export interface ArrayField<E = unknown> extends FieldBase {
  /** The kind of field. */
  readonly kind: "array";
  /** The declaration of each element. */
  readonly element: E;
  /** The number of elements. */
  readonly count: number;
}

/** A declared group of fields. */
export interface StructField<F = unknown> extends FieldBase {
  /** The kind of field. */
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

/** Fields that are read and set as one value. */
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
  if (Number.isInteger(length) && length >= 1 && length <= CONFIG_SIZE_MAX) return;
  throw new RangeError(
    `Cannot declare ${what} of ${length}: expected an integer from 1 to ${CONFIG_SIZE_MAX}`,
  );
}

/** Declares a number of 8 bits. */
export function u8(about: string, options?: ConfigFieldOptions): ScalarField<"u8"> {
  return scalar("u8", 1, about, options);
}

/** Declares a little-endian number of 16 bits. */
export function u16(about: string, options?: ConfigFieldOptions): ScalarField<"u16"> {
  return scalar("u16", 2, about, options);
}

/** Declares a little-endian number of 32 bits. */
export function u32(about: string, options?: ConfigFieldOptions): ScalarField<"u32"> {
  return scalar("u32", 4, about, options);
}

/** Declares a little-endian number of 64 bits: a bigint. */
export function u64(about: string, options?: ConfigFieldOptions): ScalarField<"u64"> {
  return scalar("u64", 8, about, options);
}

/**
 * Declares a run of `length` bytes.
 *
 * @throws {RangeError} if the length is not an integer from 1 to 256
 */
export function bytes(length: number, about: string, options: ConfigFieldOptions = {}): BytesField {
  checkLength("bytes", length);
  return { kind: "bytes", size: length, about, options };
}

/**
 * Declares a text of at most `length` bytes of UTF-8, padded with NUL. A text that fills the field
 * has no NUL at its end.
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
 * Declares `count` equal fields in a row. An element's own options override the array's.
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
 * Declares a group of fields, without padding. A member's own options override the group's.
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
    // JavaScript moves keys that are numbers to the front; a dot separates nested names
    if (!/^[A-Za-z_$][\w$]*$/.test(name)) {
      throw new TypeError(
        `Cannot declare the config field ${JSON.stringify(name)}: expected an identifier`,
      );
    }
    size += fields[name].size;
  }
  return { kind: "struct", fields, size, about, options };
}
