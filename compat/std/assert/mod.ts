/**
 * A stand-in for the part of `@std/assert` that vhostd's tests use, where JSR cannot be reached.
 * Comparison and messages are node:assert's. Remove `compat/std` to use the package.
 *
 * @module
 */

import nodeAssert from "node:assert/strict";

/** Asserts that a value is truthy. */
export function assert(value: unknown, message?: string): asserts value {
  nodeAssert.ok(value, message ?? "Expected a truthy value");
}

/** Asserts deep, strict equality. */
export function assertEquals<T>(actual: T, expected: T, message?: string) {
  nodeAssert.deepStrictEqual(actual, expected, message);
}

/** Asserts that two values are not deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, message?: string) {
  nodeAssert.notDeepStrictEqual(actual, expected, message);
}

/** Asserts identity. */
export function assertStrictEquals<T>(
  actual: unknown,
  expected: T,
  message?: string,
): asserts actual is T {
  nodeAssert.strictEqual(actual, expected, message);
}

/** Asserts that `actual` is greater than `expected`. */
export function assertGreater<T>(actual: T, expected: T, message?: string) {
  assert(actual > expected, message ?? `Expected ${actual} > ${expected}`);
}

/** Asserts that `actual` is at least `expected`. */
export function assertGreaterOrEqual<T>(actual: T, expected: T, message?: string) {
  assert(actual >= expected, message ?? `Expected ${actual} >= ${expected}`);
}

/** Asserts that `actual` is less than `expected`. */
export function assertLess<T>(actual: T, expected: T, message?: string) {
  assert(actual < expected, message ?? `Expected ${actual} < ${expected}`);
}

/** Asserts that `actual` is at most `expected`. */
export function assertLessOrEqual<T>(actual: T, expected: T, message?: string) {
  assert(actual <= expected, message ?? `Expected ${actual} <= ${expected}`);
}

/** Asserts that a text matches a pattern. */
export function assertMatch(actual: string, expected: RegExp, message?: string) {
  nodeAssert.match(actual, expected, message);
}

/** Asserts that a text contains another. */
export function assertStringIncludes(actual: string, expected: string, message?: string) {
  const texts = `${JSON.stringify(actual)} to include ${JSON.stringify(expected)}`;
  assert(actual.includes(expected), message ?? `Expected ${texts}`);
}

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = abstract new (...args: any[]) => E;

/** Asserts that a value is an instance of a class. */
export function assertInstanceOf<E extends Error>(
  actual: unknown,
  type: ErrorClass<E>,
  message?: string,
): asserts actual is E {
  assert(actual instanceof type, message ?? `Expected an instance of ${type.name}, got ${actual}`);
}

/** Asserts that a function throws an error, and returns the error. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  type: ErrorClass<E> = Error as unknown as ErrorClass<E>,
  includes: string = "",
): E {
  let thrown: { error: unknown } | undefined;
  try {
    fn();
  } catch (error) {
    thrown = { error };
  }
  assert(thrown !== undefined, `Expected ${type.name} to be thrown`);
  assertInstanceOf(thrown.error, type);
  assertStringIncludes(thrown.error.message, includes);
  return thrown.error;
}

/** Asserts that a promise rejects with an error, and returns the error. */
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  type?: ErrorClass<E>,
  includes?: string,
): Promise<E> {
  const rejection = await Promise.resolve(fn()).then(() => undefined, (error) => ({ error }));
  assert(rejection !== undefined, `Expected a rejection with ${type?.name ?? "Error"}`);
  return assertThrows(
    () => {
      throw rejection.error;
    },
    type,
    includes,
  );
}
