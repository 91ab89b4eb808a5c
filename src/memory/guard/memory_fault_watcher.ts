/**
 * The worker of the memory guard: puts zeros where a file's pages are gone.
 *
 * @module
 */

import { Guarded, GuardTable } from "./guard_table.ts";
import { canBeHad, mapZeros } from "../../linux/mapping.ts";
import {
  listenForBusErrors,
  restoreBusErrors,
  type WatcherMessage,
  type WatcherStart,
} from "./memory_fault.ts";
import { inspectMemoryFile } from "../../linux/file/memory_file.ts";

declare const self: {
  onmessage: ((event: MessageEvent<WatcherStart>) => void) | null;
  postMessage(message: WatcherMessage): void;
};

/** Faults that are so close are one: a thread faults again and again until its page is replaced. */
const TOGETHER_MS = 50;
/** Time after which mappings whose files changed, or that have no room for a page, are replaced. */
const SUSPECT_MS = 100;
/** Time after which a fault must have another cause, and ends the process. */
const UNEXPLAINED_MS = 1000;

self.onmessage = ({ data }) => {
  const table = new GuardTable(data.table);
  let since = 0;
  let last = -Infinity;
  try {
    listenForBusErrors(() => {
      const now = performance.now();
      if (now - last > TOGETHER_MS) since = now;
      last = now;
      const lost = table.locked((entries) => {
        const guarded = entries.filter((entry) => entry[Guarded.ID] !== 0);
        const found = guarded.flatMap(replaceMissing);
        if (found.length > 0 || now - since < SUSPECT_MS) return found;
        return guarded.filter(isSuspect).map((entry) => replaceFrom(entry, 0));
      });
      for (const message of lost) self.postMessage(message);
      if (lost.length > 0) last = -Infinity;
      else if (now - since > UNEXPLAINED_MS) restoreBusErrors();
    });
    self.postMessage({ kind: "ready" });
  } catch (error) {
    self.postMessage({ kind: "failed", message: (error as Error).message });
  }
};

/** Replaces mappings beyond the end of their file. */
function replaceMissing(entry: Float64Array): WatcherMessage[] {
  const page = entry[Guarded.PAGE_BYTES];
  const { bytes } = inspectMemoryFile(entry[Guarded.FD]);
  const kept = Math.ceil(Math.max(0, bytes - entry[Guarded.FILE_OFFSET]) / page) * page;
  return kept < entry[Guarded.BYTES] ? [replaceFrom(entry, kept)] : [];
}

/**
 * Whether a fault can have come from a mapping whose file is long enough: the
 * file was shorter for a moment, or there is no room for a page of it.
 */
function isSuspect(entry: Float64Array): boolean {
  return entry[Guarded.BYTES] > 0 &&
    (inspectMemoryFile(entry[Guarded.FD]).changedAt !== entry[Guarded.CHANGED_AT] ||
      !canBeHad(entry[Guarded.ADDRESS], entry[Guarded.BYTES], entry[Guarded.PAGE_BYTES]));
}

function replaceFrom(entry: Float64Array, offset: number): WatcherMessage {
  const bytes = entry[Guarded.BYTES] - offset;
  mapZeros(entry[Guarded.ADDRESS] + offset, bytes);
  entry[Guarded.BYTES] = offset;
  return { kind: "lost", id: entry[Guarded.ID], offset, bytes };
}
