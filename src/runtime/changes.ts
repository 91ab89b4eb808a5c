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
const CHANGES_PERIOD_MS = 33;

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

type Compound = Record<string | number, unknown>;

/** Makes `before` equal to `after`, which are values of JSON, and returns what that changed. */
export function updateState(before: object, after: object): Change[] {
  const changes: Change[] = [];
  update(before as Compound, after as Compound, [], changes);
  return changes;
}

/** Adds the changes of what is at a path; it allocates for those only. */
function update(
  before: Compound,
  after: Compound,
  path: (string | number)[],
  changes: Change[],
): void {
  const at = path.length;
  if (Array.isArray(before) && Array.isArray(after)) {
    for (let i = 0; i < after.length; i++) updateMember(before, after, i, path, changes);
    path.length = at;
    if (after.length === before.length) return;
    changes.push([...path, "length", after.length]);
    before.length = after.length;
    return;
  }
  for (const name in after) updateMember(before, after, name, path, changes);
  path.length = at;
}

/** The same for a member; `path` is longer after that. */
function updateMember(
  before: Compound,
  after: Compound,
  name: string | number,
  path: (string | number)[],
  changes: Change[],
): void {
  const was = before[name], is = after[name];
  if (was === is) return;
  path.push(name);
  if (isCompound(was) && isCompound(is) && isUpdatable(was, is)) update(was, is, path, changes);
  else {
    changes.push([...path, is]);
    before[name] = isCompound(is) ? copyOf(is) : is;
  }
  path.pop();
}

function isCompound(value: unknown): value is Compound {
  return typeof value === "object" && value !== null;
}

/** Whether changes of members suffice: none is gone. */
function isUpdatable(before: Compound, after: Compound): boolean {
  if (Array.isArray(before) || Array.isArray(after)) {
    return Array.isArray(before) && Array.isArray(after);
  }
  for (const name in before) if (!Object.hasOwn(after, name)) return false;
  return true;
}

function copyOf<T>(value: T): T {
  return JSON.parse(JSON.stringify(value));
}

/** The state of a device now; its `record` is that of the last fresh one, and shares its lists. */
function stateOf({ record, config }: DeviceHost): LiveJson {
  return { record: record.toJSON(), config: new Uint8Array(config.bytes).toHex() };
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
        const changes = state && updateState(state, next);
        if (changes === undefined || isNews(changes)) changedAt = now;
        else if (now - sentAt < HEARTBEAT_MS) continue; // A later line has the clocks
        const line = changes ?? (state = copyOf(next));
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
