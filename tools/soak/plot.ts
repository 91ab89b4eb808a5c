/**
 * A soak over time as an SVG picture.
 *
 * @module
 */

import type { Report } from "./report.ts";

/** To be drawn. */
export function plot(_report: Report): string {
  return "";
}
