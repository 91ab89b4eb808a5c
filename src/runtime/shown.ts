/**
 * Texts that others chose, as a terminal may have them.
 *
 * A guest, a front-end's process, a file's name and whoever writes a record choose texts that a
 * person sees. A terminal obeys some characters, hides others, and turns the order of a line round
 * for a few. Whatever is printed passes through here.
 *
 * @module
 */

/** Control and format characters, halves of surrogates, and what Unicode has not given out: C, Zl, Zp. */
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** The same, but for the ends of lines. */
const UNSEEN_IN_LINES = /(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu;

function escaped(character: string): string {
  const code = character.codePointAt(0)!;
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
}

/**
 * A text on one line, with escapes in the place of what a terminal obeys or hides.
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

/** The same for a text of several lines, such as the stack of an error. */
export function shownLines(text: string): string {
  return text.replaceAll("\t", "  ").replace(UNSEEN_IN_LINES, escaped);
}

/** A value of JSON with each text in it, names of members among them, as {@linkcode shown} has it. */
export function shownDeep<T>(value: T): T {
  return deep(value) as T;
}

function deep(value: unknown): unknown {
  if (typeof value === "string") return shown(value);
  if (Array.isArray(value)) return value.map(deep);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [shown(name), deep(inner)]),
  );
}

/**
 * A value as JSON that a terminal may have: the same value for a program, with JSON's own escapes.
 * A BigInt becomes a number where that holds it, else a text of its digits.
 *
 * @param space As that of `JSON.stringify`.
 * @throws {TypeError} When the value is no JSON: it has a circle, say.
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
  return text.replace(UNSEEN_IN_LINES, (character) => {
    let escapes = "";
    for (let i = 0; i < character.length; i++) {
      escapes += `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`;
    }
    return escapes;
  });
}
