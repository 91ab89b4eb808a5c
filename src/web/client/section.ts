/**
 * Sections of the page.
 *
 * @module
 */

import { Component, type ComponentChildren, type VNode } from "preact";
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

/** Shows why a part of the page cannot be shown, in its place. */
export class Boundary extends Component<{ children?: ComponentChildren }, { problem?: string }> {
  static override getDerivedStateFromError(error: unknown): { problem: string } {
    return { problem: String(error) };
  }

  override render(): ComponentChildren {
    const { problem } = this.state;
    if (problem === undefined) return this.props.children;
    return html`
      <p class="problem" role="alert">Cannot be shown: ${problem}</p>
    `;
  }
}
