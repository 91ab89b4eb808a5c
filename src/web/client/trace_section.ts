/**
 * The driver's own accesses, where a watch traces them.
 *
 * @module
 */

import type { VNode } from "preact";
import { html } from "htm/preact";
import type { RecordJson } from "../../runtime/record.ts";
import { duration, whole } from "./format.ts";
import { Section } from "./section.ts";

/** Number of the latest accesses to show. */
const LATEST = 60;

/** The latest accesses to registers and config space, newest first. */
export function TraceSection({ record: { traced, since } }: { record: RecordJson }): VNode | null {
  if (traced === undefined) return null;
  const { timeline: { total, latest }, until, lost } = traced;
  const note = `${whole(total)} in all${lost > 0 ? `, ${whole(lost)} lost` : ""}${
    until === null ? "" : ", ended"
  }`;
  return html`
    <${Section} title="Accesses of the driver" wide=${true} note=${note}>
      <div class="scroll" tabindex="0" role="region" aria-label="Accesses of the driver">
        <table class="rows">
          <thead>
            <tr>
              <th>after</th>
              <th>access</th>
              <th>register</th>
              <th>where</th>
              <th>value</th>
            </tr>
          </thead>
          <tbody>
            ${latest.slice(-LATEST).reverse().map((entry) => {
              const { at, access, register, offset, bytes, index, value, count } = entry;
              const place = register === "config" ? `${offset}, ${bytes} bytes` : index ?? "";
              return html`
                <tr class=${access}>
                  <td>${duration(at - since)}</td>
                  <td>${access}${count > 1 ? ` × ${whole(count)}` : ""}</td>
                  <td>${register}</td>
                  <td>${place}</td>
                  <td>${value}</td>
                </tr>
              `;
            })}
          </tbody>
        </table>
      </div>
      <//>
  ` as VNode;
}
