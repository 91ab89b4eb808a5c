/**
 * Finds the name that was probably meant.
 *
 * @module
 */

/** A word with at least this many letters may be the beginning of a name. */
const MIN_BEGINNING = 3;

/**
 * The name nearest to `word`: by the number of letters to insert, remove, replace, or exchange with
 * their neighbour.
 *
 * @returns the first that begins with it, if there is one; undefined when none is near enough to be
 * meant.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { nearest } from "./nearest.ts";
 *
 * assertEquals(nearest("sokcet-path", ["fd", "socket-path"]), "socket-path");
 * assertEquals(nearest("socket", ["lock", "socket-path", "socket-mode"]), "socket-path");
 * assertEquals(nearest("network", ["fd", "socket-path"]), undefined);
 * ```
 */
export function nearest(word: string, names: Iterable<string>): string | undefined {
  const all = [...names];
  const begun = word.length < MIN_BEGINNING ? undefined : all.find((name) => name.startsWith(word));
  if (begun !== undefined) return begun;
  let best: string | undefined;
  let least = Math.max(1, Math.floor(word.length / 2)) + 1;
  for (const name of all) {
    const distance = editDistance(word, name);
    if (distance < least) [best, least] = [name, distance];
  }
  return best;
}

/** `; did you mean NAME?`, or nothing when no name is near enough. */
export function suggestion(word: string, names: Iterable<string>, prefix = ""): string {
  const name = nearest(word, names);
  return name === undefined ? "" : `; did you mean ${prefix}${name}?`;
}

/** The distance of optimal string alignment. */
function editDistance(a: string, b: string): number {
  let [before, last] = [[] as number[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        row[j] = Math.min(row[j], before[j - 2] + 1);
      }
    }
    [before, last] = [last, row];
  }
  return last[b.length];
}
