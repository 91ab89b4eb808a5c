/**
 * The panel of a switch's port: the port's packets, all ports with their rates and drops, and the
 * addresses that the switch knows.
 *
 * @module
 */

/// <reference lib="dom" />

import type { VNode } from "preact";
import { useRef } from "preact/hooks";
import { bytes, html, type PanelProps, short, useQuery, whole } from "@vhostd/vhostd/web";
import NetPanel from "../panel.ts";
import type { PortJson } from "./switch.ts";

/** Time between two questions, over which rates are taken. */
const PERIOD_MS = 1000;

/** An address, as `GET /macs` answers it. */
interface Address {
  mac: string;
  port: string;
  age: number | null;
}

/** The panel of a switch's port. */
export default function SwitchPanel(props: PanelProps): VNode {
  const macs = useQuery<Address[]>(props.id, "macs", PERIOD_MS) ?? [];
  return html`
    <${NetPanel} ...${props} />
    <div class="tables">
      <${Ports} id=${props.id} macs=${macs} />
      <table class="rows">
        <thead>
          <tr>
            <th>address</th>
            <th>port</th>
            <th>sent last</th>
          </tr>
        </thead>
        <tbody>
          ${macs.map(({ mac, port, age }) =>
            html`
              <tr key=${mac}>
                <td>${mac}</td>
                <td>${port}</td>
                <td>${age === null ? "configured" : `${age} s ago`}</td>
              </tr>
            `
          )}
        </tbody>
      </table>
    </div>
  ` as VNode;
}

/** All ports, with the rates between the last two answers. */
function Ports({ id, macs }: { id: string; macs: Address[] }): VNode {
  const ports = useQuery<PortJson[]>(id, "ports", PERIOD_MS) ?? [];
  const answers = useRef<{ at: number; ports: PortJson[] }[]>([]);
  if (answers.current.at(-1)?.ports !== ports) {
    answers.current = [...answers.current.slice(-1), { at: performance.now(), ports }];
  }
  const [before, now] = answers.current;
  const rate = (port: string, way: "sent" | "received") => {
    const of = (list: PortJson[] | undefined) => list?.find((other) => other.port === port);
    const [first, last] = [of(before?.ports), of(now?.ports)];
    if (first === undefined || last === undefined) return "";
    const perSecond = (name: "packets" | "bytes") =>
      Math.max(0, (last[way][name] - first[way][name]) * 1000 / (now.at - before.at));
    return `${short(perSecond("packets"))}, ${bytes(perSecond("bytes"))}`;
  };
  return html`
    <table class="rows">
      <thead>
        <tr>
          <th>port</th>
          <th>addresses</th>
          <th>sent /s</th>
          <th>received /s</th>
          <th>dropped</th>
        </tr>
      </thead>
      <tbody>
        ${ports.map(({ port, isUp, isIsolated, isFiltered, sent, received }) => {
          const kinds = [isUp ? "" : "down", isIsolated && "isolated", isFiltered && "filtered"];
          return html`
            <tr key=${port}>
              <td>${port} <span class="faint">${kinds.filter(Boolean).join(", ")}</span></td>
              <td>${macs.filter((address) => address.port === port).length}</td>
              <td>${rate(port, "sent")}</td>
              <td>${rate(port, "received")}</td>
              <td>${dropsOf([sent.drops, received.drops])}</td>
            </tr>
          `;
        })}
      </tbody>
    </table>
  ` as VNode;
}

/** Packets that were dropped in both directions, by reason. */
function dropsOf(drops: readonly Record<string, number>[]): string {
  const sums = new Map<string, number>();
  for (const [reason, count] of drops.flatMap(Object.entries)) {
    sums.set(reason, (sums.get(reason) ?? 0) + count);
  }
  return [...sums].map(([reason, count]) => `${reason} ${whole(count)}`).join(", ");
}
