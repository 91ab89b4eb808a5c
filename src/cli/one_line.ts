/**
 * Texts of others, on one line.
 *
 * @module
 */

/** Puts a text on one line, without what a terminal would obey. */
export function oneLine(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.trim().replace(/\s*\n\s*/g, " ").replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}
