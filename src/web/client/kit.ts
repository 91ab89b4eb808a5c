/**
 * What panels of devices get, and the page's own parts share.
 *
 * A panel is a module that a device's definition names, with a component as its default export:
 *
 * ```ts ignore
 * import { html, type PanelProps } from "@vhostd/vhostd/web";
 *
 * export default function Panel({ record }: PanelProps) {
 *   return html`<p>${record.report.level}</p>`;
 * }
 * ```
 *
 * It runs in the browser, which gets it without its types. It may import files beside it, and
 * `@vhostd/vhostd/web`, `preact`, `preact/hooks` and `uplot`.
 *
 * @module
 */

/// <reference lib="dom" />

import { useEffect, useState } from "preact/hooks";
import type { RecordJson } from "../../runtime/record.ts";
import type { DeviceEntry } from "../device_hub.ts";

export { html } from "htm/preact";
export { Chart, type ChartProps } from "./chart.ts";
export * from "./format.ts";

/** What a panel gets, anew with each change. */
export interface PanelProps {
  /** The name of the device in URLs. */
  id: string;
  /** The device's record. */
  record: RecordJson;
  /** All that the page knows of the device. */
  entry: DeviceEntry;
  /** Whether the device takes commands from the page. */
  control: boolean;
}

/** The URL of a query or command of a device. */
export function requestUrl(id: string, name: string): string {
  return `devices/${id}/${name}`;
}

/**
 * Sends a command to a device.
 *
 * @returns Its answer.
 * @throws {Error} With the device's reason.
 */
export async function send(id: string, name: string, body: unknown): Promise<unknown> {
  const response = await fetch(requestUrl(id, name), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  throw new Error(text.startsWith("{") ? JSON.parse(text).error : text);
}

/** The latest answer to a query of a device, asked for again and again; undefined before the first. */
export function useQuery<T>(id: string, name: string, periodMs = 500): T | undefined {
  const [answer, setAnswer] = useState<T>();
  useEffect(() => {
    const ended = new AbortController();
    void poll();
    return () => ended.abort();

    async function poll() {
      try {
        const response = await fetch(requestUrl(id, name), { signal: ended.signal });
        if (response.ok) setAnswer(await response.json());
      } catch {
        // The device is gone; it may come back
      }
      if (!ended.signal.aborted) setTimeout(() => ended.signal.aborted || poll(), periodMs);
    }
  }, [id, name, periodMs]);
  return answer;
}
