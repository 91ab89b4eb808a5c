/**
 * One device: its sections, from what changes most to what is settled early.
 *
 * @module
 */

/// <reference lib="dom" />

import type { ComponentType, VNode } from "preact";
import { html } from "htm/preact";
import { useEffect, useState } from "preact/hooks";
import type { RecordJson } from "../../runtime/record.ts";
import type { DeviceEntry } from "../device_hub.ts";
import { Chart } from "./chart.ts";
import { ConfigSection } from "./config_section.ts";
import { FeatureSection } from "./feature_section.ts";
import { bytes, duration, latency, short, whole } from "./format.ts";
import { type History, historyOf } from "./history.ts";
import type { PanelProps } from "./kit.ts";
import { QueueSection } from "./queue_section.ts";
import { Boundary, Section } from "./section.ts";
import { StatusSection } from "./status_section.ts";
import { TraceSection } from "./trace_section.ts";

/** What each section gets. */
export interface ViewProps {
  id: string;
  entry: DeviceEntry;
  control: boolean;
  theme: string;
}

/** All about a device. */
export function DeviceView({ id, entry, control, theme }: ViewProps): VNode {
  const { live, problem } = entry;
  if (live === null) {
    return html`
      <div class="title">
        <h1>${id}</h1>
      </div>
      <p class="problem">${problem}</p>
    ` as VNode;
  }
  const { record } = live;
  const history = historyOf(id);
  const { requests, bytes: bytesPerSecond, cpu } = history.rates;
  const inFlight = record.queues.reduce((sum, queue) => sum + queue.inFlight, 0);
  const kicks = record.queues.reduce((sum, queue) => sum + queue.kicks, 0);
  const total = record.queues.reduce((sum, queue) => sum + queue.requests, 0);
  return html`
    <${Title} id=${id} entry=${entry} record=${record} />
    <dl class="tiles">
      <${Tile} name="requests" value=${short(requests)} unit="/s" note=${`${
        whole(total)
      } in all`} />
      <${Tile} name="data" value=${bytes(bytesPerSecond)} unit="/s" />
      <${Tile} name="in flight" value=${whole(inFlight)} />
      <${Tile} name="kicks per request" value=${total === 0 ? "–" : (kicks / total).toFixed(2)} />
      <${Tile} name="processor" value=${(cpu * 100).toFixed(cpu < 0.1 ? 1 : 0)} unit="%" />
      <${Tile} name="faults" value=${whole(faultsOf(record).length)}
        bad=${faultsOf(record).length > 0} />
    </dl>
    <div class="cards">
      ${entry.panel &&
        html`<${Panel} url=${entry.panel} props=${{ id, entry, record, control }} />`}
      <div class="stack"><${RateSection} lines=${history.lines} theme=${theme} /></div>
      <div class="stack">
        <${QueueSection} record=${record} rates=${history.rates.queues} />
        <${StatusSection} record=${record} />
        <${FaultSection} record=${record} />
      </div>
      <${ConfigSection} entry=${entry} />
      <${FeatureSection} record=${record} />
      <${TraceSection} record=${record} />
      <${ReportSection} record=${record} />
    </div>
  ` as VNode;
}

function RateSection({ lines, theme }: { lines: History["lines"]; theme: string }): VNode {
  const percent = (value: number) => `${value.toFixed(0)} %`;
  return html`
    <${Section} title="Rates" note="the last two minutes">
      <h3>Requests per second</h3>
      <${Chart} label="Requests per second" theme=${theme} format=${short} atLeast=${10}
        lines=${[{ label: "requests", colour: "blue" }]} data=${lines.requests} />
      <h3>Bytes per second</h3>
      <${Chart} label="Bytes per second" theme=${theme} format=${bytes} atLeast=${1024}
        height=${90} lines=${[{ label: "bytes", colour: "green" }]} data=${lines.bytes} />
      <h3>Latency: median, and 99 % of requests</h3>
      <${Chart} label="Latency" theme=${theme} format=${latency} atLeast=${10}
        height=${90}
        lines=${[
          { label: "median", colour: "blue" },
          { label: "99 %", colour: "red" },
        ]} data=${lines.latency} />
      <h3>Processor, of one</h3>
      <${Chart} label="Processor use in percent" theme=${theme} format=${percent}
        atLeast=${10}
        height=${90} lines=${[{ label: "processor", colour: "orange" }]} data=${lines.cpu} />
      <//>
  ` as VNode;
}

function Title({ id, entry, record }: {
  id: string;
  entry: DeviceEntry;
  record: RecordJson;
}): VNode {
  const { device, connections, since, at } = record;
  const last = connections.latest.at(-1);
  const { frontend } = last ?? {};
  const who = frontend ? `${frontend.command}, pid ${frontend.pid}` : "a front-end";
  return html`
    <div class="title">
      <h1>${id}</h1>
      <p>
        ${device.about} <span class="faint">virtio device ${device.id}</span>
        <span class="faint">${entry.path}</span>
        <span class="faint">up ${duration(at - since)}</span>
        ${last === undefined
          ? html`<span class="state gone">no front-end yet</span>`
          : last.disconnectedAt === null
          ? html`<span class="state live">${who}</span>`
          : html`<span class="state gone">${who} is gone</span>`}
      </p>
      ${!entry.isLive && html`<p class="problem" role="alert">${entry.problem}</p>`}
    </div>
  ` as VNode;
}

function Tile({ name, value, unit = "", note, bad }: {
  name: string;
  value: string;
  unit?: string;
  note?: string;
  bad?: boolean;
}): VNode {
  return html`
    <div class=${bad ? "tile bad" : "tile"} title=${note}>
      <dt>${name}</dt>
      <dd>${value}<small>${unit}</small></dd>
    </div>
  ` as VNode;
}

/** The device's own panel, as soon as it is loaded. */
function Panel({ url, props }: { url: string; props: PanelProps }): VNode {
  const [panel, setPanel] = useState<{ Loaded?: ComponentType<PanelProps>; problem?: string }>({});
  useEffect(() => {
    import(new URL(url, document.baseURI).href).then(
      ({ default: Loaded }) =>
        setPanel(
          typeof Loaded === "function"
            ? { Loaded }
            : { problem: "Expected a component as the default export of the panel" },
        ),
      (error) => setPanel({ problem: String(error) }),
    );
  }, [url]);
  const { Loaded, problem } = panel;
  return html`
    <${Section} title="Device" wide=${true}>
      ${problem && html`<p class="problem">${problem}</p>`}
      ${Loaded && html`
        <${Boundary}>
          <${Loaded} ...${props} />
          <//>
      `}
    <//>
  ` as VNode;
}

/** Faults of queues and refused messages, the latest first. */
function faultsOf({ queues, errors }: RecordJson) {
  return [...queues.flatMap(({ faults }) => faults), ...errors.latest]
    .sort((a, b) => b.at - a.at);
}

function FaultSection({ record }: { record: RecordJson }): VNode {
  const faults = faultsOf(record);
  return html`
    <${Section} title="Faults" note=${faults.length === 0 ? "none" : undefined}>
      <ul class="faults">
        ${faults.map(({ at, queue, rule, section, message }) =>
          html`
            <li>
              <span class="faint">${duration(record.at - at)} ago</span>
              <strong>${queue === null ? "message" : `queue ${queue}`}: ${rule}</strong>
              ${section && html`<span class="section">${section}</span>`}
              <p>${message}</p>
            </li>
          `
        )}
      </ul>
      <//>
  ` as VNode;
}

function ReportSection({ record: { report } }: { record: RecordJson }): VNode {
  return html`
    <${Section} title="Report" wide=${true} note="as the device tells it">
      <details>
        <summary>${Object.keys(report).join(", ") || "nothing"}</summary>
        <pre>${JSON.stringify(report, null, 2)}</pre>
      </details>
      <//>
  ` as VNode;
}
