/**
 * Names that an author of a device gives, held against those that there are.
 *
 * The compiler checks them too, but a device is often run without it: what is misspelt would then
 * be left out without a word.
 *
 * @module
 */

import { suggestion } from "./nearest.ts";

/**
 * Expects that every name is known.
 *
 * @param what What has the names, for the message.
 * @throws {Error} With the name that was probably meant.
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
