/**
 * The device status over time.
 *
 * @module
 */

import type { VNode } from "preact";
import { html } from "htm/preact";
import type { RecordJson } from "../../runtime/record.ts";
import { Section } from "./section.ts";
import { duration, hex } from "./format.ts";

/** Bits of the status and their rows: virtio 1.3, 2.1. */
const BITS: readonly (readonly [bit: number, name: string])[] = [
  [1, "ACKNOWLEDGE"],
  [2, "DRIVER"],
  [8, "FEATURES_OK"],
  [4, "DRIVER_OK"],
  [64, "NEEDS_RESET"],
  [128, "FAILED"],
];

/** Number of the latest changes to show. */
const LATEST = 8;

/** The status: a column per change, a row per bit. */
export function StatusSection({ record: { status, since } }: { record: RecordJson }): VNode {
  const shown = status.timeline.slice(-LATEST);
  const hidden = status.dropped + status.timeline.length - shown.length;
  return html`
    <${Section} title="Status" note=${`${status.source}${hidden > 0 ? `, ${hidden} earlier` : ""}`}>
      ${shown.length === 0 && html`<p class="faint">None seen yet</p>`}
      <div class="scroll"><table class="status">
        ${shown.length > 0 && html`
          <thead>
            <tr><th></th>${shown.map(({ at, status: value }, i) =>
              html`<th scope="col" title=${`${duration(at - since)} after the record's start`}>
            ${hex(value)}
            <small>${
                i === 0 ? `+${duration(at - since)}` : `+${duration(at - shown[i - 1].at)}`
              }</small>
          </th>`
            )}</tr>
          </thead>
        `}
        <tbody>
          ${BITS.filter(([bit]) => shown.some(({ status: value }) => value & bit)).map((
            [bit, name],
          ) =>
            html`
              <tr>
                <th scope="row">${name}</th>
                ${shown.map(({ status: value }, i) => {
                  const isNew = (value & bit) !== 0 && ((shown[i - 1]?.status ?? 0) & bit) === 0;
                  const set = value & bit
                    ? `set${isNew ? " new" : ""}${bit === 128 ? " bad" : ""}`
                    : "";
                  return html`<td class=${set} aria-label=${value & bit ? "set" : "not set"}></td>`;
                })}
              </tr>
            `
          )}
        </tbody>
      </table></div>
      <p class="faint">${status.note}</p>
    <//>
  ` as VNode;
}
