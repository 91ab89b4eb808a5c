/**
 * Colours of a terminal.
 *
 * @module
 */

/** Ways to write a text. */
export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";

/** Writes a text in a style. */
export type Ink = (style: Style, text: string) => string;

const CODES: Readonly<Record<Style, readonly [on: number, off: number]>> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
};

/** Ink that is coloured, or that leaves every text as it is. */
export function makeInk(coloured: boolean): Ink {
  if (!coloured) return (_style, text) => text;
  return (style, text) => {
    if (text === "") return text;
    const [on, off] = CODES[style];
    return `\x1b[${on}m${text}\x1b[${off}m`;
  };
}

/** Whether what goes to a stream is coloured: on a terminal, and not with `NO_COLOR`. */
export function isColoured(
  stream: { isTerminal(): boolean },
  noColor: boolean = Deno.noColor,
): boolean {
  return !noColor && stream.isTerminal();
}
