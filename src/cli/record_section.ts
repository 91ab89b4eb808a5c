/**
 * The common parts of the sections of the record's text.
 *
 * @module
 */

import type { RecordJson } from "../runtime/record.ts";
import type { Ink } from "./ink.ts";

/** The context of a section. */
export interface SectionContext {
  record: RecordJson;
  previous: RecordJson | undefined;
  ink: Ink;
  columns: number;
  /** The longest line of a table; undefined for no limit. */
  width: number | undefined;
  /** A time, counted from the record's start: `+1.250s`. */
  when(at: number): string;
}

/** The width of the labels in a section, with their spaces. */
export const LABEL_WIDTH = 16;

/** The first line of a section. */
export function heading({ ink }: SectionContext, title: string, note = ""): string {
  return note === "" ? ink("bold", title) : `${ink("bold", title)}  ${ink("dim", note)}`;
}

/** A line with a label and a text. */
export function labelled(context: SectionContext, label: string, text: string): string {
  return `  ${context.ink("dim", label.padEnd(LABEL_WIDTH - 2))}${text}`;
}
