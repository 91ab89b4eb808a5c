/**
 * The panel of a network card: its last packets and the rates of flows, from `GET /pcap`.
 *
 * @module
 */

/// <reference lib="dom" />

import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { bytes, html, type PanelProps, requestUrl, short, whole } from "@vhostd/vhostd/web";
import { type PacketSummary, readPackets } from "./packet_summary.ts";

/** Number of packets and flows to show, and of flows to keep. */
const SHOWN = 14, MAX_FLOWS = 1000;

/** Time between two drawings, over which rates are taken. */
const PERIOD_MS = 500;

/** The packets of one direction between two ends. */
interface Flow {
  name: string;
  packets: number;
  bytes: number;
  /** Bytes since the last drawing. */
  news: number;
  perSecond: number;
}

/** What is drawn. */
interface Traffic {
  last: PacketSummary[];
  flows: Flow[];
}

/** The panel of a network card. */
export default function NetPanel({ id, record }: PanelProps): VNode {
  const [isOn, setOn] = useState(false);
  const { report } = record;
  const counts = ["sent", "received"].map((way) => [way, report[way] as Record<string, number>]);
  return html`
    <div class="row">
      <span>${String(report.port ?? "")}</span>
      ${counts.map(([way, count]) => {
        const { packets = 0, bytes: sum = 0 } = (count ?? {}) as Record<string, number>;
        return html`<span class="faint">${way} ${whole(packets)} packets, ${bytes(sum)}</span>`;
      })}
      <button type="button" aria-pressed=${isOn} onClick=${() => setOn(!isOn)}>
        ${isOn ? "Stop watching packets" : "Watch packets"}
      </button>
    </div>
    ${isOn && html`<${Packets} id=${id} />`}
  ` as VNode;
}

/** The packets from now on. */
function Packets({ id }: { id: string }): VNode {
  const [{ last, flows }, setTraffic] = useState<Traffic>({ last: [], flows: [] });
  const [problem, setProblem] = useState<string>();
  const known = useRef(new Map<string, Flow>());
  useEffect(() => {
    const ended = new AbortController();
    let recent: PacketSummary[] = [];
    const timer = setInterval(() => {
      for (const flow of known.current.values()) {
        flow.perSecond = flow.news * 1000 / PERIOD_MS;
        flow.news = 0;
      }
      const busiest = [...known.current.values()]
        .sort((a, b) => b.perSecond - a.perSecond || b.bytes - a.bytes);
      for (const { name } of busiest.slice(MAX_FLOWS)) known.current.delete(name);
      setTraffic({ last: recent, flows: busiest.slice(0, SHOWN) });
    }, PERIOD_MS);
    watch().catch((error) => ended.signal.aborted || setProblem(String(error.message)));
    return () => {
      ended.abort();
      clearInterval(timer);
    };

    async function watch() {
      const response = await fetch(requestUrl(id, "pcap"), { signal: ended.signal });
      if (!response.ok) throw new Error(await response.text());
      for await (const packets of readPackets(response.body!)) {
        for (const packet of packets) count(packet);
        recent = [...packets.slice(-SHOWN).reverse(), ...recent].slice(0, SHOWN);
      }
      setProblem("The capture has ended");
    }

    function count({ protocol, source, destination, bytes }: PacketSummary) {
      const name = `${protocol} ${source} → ${destination}`;
      let flow = known.current.get(name);
      if (flow === undefined) {
        known.current.set(name, flow = { name, packets: 0, bytes: 0, news: 0, perSecond: 0 });
      }
      flow.packets++;
      flow.bytes += bytes;
      flow.news += bytes;
    }
  }, [id]);
  return html`
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    <div class="tables">
      <table class="rows">
        <thead>
          <tr>
            <th>packets</th>
            <th>from</th>
            <th>to</th>
            <th>bytes</th>
          </tr>
        </thead>
        <tbody>
          ${last.map(({ toGuest, protocol, source, destination, bytes }) =>
            html`
              <tr>
                <td>${toGuest ? "→ guest" : "guest →"} ${protocol}</td>
                <td>${source}</td>
                <td>${destination}</td>
                <td>${bytes}</td>
              </tr>
            `
          )}
        </tbody>
      </table>
      <table class="rows">
        <thead>
          <tr>
            <th>flows</th>
            <th>packets</th>
            <th>per second</th>
          </tr>
        </thead>
        <tbody>
          ${flows.map(({ name, packets, perSecond }) =>
            html`
              <tr>
                <td>${name}</td>
                <td>${short(packets)}</td>
                <td>${bytes(perSecond)}</td>
              </tr>
            `
          )}
        </tbody>
      </table>
    </div>
    ${last.length === 0 && !problem && html`<p class="faint">No packet yet</p>`}
  ` as VNode;
}
