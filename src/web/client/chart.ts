/**
 * Lines over time.
 *
 * @module
 */

/// <reference lib="dom" />

import type { VNode } from "preact";
import { html } from "htm/preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type uPlot from "uplot";

/** What a {@linkcode Chart} shows. */
export interface ChartProps {
  /** What it shows, for people who do not see it. */
  label: string;
  /**
   * Times in seconds since 1970, then the values of each line; null where there are none, which a
   * line bridges. The same
   * list is not drawn again.
   */
  data: (number | null)[][];
  /** The lines' names, and the names of their colours in the style sheet. */
  lines: { label: string; colour: string }[];
  /** Writes a value. */
  format(value: number): string;
  height?: number;
  /** The largest value that is always in view. */
  atLeast?: number;
  /** Changes when colours do. */
  theme?: string;
}

/** The time in view, in seconds. */
const SPAN_S = 120;

/** Lines over time, as wide as there is room. */
export function Chart(props: ChartProps): VNode {
  const { label, data, lines, format, height = 120, atLeast = 0, theme } = props;
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const [UPlot, setLibrary] = useState<typeof uPlot>();
  // The page does not wait for it: it is larger than all the rest
  useEffect(() => void import("uplot").then((module) => setLibrary(() => module.default)), []);
  useEffect(() => {
    if (UPlot === undefined) return;
    const element = place.current!;
    const colour = (name: string) => {
      // A canvas knows no variables
      element.style.color = `var(--${name})`;
      return getComputedStyle(element).color;
    };
    const axis = {
      stroke: colour("faint"),
      font: "11px system-ui",
      grid: { stroke: colour("line"), width: 1 },
      ticks: { show: false },
    };
    const made = plot.current = new UPlot(
      {
        width: element.clientWidth,
        height,
        padding: [8, 4, 0, 0],
        legend: { show: false },
        cursor: { show: false },
        series: [
          {},
          ...lines.map(({ colour: name }) => ({
            stroke: colour(name),
            width: 1.5,
            spanGaps: true,
            points: { show: false },
          })),
        ],
        scales: {
          x: { range: (_plot, _first, last) => [last - SPAN_S, last] },
          y: { range: (_plot, _least, most) => [0, Math.max(most * 1.1, atLeast) || 1] },
        },
        axes: [
          {
            ...axis,
            grid: { show: false },
            size: 22,
            space: 90,
            values: (_plot, times) => times.map(timeOfDay),
          },
          {
            ...axis,
            size: 64,
            space: 28,
            values: (_plot, values) => values.map((value) => format(value)),
          },
        ],
      },
      data as uPlot.AlignedData,
      element,
    );
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [theme, UPlot]);
  useEffect(() => plot.current?.setData(data as uPlot.AlignedData), [data]);
  return html`<div class="chart" role="img" aria-label=${label} ref=${place}></div>` as VNode;
}

function timeOfDay(seconds: number): string {
  return new Date(seconds * 1000).toTimeString().slice(0, 8);
}
