/**
 * Fixed-size structures on the wire, declared once: a field is a place for one value, a structure
 * is a list of named fields.
 *
 * The protocol uses the machine's native byte order. That is little-endian on x86-64 and aarch64,
 * the machines this project runs on, so it is fixed here.
 *
 * @module
 */

/** A place for one value of type `T`. */
export interface Field<T> {
  /** Size in bytes. */
  readonly bytes: number;
  /** Reads the value at a byte offset. */
  get(view: DataView, offset: number): T;
  /** Writes the value at a byte offset. */
  set(view: DataView, offset: number, value: T): void;
}

const LITTLE_ENDIAN = true;

/** Checks that a value fits, for DataView would cut it silently. */
function fits<T extends number | bigint>(value: T, bits: number): T {
  const fine = typeof value === "bigint"
    ? BigInt.asUintN(bits, value) === value
    : Number.isInteger(value) && value >= 0 && value < 2 ** bits;
  if (!fine) {
    throw new RangeError(`Expected an unsigned ${bits}-bit value, got ${value}`);
  }
  return value;
}

/** An unsigned 8-bit integer. */
export const u8: Field<number> = {
  bytes: 1,
  get: (view, offset) => view.getUint8(offset),
  set: (view, offset, value) => view.setUint8(offset, fits(value, 8)),
};

/** An unsigned 16-bit integer. */
export const u16: Field<number> = {
  bytes: 2,
  get: (view, offset) => view.getUint16(offset, LITTLE_ENDIAN),
  set: (view, offset, value) => view.setUint16(offset, fits(value, 16), LITTLE_ENDIAN),
};

/** An unsigned 32-bit integer. */
export const u32: Field<number> = {
  bytes: 4,
  get: (view, offset) => view.getUint32(offset, LITTLE_ENDIAN),
  set: (view, offset, value) => view.setUint32(offset, fits(value, 32), LITTLE_ENDIAN),
};

/** An unsigned 64-bit integer. */
export const u64: Field<bigint> = {
  bytes: 8,
  get: (view, offset) => view.getBigUint64(offset, LITTLE_ENDIAN),
  set: (view, offset, value) => view.setBigUint64(offset, fits(value, 64), LITTLE_ENDIAN),
};

/** A signed 64-bit integer. */
export const i64: Field<bigint> = {
  bytes: 8,
  get: (view, offset) => view.getBigInt64(offset, LITTLE_ENDIAN),
  set: (view, offset, value) => {
    if (BigInt.asIntN(64, value) !== value) {
      throw new RangeError(`Expected a signed 64-bit value, got ${value}`);
    }
    view.setBigInt64(offset, value, LITTLE_ENDIAN);
  },
};

/** So many bytes, copied in and out. */
export function byteArray(bytes: number): Field<Uint8Array> {
  return {
    bytes,
    get: (view, offset) => bytesOf(view).slice(offset, offset + bytes),
    set: (view, offset, value) => {
      if (value.length !== bytes) {
        throw new RangeError(`Expected ${bytes} bytes, got ${value.length}`);
      }
      bytesOf(view).set(value, offset);
    },
  };
}

/** A field with padding around it, which is written as 0 and never looked at. */
export function padded<T>(
  field: Field<T>,
  padding: { before?: number; after?: number },
): Field<T> {
  const { before = 0, after = 0 } = padding;
  return {
    bytes: before + field.bytes + after,
    get: (view, offset) => field.get(view, offset + before),
    set: (view, offset, value) => field.set(view, offset + before, value),
  };
}

/** Named fields, one after the other in the order they are written here. */
export function struct<T extends object>(
  fields: { readonly [K in keyof T]: Field<T[K]> },
): Field<T> {
  const names = Object.keys(fields) as (keyof T)[];
  return {
    bytes: names.reduce((sum, name) => sum + fields[name].bytes, 0),
    get: (view, offset) => {
      const value = {} as T;
      for (const name of names) {
        value[name] = fields[name].get(view, offset);
        offset += fields[name].bytes;
      }
      return value;
    },
    set: (view, offset, value) => {
      for (const name of names) {
        fields[name].set(view, offset, value[name]);
        offset += fields[name].bytes;
      }
    },
  };
}

/** A view of exactly these bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The bytes under a view. */
function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/** Throws that a payload's content is wrong. */
export type Refuse = (message: string) => never;

/** How a kind of payload is written and read. */
export interface PayloadCodec<T> {
  encode(value: T): Uint8Array;
  decode(bytes: Uint8Array, refuse: Refuse): T;
}

/** Refuses a payload that does not have one of these sizes. */
export function checkSize(bytes: Uint8Array, sizes: readonly number[], refuse: Refuse): void {
  if (sizes.includes(bytes.length)) return;
  refuse(`Expected ${sizes.join(" or ")} payload bytes, got ${bytes.length}`);
}

/**
 * A payload of fixed layout. The first size is written, the others are accepted as well: bytes
 * beyond the field are padding, missing ones read as 0.
 */
export function fixed<T>(
  field: Field<T>,
  sizes: readonly number[],
  check?: (value: T, refuse: Refuse) => void,
): PayloadCodec<T> {
  return {
    encode: (value) => {
      const bytes = new Uint8Array(sizes[0]);
      field.set(viewOf(bytes), 0, value);
      return bytes;
    },
    decode: (bytes, refuse) => {
      checkSize(bytes, sizes, refuse);
      let whole = bytes;
      if (bytes.length < field.bytes) (whole = new Uint8Array(field.bytes)).set(bytes);
      const value = field.get(viewOf(whole), 0);
      check?.(value, refuse);
      return value;
    },
  };
}

/** A payload whose fields on the wire are not those of its value. */
export function converted<W, T>(
  codec: PayloadCodec<W>,
  from: (wire: W, refuse: Refuse) => T,
  to: (value: T) => W,
): PayloadCodec<T> {
  return {
    encode: (value) => codec.encode(to(value)),
    decode: (bytes, refuse) => from(codec.decode(bytes, refuse), refuse),
  };
}
