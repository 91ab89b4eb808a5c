/**
 * The feature bits: what is offered, acknowledged and left.
 *
 * @module
 */

import type { VNode } from "preact";
import { html } from "htm/preact";
import type { FeatureRecord, RecordJson } from "../../runtime/record.ts";
import { Section } from "./section.ts";

function stateOf({ offered, acknowledged }: FeatureRecord): string {
  if (acknowledged) return "acknowledged";
  if (!offered) return "absent";
  return acknowledged === null ? "offered" : "left";
}

/** The feature bits, as a lattice of the device's own and the transport's. */
export function FeatureSection({ record: { features } }: { record: RecordJson }): VNode {
  const count = (state: string) => features.filter((feature) => stateOf(feature) === state).length;
  const legend = ["acknowledged", "left", "offered", "absent"].filter((state) => count(state) > 0);
  return html`
    <${Section} title="Features" wide=${true}
      note=${legend.map((state) =>
        html`<span class=${`legend ${state}`}>${count(state)} ${state}</span>`
      )}>
      ${(["device", "transport"] as const).map((owner) =>
        html`
          <ol class="lattice" aria-label=${`Features of the ${owner}`}>
            ${features.filter((feature) => feature.owner === owner).map((feature) => {
              const { bit, name } = feature;
              const state = stateOf(feature);
              const about = "about" in feature ? String(feature.about) : "";
              return html`
                <li class=${state} title=${`${name}: ${state}. ${about}`}>
                  <span class="bit">${bit}</span> ${name}
                  <span class="hidden">${state}</span>
                </li>
              `;
            })}
          </ol>
        `
      )}
    <//>
  ` as VNode;
}
