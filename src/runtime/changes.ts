/**
 * The state of a device as a stream, for programs that show it while it changes.
 *
 * Each line is JSON. The first has a whole {@linkcode LiveJson}. Each further one is a list of
 * changes since the line before: the path to a value, and the value last; `["queues", 0, "length"]`
 * sets the length of a list. Lines come at most every {@linkcode CHANGES_PERIOD_MS}, later if the
 * reader is slow, and at least every {@linkcode HEARTBEAT_MS}.
 *
 * @module
 */

import type { DeviceHost } from "./device_host.ts";
import type { RecordJson } from "./record.ts";
import { shownJson } from "./shown.ts";

/** Time between two lines. */
export const CHANGES_PERIOD_MS = 33;

/** The longest time without a line. */
export const HEARTBEAT_MS = 1000;

/** Time between two questions to queue threads for their reports. */
const REPORT_PERIOD_MS = 500;

/** Values that change with time alone. */
const CLOCKS = ["at", "cpuSeconds"];

/** The state of a device. */
export interface LiveJson {
  /** The record; its `at` tells the time of the line. */
  record: RecordJson;
  /** The bytes of config space, in hexadecimal. */
  config: string;
}

/** One change: the names and indexes that lead to a value, then the value. */
export type Change = readonly unknown[];

/** The changes that make `after` of `before`, which are values of JSON. */
export function changesBetween(
  before: unknown,
  after: unknown,
  path: readonly (string | number)[] = [],
): Change[] {
  if (Object.is(before, after)) return [];
  const whole = [[...path, after]];
  if (!isCompound(before) || !isCompound(after)) return whole;
  if (Array.isArray(before) && Array.isArray(after)) {
    const changes = after.flatMap((value, i) =>
      i < before.length ? changesBetween(before[i], value, [...path, i]) : [[...path, i, value]]
    );
    return after.length < before.length ? [...changes, [...path, "length", after.length]] : changes;
  }
  if (Array.isArray(before) || Array.isArray(after)) return whole;
  if (Object.keys(before).some((name) => !Object.hasOwn(after, name))) return whole;
  return Object.entries(after).flatMap(([name, value]) =>
    changesBetween((before as Record<string, unknown>)[name], value, [...path, name])
  );
}

function isCompound(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** The state of a device now; its `record` is that of the last fresh one. */
function stateOf({ record, config }: DeviceHost): LiveJson {
  const state = {
    record: record.toJSON(),
    config: new Uint8Array(config.bytes).toHex(),
  };
  // A copy: the record shares its lists
  return JSON.parse(shownJson(state));
}

/** Streams the state of a device until the reader cancels. */
export function streamChanges(host: DeviceHost): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let state: LiveJson | undefined;
  let sentAt = 0, reportedAt = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isEnded = false, endPause = () => {};
  return new ReadableStream({
    async pull(controller) {
      for (let first = state === undefined; !isEnded; first = false) {
        if (!first) await pause();
        const now = performance.now();
        if (now - reportedAt >= REPORT_PERIOD_MS) {
          reportedAt = now;
          // Not awaited: a busy thread may take its time
          host.freshRecord().catch(() => {});
        }
        const next = stateOf(host);
        const line = state === undefined ? next : changesBetween(state, next);
        if (Array.isArray(line) && !isNews(line) && now - sentAt < HEARTBEAT_MS) continue;
        state = next;
        sentAt = now;
        return controller.enqueue(encoder.encode(`${JSON.stringify(line)}\n`));
      }
    },
    cancel() {
      isEnded = true;
      clearTimeout(timer);
      endPause();
    },
  }, { highWaterMark: 0 });

  function pause(): Promise<void> {
    return new Promise((resolve) => {
      endPause = resolve;
      timer = setTimeout(resolve, CHANGES_PERIOD_MS);
    });
  }
}

/** Whether changes say more than that time has passed. */
function isNews(changes: readonly Change[]): boolean {
  return changes.some((change) => !CLOCKS.includes(change.at(-2) as string));
}
