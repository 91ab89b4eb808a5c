/**
 * A soak over time as an SVG picture, for a browser, on light and on dark. It is drawn by hand:
 * Vega-Lite would do it in half as many lines, and brings 75 packages of 32 MB.
 */
import type { Process, Sample } from "./processes.ts";
import type { Report } from "./report.ts";

const MIB = 2 ** 20;

// Sizes are in units of the picture, which are pixels unless it is scaled.
const WIDTH = 1000, LEFT = 64, RIGHT = 150, TOP = 84;
const PANEL_HEIGHT = 150, PANEL_GAP = 46;
const PLOT_WIDTH = WIDTH - LEFT - RIGHT;

/** What fits into the picture's width, in characters. */
const MAX_TITLE = 130;
/** The least distance of two names at the right edge. */
const NAME_HEIGHT = 12;
/** The most lines of a grid, and labels of the time axis. */
const MAX_TICKS = 5, MAX_TIME_TICKS = 12;

/** Hues that can be told apart, also side by side. */
const HUES = [210, 28, 140, 330, 265, 50, 185, 0, 95, 300] as const;

const series = (lightness: number) =>
  HUES.map((hue, i) => {
    const colour = `hsl(${hue}, 65%, ${lightness}%)`;
    return `.s${i} { stroke: ${colour}; } text.s${i} { fill: ${colour}; stroke: none; }`;
  }).join("\n");

const STYLE = `
  svg { background: #ffffff; color: #24292f; font: 11px system-ui, sans-serif; }
  text { fill: currentColor; }
  .title { font-size: 15px; font-weight: 600; }
  .panel { font-size: 12px; font-weight: 600; }
  .quiet { opacity: 0.75; }
  .grid { stroke: currentColor; opacity: 0.15; }
  .line { fill: none; stroke-width: 1.5; stroke-linejoin: round; }
  .mark { stroke: currentColor; opacity: 0.45; }
  ${series(40)}
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; color: #e6edf3; }
    ${series(65)}
  }
`;

/** A line of a panel: each piece without a gap, in seconds and the panel's unit. */
interface Line {
  name: string;
  pieces: [atS: number, value: number][][];
}

export function draw(report: Report): string {
  const { moments, processes, seconds, seed, findings, marks, date } = report;
  const rate = moments.slice(1).map(({ atS, requests }, i): [number, number] => [
    atS,
    (requests - moments[i].requests) / (atS - moments[i].atS),
  ]);
  const panels: [title: string, lines: Line[]][] = [
    ["Requests per second, all devices; each tick below is a fault", [{
      name: "all",
      pieces: [rate],
    }]],
    [
      "Resident memory without the guest's, MiB",
      linesOf(processes, ({ residentBytes }) => residentBytes / MIB),
    ],
    ["Descriptors", linesOf(processes, ({ fds }) => fds)],
    ["Threads", linesOf(processes, ({ threads }) => threads)],
  ];
  const height = TOP + panels.length * (PANEL_HEIGHT + PANEL_GAP);
  const x = (atS: number) => LEFT + PLOT_WIDTH * atS / Math.max(seconds, 1);
  const wrong = findings.length === 0 ? "nothing wrong" : findings[0].split("\n")[0];
  const when = `${date.slice(0, 16).replace("T", " ")} UTC: ${wrong}`.slice(0, MAX_TITLE);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" ` +
    `width="${WIDTH}" height="${height}" role="img">`,
    `<title>A soak of vhostd over time</title>`,
    `<style>${STYLE}</style>`,
    text(LEFT, 26, `vhostd soak, ${seconds.toFixed(0)} s, seed ${seed}`, "title"),
    text(LEFT, 44, when, "quiet"),
    ...panels.flatMap(([title, lines], i) =>
      drawPanel(title, lines, TOP + i * (PANEL_HEIGHT + PANEL_GAP), x)
    ),
    ...timeTicks(seconds).map((atS) =>
      text(x(atS), height - PANEL_GAP + 24, timeOf(atS), "quiet", "middle")
    ),
    ...marks.map(({ atS, kind }) =>
      `<path class="mark" d="M${at(x(atS))} ${TOP + PANEL_HEIGHT}v7">` +
      `<title>${escape(`${atS.toFixed(1)} s: ${kind}`)}</title></path>`
    ),
    "</svg>\n",
  ].join("\n");
}

/** A line for each name of a process. */
function linesOf(processes: readonly Process[], of: (sample: Sample) => number): Line[] {
  return [...Map.groupBy(processes, ({ name }) => name)].map(([name, all]) => ({
    name,
    pieces: all.map(({ samples }) => samples.map((sample) => [sample.atS, of(sample)])),
  }));
}

function drawPanel(
  title: string,
  all: readonly Line[],
  top: number,
  x: (atS: number) => number,
): string[] {
  const lines = all.map(({ name, pieces }, i) => ({ name, points: pieces.flat(), pieces, hue: i }))
    .filter(({ points }) => points.length > 0);
  const most = Math.max(1, ...lines.flatMap(({ points }) => points.map(([, value]) => value)));
  const ticks = ticksTo(most, MAX_TICKS);
  const y = (value: number) => top + PANEL_HEIGHT * (1 - value / ticks.at(-1)!);
  // Names stand where their lines end, apart from each other: from the lowest up.
  const names = lines.map(({ name, hue, points }) => ({
    name,
    hue,
    y: y(points.reduce((a, b) => b[0] >= a[0] ? b : a)[1]) + 4,
  })).sort((a, b) => b.y - a.y);
  for (const [i, end] of names.entries()) {
    if (i > 0) end.y = Math.min(end.y, names[i - 1].y - NAME_HEIGHT);
  }
  return [
    text(LEFT, top - 8, title, "panel"),
    ...ticks.flatMap((tick) => [
      `<path class="grid" d="M${LEFT} ${at(y(tick))}h${PLOT_WIDTH}"/>`,
      text(LEFT - 8, y(tick) + 4, tick.toLocaleString("en"), "quiet", "end"),
    ]),
    ...lines.map(({ name, hue, pieces }) => {
      const path = pieces.filter((piece) => piece.length > 0).map((piece) => {
        const points = piece.map(([atS, value]) => `${at(x(atS))} ${at(y(value))}`);
        // A process that was seen once is a dot.
        return points.length === 1 ? `M${points[0]}h1` : `M${points.join("L")}`;
      }).join("");
      const dashes = name.startsWith("guest") ? ' stroke-dasharray="5 2"' : "";
      return `<path class="line s${hue % HUES.length}"${dashes} d="${path}"/>`;
    }),
    ...names.map(({ name, hue, y }) =>
      text(LEFT + PLOT_WIDTH + 8, y, name, `s${hue % HUES.length}`)
    ),
  ];
}

/** Round numbers from 0 to at least `most`. */
export function ticksTo(most: number, count: number): number[] {
  const rough = most / (count - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough)!;
  // Computed from the start each time, so that errors do not add up.
  const steps = Math.ceil(most / step);
  return Array.from({ length: steps + 1 }, (_, i) => Number((i * step).toPrecision(12)));
}

/** Round moments from 0 to the end, in seconds. */
function timeTicks(seconds: number): number[] {
  const steps = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400];
  const step = steps.find((step) => seconds / step < MAX_TIME_TICKS) ?? steps.at(-1)!;
  return Array.from({ length: Math.floor(seconds / step) + 1 }, (_, i) => i * step);
}

function timeOf(seconds: number): string {
  if (seconds === 0 || seconds % 60 !== 0) return `${seconds} s`;
  return seconds % 3600 === 0 ? `${seconds / 3600} h` : `${seconds / 60} min`;
}

function text(x: number, y: number, content: string, style: string, anchor = "start"): string {
  return `<text x="${at(x)}" y="${at(y)}" class="${style}" text-anchor="${anchor}">` +
    `${escape(content)}</text>`;
}

/** A coordinate, as exact as it can be seen. */
const at = (value: number) => String(Math.round(value * 10) / 10);

const escape = (content: string) =>
  content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
