/**
 * Checks that what another process wrote has the shape that is expected: JSON of a file, a control
 * socket or QEMU.
 *
 * @module
 */

/** The largest number, either sign: that of the latest time that a `Date` has. */
const MAX_NUMBER = 8.64e15;

/** How deep objects and lists may be in each other where the shape is the device's. */
const MAX_DEPTH = 32;

/**
 * Checks that a value has a shape.
 *
 * @param at Where the value is, for messages.
 * @throws {RangeError} When it does not.
 */
export interface Check<T> {
  (value: unknown, at: string): void;
  /** Only for the type checker. */
  of?(value: T): void;
}

/** A text. */
export const text: Check<string> = (value, at) => {
  if (typeof value !== "string") throw wrong(at, "a text", value);
};

/** A number that JSON has. */
export const number: Check<number> = (value, at) => {
  if (typeof value === "number" && Math.abs(value) <= MAX_NUMBER) return;
  throw wrong(at, `a number up to ${MAX_NUMBER}`, value);
};

/** True or false. */
export const flag: Check<boolean> = (value, at) => {
  if (typeof value !== "boolean") throw wrong(at, "true or false", value);
};

/** Any value of JSON that is not too deep. */
export const any: Check<unknown> = (value, at) => {
  const visit = (value: unknown, depth: number) => {
    if (typeof value !== "object" || value === null) return;
    if (depth === MAX_DEPTH) throw new RangeError(`Expected at most ${MAX_DEPTH} levels in ${at}`);
    for (const inner of Object.values(value)) visit(inner, depth + 1);
  };
  visit(value, 0);
};

/** Null, or what `check` takes. */
export function orNull<T>(check: Check<T>): Check<T | null> {
  return (value, at) => value === null || check(value, at);
}

/** What may be missing. */
export function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, at) => value === undefined || check(value, at);
}

/** A list of what `check` takes. */
export function list<T>(check: Check<T>): Check<T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) throw wrong(at, "a list", value);
    for (let i = 0; i < value.length; i++) check(value[i], `${at}[${i}]`);
  };
}

/** An object with members, and others that are not looked at. */
export function members<T>(checks: { [K in keyof T]-?: Check<T[K]> }): Check<T> {
  const entries = Object.entries<Check<unknown>>(checks);
  return (value, at) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw wrong(at, "an object", value);
    }
    for (const [name, check] of entries) {
      const path = at === "" ? name : `${at}.${name}`;
      check(Object.hasOwn(value, name) ? value[name as never] : undefined, path);
    }
  };
}

/** What to throw of a value that has another shape. */
export function wrong(at: string, expected: string, value: unknown): RangeError {
  const got = value === undefined
    ? "nothing"
    : value === null
    ? "null"
    : Array.isArray(value)
    ? "a list"
    : typeof value === "number"
    ? String(value)
    : `a ${typeof value}`;
  return new RangeError(`Expected ${expected}${at === "" ? "" : ` as ${at}`}, got ${got}`);
}
