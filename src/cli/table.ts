/**
 * Aligned columns.
 *
 * @module
 */

import type { Ink, Style } from "./ink.ts";

/** A column. */
export interface Column {
  /** Its title. */
  readonly title: string;
  /**
   * The alignment of its texts.
   *
   * @default {"left"}
   */
  readonly align?: "left" | "right";
  /**
   * If lines are too long, the column with the highest number is left out first.
   *
   * @default {never}
   */
  readonly drop?: number;
}

/** The text of a cell, with its style. */
export type Cell = string | readonly [text: string, style: Style];

/** The layout of a table. */
export interface TableOptions {
  /** Applies styles. */
  ink: Ink;
  /** Whether to show the titles. @default {true} */
  titles?: boolean;
  /** The start of each line. @default {"  "} */
  indent?: string;
  /** The longest line, in characters. @default {no limit} */
  width?: number;
}

/**
 * Lays rows out in columns. Leaves out empty columns.
 *
 * @returns Lines.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { makeInk } from "./ink.ts";
 * import { table } from "./table.ts";
 *
 * const columns = [{ title: "bit", align: "right" }, { title: "name" }] as const;
 * assertEquals(table(columns, [["5", "RO"], ["13", "DISCARD"]], { ink: makeInk(false) }), [
 *   "  bit  name",
 *   "    5  RO",
 *   "   13  DISCARD",
 * ]);
 * ```
 */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  options: TableOptions,
): string[] {
  const { ink, titles = true, indent = "  ", width = Infinity } = options;
  let shown = columns.map((_, i) => i).filter((i) => rows.some((row) => textOf(row[i]) !== ""));
  const head: Cell[] = columns.map(({ title }) => [title, "dim"]);
  const all = titles ? [head, ...rows] : rows;
  const widths = columns.map((_, i) => Math.max(...all.map((row) => textOf(row[i]).length)));
  const droppable = shown.filter((i) => columns[i].drop !== undefined)
    .sort((a, b) => columns[a].drop! - columns[b].drop!);
  const length = () => shown.reduce((sum, i) => sum + widths[i] + 2, indent.length - 2);
  while (length() > width && droppable.length > 0) {
    const left = droppable.pop();
    shown = shown.filter((i) => i !== left);
  }
  return all.map((row) => {
    const cells = shown.map((i, place) => {
      const text = textOf(row[i]);
      const space = " ".repeat(widths[i] - text.length);
      const isLast = place === shown.length - 1;
      if (columns[i].align === "right") return space + inked(row[i], ink);
      return inked(row[i], ink) + (isLast ? "" : space);
    });
    return (indent + cells.join("  ")).trimEnd();
  });
}

function textOf(cell: Cell | undefined): string {
  return typeof cell === "string" ? cell : cell?.[0] ?? "";
}

function inked(cell: Cell | undefined, ink: Ink): string {
  return typeof cell === "string" || cell === undefined ? cell ?? "" : ink(cell[1], cell[0]);
}

/** Lays short texts out in lines of at most `width` characters, each after `indent` spaces. */
export function wrap(
  items: readonly string[],
  { width, indent, between = "  " }: { width: number; indent: number; between?: string },
): string {
  const lines: string[] = [];
  let line = "";
  for (const item of items) {
    const longer = line === "" ? item : line + between + item;
    if (line !== "" && indent + longer.length > width) {
      lines.push(line);
      line = item;
    } else line = longer;
  }
  lines.push(line);
  return lines.join(`\n${" ".repeat(indent)}`);
}
