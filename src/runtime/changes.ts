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

/** Time without a change after which the device is looked at less often. */
const IDLE_MS = 500;

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
export function changesBetween(before: object, after: object): Change[] {
  const changes: Change[] = [];
  compare(before, after, [], changes);
  return changes;
}

type Compound = Readonly<Record<string | number, unknown>>;

/** Adds the changes between two values at a path; it allocates for those only. */
function compare(
  before: unknown,
  after: unknown,
  path: (string | number)[],
  changes: Change[],
): void {
  if (before === after) return;
  if (!isCompound(before) || !isCompound(after) || Array.isArray(before) !== Array.isArray(after)) {
    changes.push([...path, after]);
    return;
  }
  const at = path.length;
  if (Array.isArray(before) && Array.isArray(after)) {
    for (let i = 0; i < after.length; i++) {
      path[at] = i;
      compare(before[i], after[i], path, changes);
    }
    path.length = at;
    if (after.length < before.length) changes.push([...path, "length", after.length]);
    return;
  }
  for (const name in before) {
    if (Object.hasOwn(after, name)) continue;
    changes.push([...path, after]);
    return;
  }
  for (const name in after) {
    path[at] = name;
    compare(before[name], after[name], path, changes);
  }
  path.length = at;
}

function isCompound(value: unknown): value is Compound {
  return typeof value === "object" && value !== null;
}

/** The state of a device now; its `record` is that of the last fresh one. */
function stateOf({ record, config }: DeviceHost): LiveJson {
  const state = {
    record: record.toJSON(),
    config: new Uint8Array(config.bytes).toHex(),
  };
  // A copy: the record shares its lists
  return JSON.parse(JSON.stringify(state));
}

/** Streams the state of a device until the reader cancels. */
export function streamChanges(host: DeviceHost): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let state: LiveJson | undefined;
  let sentAt = 0, changedAt = 0, reportedAt = 0;
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
        if (!Array.isArray(line) || isNews(line)) changedAt = now;
        else if (now - sentAt < HEARTBEAT_MS) continue;
        state = next;
        sentAt = now;
        return controller.enqueue(encoder.encode(`${shownJson(line)}\n`));
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
      // A device that is idle costs little
      const isIdle = performance.now() - changedAt > IDLE_MS;
      timer = setTimeout(resolve, isIdle ? 3 * CHANGES_PERIOD_MS : CHANGES_PERIOD_MS);
    });
  }
}

/** Whether changes say more than that time has passed. */
function isNews(changes: readonly Change[]): boolean {
  return changes.some((change) => !CLOCKS.includes(change.at(-2) as string));
}
