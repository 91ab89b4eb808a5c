/**
 * The panel of a disk: where it is read and written, and how often which kind of request comes.
 *
 * @module
 */

/// <reference lib="dom" />

import type { VNode } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { bytes, html, type PanelProps, useQuery, whole } from "@vhostd/vhostd/web";
import type { Heat } from "./heat.ts";

/** Columns of the map; its rows follow. */
const COLUMNS = 64;

/** Share of the heat that is left after an update. */
const COOLING = 0.85;

/** The part of the report that the panel shows. */
interface Report {
  requests: Record<string, number>;
  capacity: { bytes: number };
  mode: string;
  store: { kind: string; zones?: Record<string, number> };
}

/** The states of zones, as they are shown. */
const ZONE_STATES = {
  conventional: "conventional",
  empty: "empty",
  implicitlyOpen: "implicitly open",
  explicitlyOpen: "explicitly open",
  closed: "closed",
  full: "full",
};

/** The panel of a disk. */
export default function DiskPanel({ id, record }: PanelProps): VNode {
  const { requests, capacity, mode, store } = record.report as unknown as Report;
  const kinds = Object.entries(requests).filter(([, count]) => count > 0);
  const most = Math.max(1, ...kinds.map(([, count]) => count));
  return html`
    <div class="row">
      <span>${bytes(capacity.bytes)}, ${store.kind}, ${mode}</span>
      <span class="legend reads">read</span><span class="legend writes">written</span>
    </div>
    <${HeatMap} id=${id} capacity=${capacity.bytes} />
    ${store.zones && html`<div class="row"><span>${zonesText(store.zones)}</span></div>`}
    <dl class="bars">
      ${kinds.map(([kind, count]) =>
        html`
          <dt>${kind}</dt>
          <dd class="meter"><i style=${{ width: `${count / most * 100}%` }}></i></dd>
          <dd>${whole(count)}</dd>
        `
      )}
    </dl>
  ` as VNode;
}

/** The zones of a zoned disk by their state, such as `Zones of 64 MiB: 3 empty, 1 full`. */
function zonesText(zones: Record<string, number>): string {
  const counts = Object.entries(ZONE_STATES).filter(([state]) => zones[state] > 0)
    .map(([state, name]) => `${whole(zones[state])} ${name}`);
  return `Zones of ${bytes(zones.zoneSectors * 512)}: ${counts.join(", ")}`;
}

/** The disk from its first sector to its last, row by row: bright where requests are now. */
function HeatMap({ id, capacity }: { id: string; capacity: number }): VNode {
  const heat = useQuery<Heat>(id, "heat", 250);
  const canvas = useRef<HTMLCanvasElement>(null);
  const last = useRef<Heat | undefined>(undefined);
  const warmth = useRef<{ reads: number[]; writes: number[] }>({ reads: [], writes: [] });
  useEffect(() => {
    if (heat === undefined) return;
    const before = last.current ?? heat;
    last.current = heat;
    const warm = (kind: "reads" | "writes") =>
      warmth.current[kind] = heat[kind].map((count, i) =>
        (warmth.current[kind][i] ?? 0) * COOLING + Math.max(0, count - before[kind][i])
      );
    draw(canvas.current!, warm("reads"), warm("writes"), heat);
  }, [heat]);
  const per = bytes(capacity / (heat?.reads.length ?? 1));
  return html`
    <canvas class="heat" ref=${canvas} role="img" width=${COLUMNS} height="8"
      title=${`${per} per square`}
      aria-label=${`Map of the disk, ${per} per square`}></canvas>
  ` as VNode;
}

/** Reads are blue and writes orange; places that were ever touched are not as dark as others. */
function draw(canvas: HTMLCanvasElement, reads: number[], writes: number[], ever: Heat): void {
  canvas.height = Math.ceil(reads.length / COLUMNS);
  const context = canvas.getContext("2d")!;
  const most = Math.log1p(Math.max(1, ...reads, ...writes));
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const [i, read] of reads.entries()) {
    const touched = ever.reads[i] + ever.writes[i] > 0 ? 0.18 : 0.06;
    const level = (heat: number) => Math.log1p(heat) / most;
    const fill = (colour: string, alpha: number) => {
      context.fillStyle = `rgb(${colour} / ${alpha})`;
      context.fillRect(i % COLUMNS, Math.floor(i / COLUMNS), 1, 1);
    };
    fill("128 136 148", touched);
    fill("47 129 247", level(read));
    fill("224 140 40", level(writes[i]) * 0.9);
  }
}
