/**
 * Checks names that the author of a device writes. The compiler does too, but devices often run
 * without type checks.
 *
 * @module
 */

import { suggestion } from "./nearest.ts";

/**
 * Checks that every name is known.
 *
 * @param what The owner of the names, for the message.
 * @throws {Error} With the most similar name.
 *
 * @example
 * ```ts
 * import { assertThrows } from "@std/assert";
 * import { expectNames } from "./names.ts";
 *
 * assertThrows(
 *   () => expectNames("Handlers of rng", ["reqestq"], ["requestq", "close"]),
 *   Error,
 *   "got reqestq; did you mean requestq?",
 * );
 * ```
 */
export function expectNames(what: string, names: Iterable<string>, known: readonly string[]): void {
  for (const name of names) {
    if (known.includes(name)) continue;
    const expected = known.length === 0 ? "nothing" : known.join(", ");
    throw new Error(
      `${what}: expected ${expected}, got ${name}${suggestion(name, known)}`,
    );
  }
}
