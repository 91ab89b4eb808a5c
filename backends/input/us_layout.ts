/**
 * Which keys of a US keyboard type which characters.
 *
 * @module
 */

import { KEY } from "./codes.ts";

/** How a character is typed. */
export interface Keystroke {
  /** The key. */
  readonly code: number;
  /** Whether Shift is held down. */
  readonly shift: boolean;
}

/** Rows of keys whose codes follow each other: the first code, and what they type. */
const rows: readonly [first: number, plain: string, shifted: string][] = [
  [KEY.KEY_1, "1234567890-=", "!@#$%^&*()_+"],
  [KEY.KEY_Q, "qwertyuiop[]", "QWERTYUIOP{}"],
  [KEY.KEY_A, "asdfghjkl;'`", 'ASDFGHJKL:"~'],
  [KEY.KEY_BACKSLASH, "\\zxcvbnm,./", "|ZXCVBNM<>?"],
  [KEY.KEY_SPACE, " ", ""],
  [KEY.KEY_ENTER, "\n", ""],
  [KEY.KEY_TAB, "\t", ""],
  [KEY.KEY_BACKSPACE, "\b", ""],
  [KEY.KEY_ESC, "\x1b", ""],
];

const strokes = new Map<string, Keystroke>(
  rows.flatMap(([first, plain, shifted]) =>
    [plain, shifted].flatMap((row) =>
      [...row].map((character, i) =>
        [character, { code: first + i, shift: row === shifted }] as const
      )
    )
  ),
);

/** How a character is typed on a US keyboard; undefined when it cannot be. */
export function keystroke(character: string): Keystroke | undefined {
  return strokes.get(character);
}
