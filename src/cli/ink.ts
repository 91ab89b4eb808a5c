/**
 * Styles of text on a terminal.
 *
 * @module
 */

/** A style of text. */
export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";

/** Applies a style to a text. */
export type Ink = (style: Style, text: string) => string;

const CODES: Readonly<Record<Style, readonly [on: number, off: number]>> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
};

/** Makes ink that is coloured, or that leaves every text as it is. */
export function makeInk(coloured: boolean): Ink {
  if (!coloured) return (_style, text) => text;
  return (style, text) => {
    if (text === "") return text;
    const [on, off] = CODES[style];
    return `\x1b[${on}m${text}\x1b[${off}m`;
  };
}

/** Whether to colour a stream: on a terminal, unless `NO_COLOR` is set. */
export function isColoured(
  stream: { isTerminal(): boolean },
  noColor: boolean = Deno.noColor,
): boolean {
  return !noColor && stream.isTerminal();
}
