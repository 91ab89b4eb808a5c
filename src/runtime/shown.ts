/**
 * Escapes text from outside for a terminal.
 *
 * A guest, a front-end's process, a file name or a record can hold characters that a terminal obeys
 * or hides, or that reverse the order of a line. All printed text passes through here.
 *
 * @module
 */

/** Control and format characters, lone surrogates, unassigned code points, line separators. */
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** The same without line feeds. */
const UNSEEN_IN_LINES = /(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu;

function escaped(character: string): string {
  const code = character.codePointAt(0)!;
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
}

/**
 * A text on one line, with escapes for characters that a terminal obeys or hides.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { shown } from "./shown.ts";
 *
 * assertEquals(shown("qemu\x1b[2J"), "qemu\\x1b[2J");
 * assertEquals(shown("two\nlines"), "two lines");
 * ```
 */
export function shown(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, " ").replace(UNSEEN, escaped);
}

/** The same for several lines, such as the stack of an error. */
export function shownLines(text: string): string {
  return text.replaceAll("\t", "  ").replace(UNSEEN_IN_LINES, escaped);
}

/** Applies {@linkcode shown} to all texts in a value of JSON, names of members included. */
export function shownDeep<T>(value: T): T {
  const deep = (value: unknown): unknown => {
    if (typeof value === "string") return shown(value);
    if (Array.isArray(value)) return value.map(deep);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, inner]) => [shown(name), deep(inner)]),
    );
  };
  return deep(value) as T;
}

/**
 * A value as JSON that is safe for a terminal: JSON's own escapes keep the value the same for a
 * program. A BigInt becomes a number if that is exact, else a text of its digits.
 *
 * @param space The parameter of `JSON.stringify`.
 * @throws {TypeError} When the value is circular.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { shownJson } from "./shown.ts";
 *
 * assertEquals(shownJson({ name: "\x9b2J", bytes: 7n }), '{"name":"\\u009b2J","bytes":7}');
 * ```
 */
export function shownJson(value: unknown, space?: number): string {
  const text = JSON.stringify(value, (_name, inner) => {
    if (typeof inner !== "bigint") return inner;
    return BigInt.asIntN(54, inner) === inner ? Number(inner) : String(inner);
  }, space) ?? "null";
  // A character beyond U+FFFF is two units, and two escapes
  const escape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return text.replace(UNSEEN_IN_LINES, (character) => character.split("").map(escape).join(""));
}
