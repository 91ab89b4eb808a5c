/**
 * Typed accessors over the bytes of a config space. Internal to the layouts.
 *
 * @module
 */

import type { Field, Fields, ScalarType } from "./fields.ts";

/** How one property of a view is read and, if it is one value, set. */
export interface ViewAccess {
  /** Reads the field. */
  get(): unknown;
  /** Sets the field. */
  set?(value: never): void;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

const NUMBER_MAX = { u8: 0xff, u16: 0xffff, u32: 0xffffffff };
const U64_MAX = 0xffff_ffff_ffff_ffffn;

function checkNumber(name: string, type: "u8" | "u16" | "u32", value: number) {
  const max = NUMBER_MAX[type];
  // Not Number.isInteger alone: DataView would wrap 256 to 0 without a word
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw new RangeError(
      `Cannot set config field ${name} to ${value}: expected an integer from 0 to ${max}`,
    );
  }
}

// One pair of closures per field, made with the view: reading a number then costs one call and one
// load, and allocates nothing (a u64 is a bigint)
function scalarAccess(name: string, type: ScalarType, data: DataView, offset: number): ViewAccess {
  switch (type) {
    case "u8":
      return {
        get: () => data.getUint8(offset),
        set(value: number) {
          checkNumber(name, type, value);
          data.setUint8(offset, value);
        },
      };
    case "u16":
      return {
        get: () => data.getUint16(offset, true),
        set(value: number) {
          checkNumber(name, type, value);
          data.setUint16(offset, value, true);
        },
      };
    case "u32":
      return {
        get: () => data.getUint32(offset, true),
        set(value: number) {
          checkNumber(name, type, value);
          data.setUint32(offset, value, true);
        },
      };
    case "u64":
      return {
        get: () => data.getBigUint64(offset, true),
        set(value: bigint) {
          if (typeof value !== "bigint" || value < 0n || value > U64_MAX) {
            throw new RangeError(
              `Cannot set config field ${name} to ${value}: expected a bigint from 0n to ${U64_MAX}n`,
            );
          }
          data.setBigUint64(offset, value, true);
        },
      };
  }
}

function fill(name: string, to: Uint8Array, from: ArrayLike<number>): void {
  if (from.length > to.length) {
    throw new RangeError(
      `Cannot set config field ${name} to ${from.length} bytes: it holds ${to.length}`,
    );
  }
  for (let i = 0; i < from.length; i++) {
    checkNumber(`${name}[${i}]`, "u8", from[i]);
  }
  to.set(from);
  to.fill(0, from.length);
}

function access(name: string, field: Field, data: DataView, offset: number): ViewAccess {
  if (field.kind === "scalar") {
    return scalarAccess(name, field.type, data, offset);
  }
  if (field.kind === "struct") {
    const view = fieldsView(field.fields as Fields, data, offset, `${name}.`);
    return { get: () => view };
  }
  if (field.kind === "array") {
    const view = arrayView(name, field.element as Field, field.count, data, offset);
    return { get: () => view };
  }
  const raw = new Uint8Array(data.buffer, data.byteOffset + offset, field.size);
  if (field.kind === "bytes") {
    return { get: () => raw, set: (value: ArrayLike<number>) => fill(name, raw, value) };
  }
  return {
    get() {
      const end = raw.indexOf(0);
      // A copy: the decoder refuses shared memory
      return decoder.decode(raw.slice(0, end === -1 ? raw.length : end));
    },
    set: (value: string) => fill(name, raw, encoder.encode(value)),
  };
}

function arrayView(
  name: string,
  element: Field,
  count: number,
  data: DataView,
  offset: number,
): object {
  const view = {};
  for (let i = 0; i < count; i++) {
    const at = offset + i * element.size;
    define(view, `${i}`, access(`${name}[${i}]`, element, data, at));
  }
  Object.defineProperties(view, {
    length: { value: count },
    [Symbol.iterator]: { value: Array.prototype[Symbol.iterator] },
  });
  return Object.freeze(view);
}

/** Adds an enumerable accessor to a view under construction. */
export function define(view: object, name: string, access: ViewAccess): void {
  Object.defineProperty(view, name, { ...access, enumerable: true });
}

/** Adds the accessor of one declared field to a view under construction. */
export function defineField(
  view: object,
  name: string,
  field: Field,
  data: DataView,
  offset: number,
  prefix = "",
): void {
  define(view, name, access(`${prefix}${name}`, field, data, offset));
}

function fieldsView(fields: Fields, data: DataView, offset: number, prefix: string): object {
  const view = {};
  for (const [name, field] of Object.entries(fields)) {
    defineField(view, name, field, data, offset, prefix);
    offset += field.size;
  }
  return Object.freeze(view);
}

/**
 * A `DataView` of the first `size` bytes of a buffer.
 *
 * @throws {RangeError} if the buffer is smaller
 */
export function dataView(buffer: ArrayBufferLike, size: number): DataView {
  if (buffer.byteLength < size) {
    throw new RangeError(
      `Cannot view a config space of ${size} bytes in a buffer of ${buffer.byteLength}`,
    );
  }
  return new DataView(buffer, 0, size);
}

/** True for the memory of a config space, false for a view of it. */
export function isBuffer(target: unknown): target is ArrayBufferLike {
  return target instanceof ArrayBuffer || target instanceof SharedArrayBuffer;
}

/**
 * Sets one field of a view, nested ones part by part. An `undefined` value leaves the field as it
 * is.
 *
 * @throws {TypeError} if a part is not declared
 * @throws {RangeError} if a value does not fit its field
 */
export function assignField(
  view: Record<string, unknown>,
  key: string,
  field: Field | undefined,
  value: unknown,
  name: string = key,
): void {
  if (field === undefined) {
    throw new TypeError(`Cannot set config field ${name}: it is not declared`);
  }
  if (value === undefined) return;
  if (field.kind === "struct") {
    const inner = view[key] as Record<string, unknown>;
    for (const [part, partValue] of Object.entries(value as object)) {
      const fields = field.fields as Fields;
      const declared = Object.hasOwn(fields, part) ? fields[part] : undefined;
      assignField(inner, part, declared, partValue, `${name}.${part}`);
    }
  } else if (field.kind === "array") {
    const inner = view[key] as Record<string, unknown>;
    const values = value as ArrayLike<unknown>;
    if (values.length > field.count) {
      throw new RangeError(
        `Cannot set config field ${name} to ${values.length} elements: it holds ${field.count}`,
      );
    }
    const element = field.element as Field;
    for (let i = 0; i < values.length; i++) {
      assignField(inner, `${i}`, element, values[i], `${name}[${i}]`);
    }
  } else {
    view[key] = value;
  }
}
