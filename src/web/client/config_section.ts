/**
 * Config space: its bytes, and its fields, which light up as the driver reads and writes them.
 *
 * @module
 */

/// <reference lib="dom" />

import type { VNode } from "preact";
import { html } from "htm/preact";
import { useState } from "preact/hooks";
import type { ConfigField, ConfigObservation } from "../../virtio/mod.ts";
import type { DeviceEntry } from "../device_hub.ts";
import { Section } from "./section.ts";
import { duration, whole } from "./format.ts";

/** Time for which a field is lit after an access. */
const LIT_MS = 900;

/** The class of a field or byte by what the driver did with it. */
function classOf(observation: ConfigObservation | undefined, at: number): string {
  if (observation === undefined) return "unnamed";
  const { reads, lastRead, writes, lastWrite, used } = observation;
  const kinds = [
    writes > 0 ? "written" : reads > 0 ? "read" : "untouched",
    used ? "used" : "",
    lastRead !== null && at - lastRead < LIT_MS ? "lit" : "",
    lastWrite !== null && at - lastWrite < LIT_MS ? "lit-write" : "",
  ];
  return kinds.join(" ");
}

/** Config space. */
export function ConfigSection({ entry }: { entry: DeviceEntry }): VNode {
  const [focused, setFocused] = useState<string>();
  const { fields, live } = entry;
  const { config, record } = live!;
  if (fields.length === 0) {
    return html`<${Section} title="Config space" note="none of its own" />` as VNode;
  }
  const observations = new Map(record.config.fields.map((field) => [field.name, field]));
  const data = Uint8Array.fromHex(config);
  const owner = new Array<ConfigField | undefined>(data.length);
  for (const field of fields) owner.fill(field, field.offset, field.offset + field.size);
  const touched = record.config.fields.filter(({ reads, writes }) => reads + writes > 0).length;
  const { reads, writes } = record.config;
  return html`
    <${Section} title="Config space" wide=${true}
      note=${`${data.length} bytes, ${touched} of ${fields.length} fields touched; reads ${reads.source}, writes ${writes.source}`}>
      <div class="config">
        <ol class="bytes" aria-label="Bytes">
          ${[...data].map((byte, i) => {
            const field = owner[i];
            const isStart = field !== undefined && owner[i - 1] !== field;
            const isFocused = field !== undefined && field.name === focused;
            const kind = classOf(field && observations.get(field.name), record.at);
            return html`
              <li class=${`${kind} ${isStart ? "start" : ""} ${isFocused ? "focused" : ""}`}
                title=${field && `${i}: ${field.name}`}
                onMouseEnter=${() => setFocused(field?.name)}>${byte.toString(16).padStart(
                  2,
                  "0",
                )}</li>
            `;
          })}
        </ol>
        <table class="fields" tabindex="0" aria-label="Fields"
          onMouseLeave=${() => setFocused(undefined)}>
          <thead>
            <tr>
              <th>at</th>
              <th>field</th>
              <th>value</th>
              <th>reads</th>
              <th>writes</th>
              <th>last</th>
              <th></th>
            </tr>
          </thead>
          <tbody>
            ${fields.map((field) => {
              const { name, offset, about } = field;
              const seen = observations.get(name);
              const last = Math.max(seen?.lastRead ?? 0, seen?.lastWrite ?? 0);
              return html`
                <tr key=${name} data-field=${name} title=${about}
                  class=${`${classOf(seen, record.at)} ${name === focused ? "focused" : ""}`}
                  onMouseEnter=${() => setFocused(name)}>
                  <td>${offset}</td>
                  <th scope="row">${name}${field.access === "rw" && html`<small>rw</small>`}</th>
                  <td>${valueOf(field, data, seen)}</td>
                  <td>${seen?.reads ? whole(seen.reads) : ""}</td>
                  <td>${seen?.writes ? whole(seen.writes) : ""}</td>
                  <td>${last === 0 ? "" : duration(record.at - last)}</td>
                  <td class="about">${about}</td>
                </tr>
              `;
            })}
          </tbody>
        </table>
      </div>
      <p class="faint">${reads.note}</p>
      <//>
  ` as VNode;
}

/** The value of a field, in a few characters. */
function valueOf(
  { type, offset, size }: ConfigField,
  data: Uint8Array,
  seen: ConfigObservation | undefined,
): string {
  const part = data.subarray(offset, offset + size);
  const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
  switch (type) {
    case "u8":
    case "status":
      return String(view.getUint8(0));
    case "u16":
      return String(view.getUint16(0, true));
    case "u32":
      return String(view.getUint32(0, true));
    case "u64":
      return String(view.getBigUint64(0, true));
    case "text":
      return JSON.stringify(new TextDecoder().decode(part).replace(/\0.*$/s, ""));
    case "bits":
      return [
        ...(seen?.acknowledged ?? []).map((name) => `${name} ✓`),
        ...seen?.left ?? [],
      ].join(", ") || "none";
  }
  const isZero = part.every((byte) => byte === 0);
  return isZero ? "0" : `${part.subarray(0, 8).toHex()}${size > 8 ? "…" : ""}`;
}
