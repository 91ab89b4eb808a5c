/**
 * The libraries of the page, from npm, as text. Only `vhostd web` loads this module.
 *
 * @module
 */

import htm from "htm" with { type: "text" };
import htmPreact from "htm/preact" with { type: "text" };
import preact from "preact" with { type: "text" };
import hooks from "preact/hooks" with { type: "text" };
import uPlot from "uplot/dist/uPlot.esm.js" with { type: "text" };
import uPlotStyle from "uplot/dist/uPlot.min.css" with { type: "text" };

/** Modules by the names that others import them by. */
export const modules: Readonly<Record<string, string>> = {
  htm,
  "htm/preact": htmPreact,
  preact,
  "preact/hooks": hooks,
  uplot: uPlot,
};

/** The style sheet of the charts. */
export const chartStyle: string = uPlotStyle;
