/** A soak over time as an SVG picture: for a browser, on light and on dark. */
import type { Process, Sample } from "./processes.ts";
import type { Report } from "./report.ts";

const MIB = 2 ** 20;

// Sizes are in units of the picture, which are pixels unless it is scaled.
const WIDTH = 1000;
const LEFT = 64, RIGHT = 150;
const TOP = 84;
const PANEL_HEIGHT = 150;
const PANEL_GAP = 46;
const PLOT_WIDTH = WIDTH - LEFT - RIGHT;

/** What fits into the picture's width, in characters. */
const MAX_TITLE = 130;

/** The least distance of two names at the right edge. */
const NAME_HEIGHT = 12;

/** The most lines of a grid. */
const MAX_TICKS = 5;
/** The most labels of the time axis. */
const MAX_TIME_TICKS = 12;

/** Hues that can be told apart, also side by side; each on light and on dark. */
const HUES = [210, 28, 140, 330, 265, 50, 185, 0, 95, 300] as const;

const STYLE = `
  svg { background: #ffffff; font: 11px system-ui, sans-serif; }
  text { fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; }
  .panel { font-size: 12px; font-weight: 600; }
  .quiet { fill: #57606a; }
  .grid { stroke: #d8dee4; stroke-width: 1; }
  .line { fill: none; stroke-width: 1.5; stroke-linejoin: round; }
  .mark { stroke: #57606a; stroke-width: 1; opacity: 0.55; }
  ${HUES.map((hue, i) => series(i, hue, 40)).join("\n  ")}
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; }
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .grid { stroke: #2d333b; }
    .mark { stroke: #9198a1; }
    ${HUES.map((hue, i) => series(i, hue, 65)).join("\n    ")}
  }
`;

function series(at: number, hue: number, lightness: number): string {
  const colour = `hsl(${hue}, 65%, ${lightness}%)`;
  return `.s${at} { stroke: ${colour}; } text.s${at} { fill: ${colour}; stroke: none; }`;
}

/** A line of a panel; it has gaps. */
interface Line {
  name: string;
  /** Which hue it has. */
  hue: number;
  isDashed: boolean;
  /** Each piece without a gap, in seconds and the panel's unit. */
  pieces: [atS: number, value: number][][];
}

/** One diagram of several below each other. */
interface Panel {
  title: string;
  lines: Line[];
}

/** Draws a soak. */
export function draw(report: Report): string {
  const { moments, processes, seconds, seed, findings, marks, date } = report;
  const rate: [number, number][] = moments.slice(1).map(({ atS, requests }, i) => [
    atS,
    (requests - moments[i].requests) / (atS - moments[i].atS),
  ]);
  const panels: Panel[] = [
    {
      title: "Requests per second, all devices; each tick below is a fault",
      lines: [{ name: "all", hue: 0, isDashed: false, pieces: [rate] }],
    },
    {
      title: "Resident memory without the guest's, MiB",
      lines: linesOf(processes, ({ residentBytes }) => residentBytes / MIB),
    },
    { title: "Descriptors", lines: linesOf(processes, ({ fds }) => fds) },
    { title: "Threads", lines: linesOf(processes, ({ threads }) => threads) },
  ];
  const height = TOP + panels.length * (PANEL_HEIGHT + PANEL_GAP);
  const x = (atS: number) => LEFT + PLOT_WIDTH * atS / Math.max(seconds, 1);
  const wrong = findings.length === 0 ? "nothing wrong" : findings[0].split("\n")[0];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" ` +
    `width="${WIDTH}" height="${height}" role="img">`,
    `<title>A soak of vhostd over time</title>`,
    `<style>${STYLE}</style>`,
    text(LEFT, 26, `vhostd soak, ${seconds.toFixed(0)} s, seed ${seed}`, "title"),
    text(
      LEFT,
      44,
      `${date.slice(0, 16).replace("T", " ")} UTC: ${wrong}`.slice(0, MAX_TITLE),
      "quiet",
    ),
    ...panels.flatMap((panel, at) => drawPanel(panel, TOP + at * (PANEL_HEIGHT + PANEL_GAP), x)),
    ...timeTicks(seconds).map((atS) =>
      text(x(atS), height - PANEL_GAP + 24, timeOf(atS), "quiet", "middle")
    ),
    ...marks.map(({ atS, kind }) => {
      const y = TOP + 20 + PANEL_HEIGHT;
      return `<path class="mark" d="M${at(x(atS))} ${y - 20}v7"><title>${
        escape(`${atS.toFixed(1)} s: ${kind}`)
      }</title></path>`;
    }),
    "</svg>\n",
  ].join("\n");
}

/** A line for each name of a process. */
function linesOf(processes: readonly Process[], of: (sample: Sample) => number): Line[] {
  const byName = Map.groupBy(processes, ({ name }) => name);
  return [...byName].map(([name, all], i) => ({
    name,
    hue: i % HUES.length,
    isDashed: name.startsWith("guest"),
    pieces: all.map(({ samples }) =>
      samples.map((sample): [number, number] => [sample.atS, of(sample)])
    ),
  }));
}

function drawPanel(panel: Panel, top: number, x: (atS: number) => number): string[] {
  const { title } = panel;
  const lines = panel.lines.filter(({ pieces }) => pieces.some((piece) => piece.length > 0));
  const values = lines.flatMap(({ pieces }) => pieces.flat().map(([, value]) => value));
  const ticks = ticksTo(Math.max(1, ...values), MAX_TICKS);
  const most = ticks.at(-1)!;
  const y = (value: number) => top + PANEL_HEIGHT * (1 - value / most);
  return [
    text(LEFT, top - 8, title, "panel"),
    ...ticks.flatMap((tick) => [
      `<path class="grid" d="M${LEFT} ${at(y(tick))}h${PLOT_WIDTH}"/>`,
      text(LEFT - 8, y(tick) + 4, tick.toLocaleString("en"), "quiet", "end"),
    ]),
    ...lines.map(({ hue, isDashed, pieces }) => {
      const path = pieces.filter((piece) => piece.length > 0).map((piece) => {
        const points = piece.map(([atS, value]) => `${at(x(atS))} ${at(y(value))}`);
        // A process that was seen once is a dot.
        return points.length === 1 ? `M${points[0]}h1` : `M${points.join("L")}`;
      }).join("");
      return `<path class="line s${hue}"${isDashed ? ' stroke-dasharray="5 2"' : ""} d="${path}"/>`;
    }),
    ...drawNames(lines, y),
  ];
}

/** The names of lines at the right edge, where the lines end and apart from each other. */
function drawNames(lines: readonly Line[], y: (value: number) => number): string[] {
  const ends = lines.map(({ name, hue, pieces }) => {
    const last = pieces.flat().reduce((a, b) => b[0] >= a[0] ? b : a);
    return { name, hue, y: y(last[1]) + 4 };
  }).sort((a, b) => b.y - a.y);
  // From the lowest up, each as low as it may be.
  for (const [i, end] of ends.entries()) {
    if (i > 0) end.y = Math.min(end.y, ends[i - 1].y - NAME_HEIGHT);
  }
  return ends.map(({ name, hue, y }) => text(LEFT + PLOT_WIDTH + 8, y, name, `s${hue}`));
}

/** Round numbers from 0 to at least `most`. */
export function ticksTo(most: number, count: number): number[] {
  const rough = most / (count - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough)!;
  const steps = Math.ceil(most / step);
  // Computed anew each, so that errors do not add up.
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

function text(x: number, y: number, content: string, style: string, anchor?: string): string {
  return `<text x="${at(x)}" y="${at(y)}" class="${style}"${
    anchor === undefined ? "" : ` text-anchor="${anchor}"`
  }>${escape(content)}</text>`;
}

/** A coordinate, as exact as it can be seen. */
function at(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function escape(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
