/**
 * A stand-in for the part of `@std/assert` that vhostd's tests use, for
 * machines that cannot reach JSR. Comparison and messages are node:assert's.
 * Where the package can be had, remove `compat/std`.
 *
 * @module
 */

import nodeAssert from "node:assert/strict";

/** Thrown when an assertion does not hold. */
export const AssertionError = nodeAssert.AssertionError;

/** Asserts that a value is truthy. */
export function assert(value: unknown, message?: string): asserts value {
  nodeAssert.ok(value, message ?? "Expected a truthy value");
}

/** Fails always. */
export function fail(message?: string): never {
  nodeAssert.fail(message ?? "Failed");
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

/** Asserts that a value is neither null nor undefined. */
export function assertExists<T>(
  actual: T,
  message?: string,
): asserts actual is NonNullable<T> {
  nodeAssert.ok(
    actual !== null && actual !== undefined,
    message ?? "Expected a value",
  );
}

/** Asserts that `actual` is greater than `expected`. */
export function assertGreater<T>(actual: T, expected: T, message?: string) {
  nodeAssert.ok(
    actual > expected,
    message ?? `Expected ${actual} > ${expected}`,
  );
}

/** Asserts that `actual` is at least `expected`. */
export function assertGreaterOrEqual<T>(
  actual: T,
  expected: T,
  message?: string,
) {
  nodeAssert.ok(
    actual >= expected,
    message ?? `Expected ${actual} >= ${expected}`,
  );
}

/** Asserts that `actual` is less than `expected`. */
export function assertLess<T>(actual: T, expected: T, message?: string) {
  nodeAssert.ok(
    actual < expected,
    message ?? `Expected ${actual} < ${expected}`,
  );
}

/** Asserts that `actual` is at most `expected`. */
export function assertLessOrEqual<T>(actual: T, expected: T, message?: string) {
  nodeAssert.ok(
    actual <= expected,
    message ?? `Expected ${actual} <= ${expected}`,
  );
}

/** Asserts that a text matches a pattern. */
export function assertMatch(
  actual: string,
  expected: RegExp,
  message?: string,
) {
  nodeAssert.match(actual, expected, message);
}

/** Asserts that a text contains another. */
export function assertStringIncludes(
  actual: string,
  expected: string,
  message?: string,
) {
  nodeAssert.ok(
    actual.includes(expected),
    message ??
      `Expected ${JSON.stringify(actual)} to include ${JSON.stringify(expected)}`,
  );
}

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = abstract new (...args: any[]) => E;

/** Asserts that a value is an instance of a class. */
export function assertInstanceOf<E extends Error>(
  actual: unknown,
  type: ErrorClass<E>,
  message?: string,
): asserts actual is E {
  nodeAssert.ok(
    actual instanceof type,
    message ?? `Expected an instance of ${type.name}, got ${actual}`,
  );
}

function checkError<E extends Error>(
  error: unknown,
  type: ErrorClass<E>,
  includes?: string,
): E {
  assertInstanceOf(error, type);
  if (includes !== undefined) assertStringIncludes(error.message, includes);
  return error;
}

/** Asserts that a function throws, and returns what it threw. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  type: ErrorClass<E> = Error as unknown as ErrorClass<E>,
  includes?: string,
): E {
  try {
    fn();
  } catch (error) {
    return checkError(error, type, includes);
  }
  fail(`Expected ${type.name} to be thrown`);
}

/** Asserts that a promise rejects, and returns the reason. */
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  type: ErrorClass<E> = Error as unknown as ErrorClass<E>,
  includes?: string,
): Promise<E> {
  try {
    await fn();
  } catch (error) {
    return checkError(error, type, includes);
  }
  fail(`Expected a rejection with ${type.name}`);
}
