/**
 * The shape of a record, for those that others wrote: a file, or what a control socket answers.
 *
 * @module
 */

import type { LatencyRecord } from "./latency.ts";
import type { ErrorRecord, QueueRecord, RecordJson } from "./record.ts";
import {
  any,
  type Check,
  flag,
  list,
  members,
  number,
  optional,
  orNull,
  text,
  wrong,
} from "./shape.ts";

const visibility = members<RecordJson["config"]["reads"]>({ source: text, note: text });

const fault = members<ErrorRecord>({
  ...{ at: number, queue: orNull(number), rule: text, section: orNull(text), message: text },
});

const latency = members<LatencyRecord>({
  ...{ kind: text, samples: number, totalUs: number, maxUs: number },
  ...{ p50Us: number, p90Us: number, p99Us: number, p999Us: number },
  buckets: list((pair, at) => {
    list(number)(pair, at);
    if ((pair as number[]).length !== 2) throw wrong(at, "two numbers", pair);
  }),
});

const queue = members<QueueRecord>({
  ...{ index: number, name: text, size: number, source: text },
  ...{ enabled: flag, running: flag, broken: flag, starts: number, errors: number },
  ...{ requests: number, bytesRead: number, bytesWritten: number, inFlight: number },
  ...{ kicks: number, notifications: number, faults: list(fault) },
  ...{ tracked: optional(flag), resumed: optional(flag), resubmitted: optional(number) },
  latencies: optional(list(latency)),
});

/** A record of this version of its shape, or of an earlier vhostd that kept less. */
export const checkRecord: Check<RecordJson> = members<RecordJson>({
  version: number,
  device: members({ name: text, instance: optional(text), id: number, about: text }),
  since: number,
  at: number,
  features: list(members({
    ...{ bit: number, name: text, owner: text, offered: flag, acknowledged: orNull(flag) },
    source: text,
  })),
  config: members({
    layout: orNull(text),
    bytes: number,
    reads: visibility,
    writes: visibility,
    fields: list(members({
      ...{ name: text, feature: orNull(text), changes: number, refused: number },
      ...{ reads: number, firstRead: orNull(number), lastRead: orNull(number) },
      ...{ writes: number, firstWrite: orNull(number), lastWrite: orNull(number) },
      ...{ used: orNull(flag), firstUsed: orNull(number), lastUsed: orNull(number) },
      ...{ acknowledged: orNull(list(text)), left: orNull(list(text)) },
    })),
    steps: optional(members({
      total: number,
      latest: list(members({ at: number, field: orNull(text), step: text, bits: list(text) })),
      source: text,
    })),
  }),
  status: members({
    source: text,
    note: text,
    timeline: list(members({ at: number, status: number, names: list(text), source: text })),
    dropped: number,
  }),
  queues: list(queue),
  connections: members({
    total: number,
    latest: list(members({
      ...{ connectedAt: number, disconnectedAt: orNull(number), reason: orNull(text) },
      frontend: orNull(members({ pid: number, command: text })),
      messages: number,
      protocolFeatures: list(text),
    })),
  }),
  errors: members({ total: number, latest: list(fault) }),
  traced: optional(members({
    ...{ source: text, since: number, until: orNull(number), isWhole: flag, isComplete: flag },
    ...{ lost: number, others: number },
    config: list(members({
      ...{ access: text, offset: number, bytes: number, fields: list(text), count: number },
      ...{ first: number, last: number },
    })),
    timeline: members({
      total: number,
      latest: list(members({
        ...{ at: number, access: text, register: text, offset: number, bytes: number },
        ...{ index: orNull(number), value: text, count: number, source: text },
      })),
    }),
  })),
  process: optional(members({ pid: number, cpuSeconds: number })),
  report(value, at) {
    members({})(value, at);
    any(value, at);
  },
});
