/**
 * The queues, each with its ring.
 *
 * @module
 */

import type { VNode } from "preact";
import { html } from "htm/preact";
import type { QueueRecord, RecordJson } from "../../runtime/record.ts";
import { Section } from "./section.ts";
import { bytes, latency, short, whole } from "./format.ts";

/** The circumference of a ring's circle is 100, so that lengths are percents. */
const RADIUS = 100 / (2 * Math.PI);

/** The queues. */
export function QueueSection({ record, rates }: { record: RecordJson; rates: number[] }): VNode {
  const used = record.queues.filter(({ starts, requests }) => starts > 0 || requests > 0);
  const unused = record.queues.length - used.length;
  return html`
    <${Section} title="Queues" note=${unused > 0 ? `${unused} never started` : undefined}>
      <ol class="queues">
        ${used.map((queue) => html`<${Queue} queue=${queue} rate=${rates[queue.index] ?? 0} />`)}
      </ol>
      <//>
  ` as VNode;
}

function Queue({ queue, rate }: { queue: QueueRecord; rate: number }): VNode {
  const { index, name, size, inFlight, requests, broken, running, enabled, starts } = queue;
  const { latencies = [] } = queue;
  const state = broken ? "broken" : !running ? "stopped" : enabled ? "running" : "disabled";
  return html`
    <li class=${`queue ${state}`}>
      <${Ring} queue=${queue} />
      <div>
        <b>${index} ${name}</b>
        <span class=${`state ${state}`}>${state}${starts > 1 ? `, start ${starts}` : ""}</span>
        <span><b>${short(rate)}</b>/s</span>
        <span class="faint">${whole(requests)} done, ${inFlight} of ${size} in flight</span>
        <span class="faint">
          ${bytes(queue.bytesRead)} to the device, ${bytes(queue.bytesWritten)} to the driver
        </span>
        <span class="faint">${short(queue.kicks)} kicks, ${short(
          queue.notifications,
        )} notified</span>
        ${latencies.map(({ kind, p50Us, p99Us }) =>
          html`<span class="faint">${kind} ${latency(p50Us)}, 99 % ${latency(p99Us)}</span>`
        )}
      </div>
    </li>
  ` as VNode;
}

/**
 * A ring as a circle: its hand is at the next descriptor to be used, counted from the ring's start,
 * and the arc before it is what is in flight.
 */
function Ring({ queue: { size, requests, inFlight } }: { queue: QueueRecord }): VNode {
  const slots = Math.max(size, 1);
  const at = requests % slots / slots * 360;
  const arc = Math.min(100, inFlight / slots * 100);
  const label = `${inFlight} of ${size} in flight`;
  return html`
    <svg class="ring" viewBox="-20 -20 40 40" role="img" aria-label=${label}>
      <circle class="track" r=${RADIUS} />
      <circle class="arc" r=${RADIUS} stroke-dasharray=${`${arc} 100`}
        transform=${`rotate(${at - 90})`} />
      <line class="hand" x1="0" y1="-12" x2="0" y2="-19.5" transform=${`rotate(${at})`} />
      <text y="1">${inFlight}</text>
    </svg>
  ` as VNode;
}
