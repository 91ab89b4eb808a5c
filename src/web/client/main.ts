/**
 * The page of `vhostd web`: follows the devices' state and shows it.
 *
 * @module
 */

/// <reference lib="dom" />

import type { VNode } from "preact";
import { html, render } from "htm/preact";
import type { PageState } from "../device_hub.ts";
import { applyChanges } from "./apply.ts";
import { DeviceView } from "./device_view.ts";
import { listen } from "./events.ts";
import { short } from "./format.ts";
import { historyOf, sample } from "./history.ts";
import { Boundary } from "./section.ts";

let state: PageState | undefined;
let isConnected = false;
let theme = localStorage.getItem("theme") ?? "light dark";

/** Number of updates that were drawn; tests and benchmarks read it. */
document.documentElement.dataset.updates = "0";

/** The device that the URL names, or the first. */
function chosen(): string | undefined {
  const ids = Object.keys(state?.devices ?? {}).sort();
  const id = location.hash.slice(1);
  return ids.includes(id) ? id : ids[0];
}

function Bar(): VNode {
  const next = nextTheme();
  return html`
    <header class="bar">
      <strong>vhostd</strong>
      <span class=${isConnected ? "state live" : "state gone"} role="status">
        ${isConnected ? "live" : state === undefined ? "connecting" : "vhostd web is gone"}
      </span>
      ${state?.control && html`<span class="state control">control</span>`}
      <span class="grow"></span>
      <span class="hint">↑ ↓ devices</span>
      <button type="button" onClick=${() => setTheme(next)} aria-label=${`Theme: ${next}`}>
        ${next === "dark" ? "Dark" : "Light"}
      </button>
    </header>
  ` as VNode;
}

function isDark(): boolean {
  return theme === "dark" ||
    theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches;
}

function nextTheme(): string {
  return isDark() ? "light" : "dark";
}

function setTheme(next: string): void {
  theme = next;
  localStorage.setItem("theme", next);
  draw();
}

function List({ current }: { current: string | undefined }): VNode {
  const devices = Object.entries(state?.devices ?? {}).sort(([a], [b]) => a < b ? -1 : 1);
  return html`
    <nav aria-label="Devices" onKeyDown=${move}>
      ${devices.map(([id, { isLive, live, problem, path }]) => {
        const { requests } = historyOf(id).rates;
        const faults = live?.record.queues.some(({ broken }) => broken);
        return html`
          <a key=${id} href=${`#${id}`} aria-current=${id === current ? "page" : undefined}
            title=${path}>
            <span class=${`dot ${faults ? "fault" : isLive ? "live" : "gone"}`}></span>
            <span class="name">${id}</span>
            <span class="rate">${isLive ? html`${short(requests)}<small>/s</small>` : "gone"}</span>
            <span class="kind">${live?.record.device.about ?? problem}</span>
          </a>
        `;
      })}
      <${LeftOut} />
    </nav>
  ` as VNode;
}

/** Devices that answer and have no place on the page. */
function LeftOut(): VNode | null {
  const { count, names } = state?.leftOut ?? { count: 0, names: [] };
  if (count === 0) return null;
  const shown = Object.keys(state!.devices).length;
  return html`
    <details class="left-out">
      <summary>${count} left out: the page shows ${shown}</summary>
      <ul>
        ${names.map((name) => html`<li key=${name}>${name}</li>`)}
        ${count > names.length && html`<li key="">and ${count - names.length} more</li>`}
      </ul>
    </details>
  ` as VNode;
}

/** Arrow keys move between devices. */
function move(event: KeyboardEvent): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const links = [...(event.currentTarget as HTMLElement).querySelectorAll("a")];
  const at = links.indexOf(document.activeElement as HTMLAnchorElement);
  const next = links[(at + step + links.length) % links.length];
  next?.focus();
  next?.click();
}

function Page(): VNode {
  const id = chosen();
  const entry = id === undefined ? undefined : state!.devices[id];
  return html`
    <${Bar} />
    <div class="columns">
      <${List} current=${id} />
      <main>
        ${entry === undefined
          ? html`<p class="empty">
          ${
            state === undefined
              ? "Connecting…"
              : "No device yet. Serve one with --control-path=NAME.ctl"
          }
        </p>`
          : html`
            <${Boundary} key=${`${id} ${entry.live?.record.since}`}>
              <${DeviceView} id=${id} entry=${entry} control=${state!.control}
                theme=${theme + isDark()} />
              <//>
          `}
      </main>
    </div>
  ` as VNode;
}

let isDue = false;

/** Draws with the next frame. */
function draw(): void {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    document.documentElement.style.colorScheme = theme;
    render(html`<${Page} />`, document.getElementById("page")!);
    const { dataset } = document.documentElement;
    dataset.updates = String(Number(dataset.updates) + 1);
  });
}

listen({
  onConnection(isNow) {
    isConnected = isNow;
    draw();
  },
  onValue(json) {
    const value = JSON.parse(json);
    if (Array.isArray(value)) applyChanges(state!, value);
    else state = value as PageState;
    sample(state!);
    draw();
  },
});
addEventListener("hashchange", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
