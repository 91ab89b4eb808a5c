/**
 * Sections of the page.
 *
 * @module
 */

import type { VNode } from "preact";
import { html } from "htm/preact";

/** A section with its heading. */
export function Section(
  { title, note, wide, children }: {
    title: string;
    note?: unknown;
    wide?: boolean;
    children?: unknown;
  },
): VNode {
  return html`
    <section class=${wide ? "card wide" : "card"} aria-label=${title}>
      <h2>${title}${note && html`<small>${note}</small>`}</h2>
      ${children}
    </section>
  ` as VNode;
}
