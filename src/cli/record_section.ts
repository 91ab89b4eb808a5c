/**
 * What the sections of the record's text have in common.
 *
 * @module
 */

import type { RecordJson } from "../runtime/record.ts";
import type { Ink } from "./ink.ts";

/** What the sections share. */
export interface SectionContext {
  record: RecordJson;
  previous: RecordJson | undefined;
  ink: Ink;
  columns: number;
  /** How long the lines of tables may be; undefined for as long as they are. */
  width: number | undefined;
  /** When something was, from when the record was begun: `+1.250s`. */
  when(at: number): string;
}

/** The width of the names before texts in a section, with what is around them. */
export const LABEL_WIDTH = 16;

/** The first line of a section. */
export function heading({ ink }: SectionContext, title: string, note = ""): string {
  return note === "" ? ink("bold", title) : `${ink("bold", title)}  ${ink("dim", note)}`;
}

/** A name and a text. */
export function labelled(context: SectionContext, label: string, text: string): string {
  return `  ${context.ink("dim", label.padEnd(LABEL_WIDTH - 2))}${text}`;
}
