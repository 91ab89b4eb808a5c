import type { QueueRecord, RecordJson } from "../../../src/runtime/record.ts";
import type { ConfigObservation } from "../../../src/virtio/mod.ts";

/** The start of the sample. */
export const SINCE = Date.UTC(2026, 0, 2, 3, 4, 5);

/** An unused field, with overrides. */
export function observation(
  name: string,
  differing: Partial<ConfigObservation> = {},
): ConfigObservation {
  return {
    name,
    feature: null,
    reads: 0,
    firstRead: null,
    lastRead: null,
    writes: 0,
    firstWrite: null,
    lastWrite: null,
    changes: 0,
    refused: 0,
    used: null,
    firstUsed: null,
    lastUsed: null,
    acknowledged: null,
    left: null,
    ...differing,
  };
}

/** A queue that was never started, with overrides. */
export function queue(
  index: number,
  name: string,
  differing: Partial<QueueRecord> = {},
): QueueRecord {
  return {
    index,
    name,
    size: 0,
    enabled: false,
    running: false,
    broken: false,
    starts: 0,
    tracked: false,
    resumed: false,
    resubmitted: 0,
    faults: [],
    requests: 0,
    bytesRead: 0,
    bytesWritten: 0,
    kicks: 0,
    notifications: 0,
    inFlight: 0,
    errors: 0,
    latencies: [],
    source: "reported",
    ...differing,
  };
}

/** A record with content in every section. */
export function sampleRecord(): RecordJson {
  const feature = (bit: number, name: string, owner: "device" | "transport") => ({
    bit,
    name,
    owner,
    source: "reported" as const,
  });
  return {
    version: 1,
    device: { name: "blk", id: 2, about: "A disk" },
    since: SINCE,
    at: SINCE + 125_000,
    features: [
      { ...feature(5, "RO", "device"), offered: false, acknowledged: false },
      { ...feature(9, "FLUSH", "device"), offered: true, acknowledged: true },
      { ...feature(13, "DISCARD", "device"), offered: true, acknowledged: false },
      { ...feature(28, "INDIRECT_DESC", "transport"), offered: true, acknowledged: true },
      { ...feature(30, "PROTOCOL_FEATURES", "transport"), offered: true, acknowledged: false },
      { ...feature(32, "VERSION_1", "transport"), offered: true, acknowledged: true },
    ],
    config: {
      layout: "packed",
      bytes: 12,
      reads: { source: "inferred", note: "QEMU answers the driver from its copy" },
      writes: { source: "reported", note: "QEMU passes on a change of the writeback byte" },
      fields: [
        observation("capacity", { reads: 2, firstRead: SINCE + 40, lastRead: SINCE + 61_000 }),
        observation("writeback", {
          feature: "FLUSH",
          reads: 1,
          firstRead: SINCE + 40,
          lastRead: SINCE + 40,
          writes: 1,
          firstWrite: SINCE + 2000,
          lastWrite: SINCE + 2000,
          changes: 1,
        }),
        observation("max_discard_sectors", { feature: "DISCARD", refused: 3 }),
      ],
      steps: { source: "reported", total: 0, latest: [] },
    },
    status: {
      source: "inferred",
      note: "QEMU sends the status at feature negotiation",
      dropped: 0,
      timeline: [
        {
          at: SINCE + 1200,
          status: 11,
          names: ["ACKNOWLEDGE", "DRIVER", "FEATURES_OK"],
          source: "reported",
        },
        {
          at: SINCE + 1250,
          status: 15,
          names: ["ACKNOWLEDGE", "DRIVER", "FEATURES_OK", "DRIVER_OK"],
          source: "inferred",
        },
      ],
    },
    queues: [
      queue(0, "requestq", {
        size: 128,
        enabled: true,
        running: true,
        starts: 2,
        requests: 12_345,
        bytesRead: 3 * 2 ** 20,
        bytesWritten: 8192,
        kicks: 6172,
        notifications: 1234,
        inFlight: 3,
      }),
      queue(1, "requestq", {
        size: 128,
        enabled: true,
        running: true,
        broken: true,
        starts: 1,
        errors: 1,
        faults: [{
          at: SINCE + 90_000,
          queue: 1,
          rule: "descriptor-loop",
          section: "virtio 1.3, 2.7.5.3",
          message: "Descriptor 7 comes again",
        }],
      }),
      queue(2, "requestq"),
      queue(3, "requestq"),
    ],
    connections: {
      total: 2,
      latest: [
        {
          connectedAt: SINCE + 10,
          disconnectedAt: SINCE + 30,
          reason: "the front-end closed the connection",
          frontend: null,
          messages: 0,
          protocolFeatures: [],
        },
        {
          connectedAt: SINCE + 35,
          disconnectedAt: null,
          reason: null,
          frontend: { pid: 4711, command: "qemu-system-x86" },
          messages: 1041,
          protocolFeatures: ["MQ", "REPLY_ACK", "CONFIG"],
        },
      ],
    },
    errors: {
      total: 1,
      latest: [{
        at: SINCE + 50,
        queue: null,
        rule: "SET_LOG_BASE",
        section: null,
        message: "SET_LOG_BASE is not offered",
      }],
    },
    process: { pid: 4242, cpuSeconds: 1.5 },
    report: {
      store: "disk.img",
      failures: { read: 0, write: 2 },
      reads: [{ select: 1, subsel: 0 }, { select: 17, subsel: 1 }],
    },
  };
}
