/**
 * Typed accessors over the bytes of a config space. Internal to the layouts.
 *
 * @module
 */

import type { ArrayField, Field, Fields, ScalarType } from "./fields.ts";

/** How one property of a view is read and, if it is one value, set. */
export interface ViewAccess {
  /** Reads the field. */
  get(): unknown;
  /** Sets the field. */
  set?(value: never): void;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

const MAX = { u8: 0xff, u16: 0xffff, u32: 0xffff_ffff, u64: 0xffff_ffff_ffff_ffffn };

/** Returns a value that fits; DataView would wrap 256 to 0 without a word. */
function checked<T extends number | bigint>(name: string, value: T, max: T): T {
  const isBig = typeof max === "bigint";
  const isInteger = isBig ? typeof value === "bigint" : Number.isInteger(value);
  if (isInteger && value >= 0 && value <= max) return value;
  const expected = isBig ? `a bigint from 0n to ${max}n` : `an integer from 0 to ${max}`;
  throw new RangeError(`Cannot set config field ${name} to ${value}: expected ${expected}`);
}

// One pair of closures per field, made with the view: reading a number then costs one call and one
// load, and allocates nothing (a u64 is a bigint)
function scalarAccess(name: string, type: ScalarType, data: DataView, offset: number): ViewAccess {
  switch (type) {
    case "u8":
      return {
        get: () => data.getUint8(offset),
        set: (value: number) => data.setUint8(offset, checked(name, value, MAX.u8)),
      };
    case "u16":
      return {
        get: () => data.getUint16(offset, true),
        set: (value: number) => data.setUint16(offset, checked(name, value, MAX.u16), true),
      };
    case "u32":
      return {
        get: () => data.getUint32(offset, true),
        set: (value: number) => data.setUint32(offset, checked(name, value, MAX.u32), true),
      };
    case "u64":
      return {
        get: () => data.getBigUint64(offset, true),
        set: (value: bigint) => data.setBigUint64(offset, checked(name, value, MAX.u64), true),
      };
  }
}

function fill(name: string, to: Uint8Array, from: ArrayLike<number>): void {
  if (from.length > to.length) {
    throw new RangeError(
      `Cannot set config field ${name} to ${from.length} bytes: it holds ${to.length}`,
    );
  }
  for (let i = 0; i < from.length; i++) checked(`${name}[${i}]`, from[i], MAX.u8);
  to.set(from);
  to.fill(0, from.length);
}

/** The accessor of one declared field at an offset. */
export function access(name: string, field: Field, data: DataView, offset: number): ViewAccess {
  if (field.kind === "scalar") return scalarAccess(name, field.type, data, offset);
  if (field.kind === "struct") {
    const view = fieldsView(field.fields as Fields, data, offset, `${name}.`);
    return { get: () => view };
  }
  if (field.kind === "array") {
    const view = arrayView(name, field as ArrayField<Field>, data, offset);
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
  { element, count }: ArrayField<Field>,
  data: DataView,
  offset: number,
): object {
  const view = {};
  for (let i = 0; i < count; i++) {
    define(view, `${i}`, access(`${name}[${i}]`, element, data, offset + i * element.size));
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

/** The view of declared fields in a row. */
export function fieldsView(fields: Fields, data: DataView, offset: number, prefix = ""): object {
  const view = {};
  for (const [name, field] of Object.entries(fields)) {
    define(view, name, access(`${prefix}${name}`, field, data, offset));
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
  if (buffer.byteLength >= size) return new DataView(buffer, 0, size);
  throw new RangeError(
    `Cannot view a config space of ${size} bytes in a buffer of ${buffer.byteLength}`,
  );
}

/** Whether bit `bit` of the bit field at offset `at` is set. */
export function hasBit(data: DataView, at: number, bit: number): boolean {
  return (data.getUint8(at + (bit >> 3)) & (1 << (bit & 7))) !== 0;
}

/** The view to assign to: the target itself, or one over the memory that it is. */
export function targetView(
  layout: { view(buffer: ArrayBufferLike): unknown },
  target: unknown,
): Record<string, unknown> {
  const isMemory = target instanceof ArrayBuffer || target instanceof SharedArrayBuffer;
  return (isMemory ? layout.view(target) : target) as Record<string, unknown>;
}

/** Sets the given fields of a view, one by one; see {@linkcode assignField}. */
export function assignFields(
  view: Record<string, unknown>,
  fields: Fields,
  values: object,
  prefix = "",
): void {
  for (const [name, value] of Object.entries(values)) {
    const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
    assignField(view, name, field, value, `${prefix}${name}`);
  }
}

/**
 * Sets one field of a view, nested ones part by part. `undefined` leaves the field as it is.
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
  const inner = view[key] as Record<string, unknown>;
  if (field.kind === "struct") {
    assignFields(inner, field.fields as Fields, value as object, `${name}.`);
  } else if (field.kind === "array") {
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
