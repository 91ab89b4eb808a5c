/**
 * The record: what the front-end and the guest's driver did with a device, and how that is known.
 *
 * It covers all connections from the first message on. Its JSON is {@linkcode RecordJson};
 * `version` increases when readers would have to change.
 *
 * @module
 */

import { processorSeconds } from "../linux/clock.ts";
import { protocolFeatureNames } from "../vhost_user/protocol_features.ts";
import {
  type AnyDevice,
  type ConfigLayout,
  type ConfigObservation,
  type ConfigSpace,
  type ConfigSteps,
  type FeatureDefinition,
  type NamedFeature,
  nameFeatures,
  nameStatus,
  transportMask,
} from "../virtio/mod.ts";
import type { QueueCounts } from "./counters.ts";
import { DriverTrace, isAllTraced, type TraceRecord, withTraced } from "./driver_trace.ts";
import type { Latencies, LatencyRecord } from "./latency.ts";
import { brokenNotice, type Notices, refusedNotice } from "./notices.ts";
import type { Ring } from "./ring.ts";
import { shownJson } from "./shown.ts";
import { type Source, type Visibility, visibilityOf, visibleInTrace } from "./visibility.ts";
import type { WireTap } from "./wire_tap.ts";

/** The version of {@linkcode RecordJson}. */
const RECORD_VERSION: RecordJson["version"] = 1;

const MAX_STATUS_ENTRIES = 64;
const MAX_CONNECTIONS = 16;
const MAX_ERRORS = 32;

/** A feature bit and its negotiation. */
export interface FeatureRecord extends NamedFeature {
  /** Offered by the device. */
  offered: boolean;
  /** Acknowledged by the driver; null while no driver has negotiated. */
  acknowledged: boolean | null;
  /** The source of this. */
  source: Source;
}

/** A change of the device status. Times are milliseconds since 1970, here and everywhere. */
export interface StatusRecord {
  /** The time. */
  at: number;
  /** The status, as its bits. */
  status: number;
  /** The names of the bits; `RESET` for none. */
  names: string[];
  /** The source of this. */
  source: Source;
}

/** A fault. */
export interface ErrorRecord {
  /** The time. */
  at: number;
  /** The queue's index, or null for a message. */
  queue: number | null;
  /** The rule that was broken, `device`, or the name of the request. */
  rule: string;
  /** The section of the standard, with the standard: `virtio 1.3, 2.7.5`. */
  section: string | null;
  /** What was expected, and what came. */
  message: string;
}

/** A queue. The counters cover all connections. */
export interface QueueRecord extends QueueCounts {
  /** The index that the driver knows it by. */
  index: number;
  /** The name in the device's definition. */
  name: string;
  /** The size that the driver chose; 0 before it did. */
  size: number;
  /** The front-end enabled it. */
  enabled: boolean;
  /** Its ring is started. */
  running: boolean;
  /** The last entry of `faults` broke it. */
  broken: boolean;
  /** Number of starts of its ring. */
  starts: number;
  /** Requests in flight are recorded in memory of the front-end (INFLIGHT_SHMFD). */
  tracked: boolean;
  /** The ring was in use before its last start. */
  resumed: boolean;
  /** Number of requests that an earlier back-end left in flight and that were submitted again. */
  resubmitted: number;
  /** The latencies of a sample of its requests, by kind. */
  latencies: LatencyRecord[];
  /** The faults that broke it, the latest last. */
  faults: ErrorRecord[];
  /** The source of this. */
  source: Source;
}

/** A connection of a front-end. */
export interface ConnectionRecord {
  /** The time of its start. */
  connectedAt: number;
  /** The time of its end; null while it lasts. */
  disconnectedAt: number | null;
  /** The reason for its end. */
  reason: string | null;
  /** The process at the other end, if the kernel knows it. */
  frontend: { pid: number; command: string } | null;
  /** Messages received. */
  messages: number;
  /** Acknowledged vhost-user protocol features. */
  protocolFeatures: string[];
}

/** A process that serves devices. */
export interface ProcessRecord {
  /** Its number. */
  pid: number;
  /** The processor time that all its threads used, in seconds. */
  cpuSeconds: number;
}

/** The record as JSON. */
export interface RecordJson {
  /** The version of this shape. */
  version: 1;
  /**
   * The device: its name, the name of the instance where there are several, the number of its type
   * in the standard, and its description.
   */
  device: { name: string; instance?: string; id: number; about: string };
  /** The time of the record's start. */
  since: number;
  /** The time of reading. */
  at: number;
  /** Every bit that the device or the framework knows, lowest first. */
  features: FeatureRecord[];
  /**
   * Config space: its layout (null if it is empty), the visibility of accesses, its fields, and in
   * the self-describing layout what the driver marked, acknowledged and wrote, in order.
   */
  config: {
    layout: "packed" | "self-describing" | null;
    bytes: number;
    reads: Visibility;
    writes: Visibility;
    fields: ConfigObservation[];
    steps: ConfigSteps & { source: Source };
  };
  /** The device status: its latest changes, and the number of older ones. */
  status: { source: Source; note: string; timeline: StatusRecord[]; dropped: number };
  /** The queues, by index. */
  queues: QueueRecord[];
  /** The number of connections, and the latest of them. */
  connections: { total: number; latest: ConnectionRecord[] };
  /** Messages that were refused. */
  errors: { total: number; latest: ErrorRecord[] };
  /** The driver's own accesses, where a watch traced them. */
  traced?: TraceRecord;
  /** The process that serves the device, with what else it serves. */
  process: ProcessRecord;
  /** The device's own report; `threads` has those of its queue threads. */
  report: Record<string, unknown>;
}

/** The parts of a device that its record shows. */
export interface RecordSubject {
  device: AnyDevice;
  /** The name of an instance. */
  instance?: string;
  offered: bigint;
  config: ConfigSpace<ConfigLayout>;
  queues: readonly Ring[];
  latencies: Latencies;
  report?: () => Record<string, unknown>;
  /** Takes faults for the person who runs the device. */
  notices?: Notices;
  /** Takes faults for a capture of the connection. */
  wire?: WireTap;
}

/** Keeps the record of one device. */
export class DeviceRecord {
  readonly #subject: RecordSubject;
  readonly #since: number;
  /** The faults of each queue. */
  readonly #faults: ErrorRecord[][];
  readonly #trace: DriverTrace;
  #acknowledged: bigint | null = null;
  /** The features, until the driver acknowledges others. */
  #features: FeatureRecord[] | undefined;
  #timeline: StatusRecord[] = [];
  #timelineDropped = 0;
  #connections: ConnectionRecord[] = [];
  #connectionsTotal = 0;
  #errors: ErrorRecord[] = [];
  #errorsTotal = 0;
  #lastReport: Record<string, unknown> | undefined;
  /** Accesses to config space in this connection. */
  #configUse = { configReads: 0, configWrites: 0, announcements: 0 };

  /** Begins a record. */
  constructor(subject: RecordSubject) {
    this.#subject = subject;
    this.#since = Date.now();
    this.#faults = subject.queues.map(() => []);
    this.#trace = new DriverTrace(subject.config.layout.fields, Date.now);
  }

  /** Keeps the device's last report, before the device is closed. */
  finish(): void {
    this.#lastReport ??= this.#report();
  }

  /** A front-end connected. */
  connected(frontend: ConnectionRecord["frontend"]): void {
    this.#connectionsTotal++;
    this.#configUse = { configReads: 0, configWrites: 0, announcements: 0 };
    this.#connections.push({
      connectedAt: Date.now(),
      disconnectedAt: null,
      reason: null,
      frontend,
      messages: 0,
      protocolFeatures: [],
    });
    if (this.#connections.length > MAX_CONNECTIONS) this.#connections.shift();
  }

  get #connection(): ConnectionRecord | undefined {
    return this.#connections.at(-1);
  }

  /** The process at the other end of the latest connection, if the kernel knows it. */
  get frontend(): ConnectionRecord["frontend"] {
    return this.#connection?.frontend ?? null;
  }

  /** The front-end is gone. */
  disconnected(reason: string): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    connection.disconnectedAt = Date.now();
    connection.reason = reason;
  }

  /** A message came. */
  message(): void {
    const connection = this.#connection;
    if (connection !== undefined) connection.messages++;
  }

  /** The front-end read or wrote config space, or was told that it changed. */
  configUsed(how: "configReads" | "configWrites" | "announcements"): void {
    this.#configUse[how]++;
  }

  /** The front-end acknowledged protocol features. */
  protocolFeatures(mask: bigint): void {
    const connection = this.#connection;
    if (connection !== undefined) connection.protocolFeatures = protocolFeatureNames(mask);
  }

  /** The driver acknowledged features. */
  acknowledged(mask: bigint): void {
    this.#acknowledged = mask;
    this.#features = undefined;
    this.#trace.note("SET_FEATURES", mask);
  }

  /** A ring started. */
  ringStarted(queue: number): void {
    this.#trace.note("ring start", BigInt(this.#subject.queues[queue].size), queue);
  }

  /**
   * Takes a batch of the driver's accesses that a watch traced.
   *
   * @throws {TypeError | RangeError} When it is refused; see {@linkcode DriverTrace.take}.
   */
  traced(batch: unknown): void {
    for (const { at, status } of this.#trace.take(batch)) this.status(status, "traced", at);
  }

  /** The device status changed, or was seen to. */
  status(status: number, source: Source, at: number = Date.now()): void {
    let place = this.#timeline.length;
    while (place > 0 && this.#timeline[place - 1].at > at) place--;
    const last = this.#timeline[place - 1];
    if (last?.status === status && last.source === source) return;
    this.#timeline.splice(place, 0, { at, status, names: nameStatus(status), source });
    if (this.#timeline.length > MAX_STATUS_ENTRIES) {
      this.#timeline.shift();
      this.#timelineDropped++;
    }
  }

  /**
   * A fault broke a queue.
   *
   * @param stack The stack of the error, if the device's code threw it.
   */
  broken(
    queue: number,
    rule: string,
    section: string | null,
    message: string,
    stack?: string,
  ): void {
    const { queues, notices, wire } = this.#subject;
    wire?.note(`queue ${queue} broke: ${message}`);
    notices?.add(brokenNotice(queues[queue], rule, section, message, stack));
    queues[queue].broken = true;
    const faults = this.#faults[queue];
    faults.push({ at: Date.now(), queue, rule, section, message });
    if (faults.length > MAX_ERRORS) faults.shift();
  }

  /** A message was refused. */
  refused(request: string, message: string): void {
    this.#subject.notices?.add(refusedNotice(request, message));
    this.#error(request, message);
  }

  /** A request, or the end of a connection, is slow and still pending. */
  slow(what: string, message: string): void {
    this.#subject.notices?.add({ what: `${what} takes long`, why: message });
    this.#error(what, message);
  }

  #error(rule: string, message: string): void {
    this.#subject.wire?.note(`${rule}: ${message}`);
    this.#errorsTotal++;
    this.#errors.push({ at: Date.now(), queue: null, rule, section: null, message });
    if (this.#errors.length > MAX_ERRORS) this.#errors.shift();
  }

  #nameFeatures(): FeatureRecord[] {
    const { device, offered } = this.#subject;
    const acknowledged = this.#acknowledged;
    const definitions = (device.features ?? {}) as Record<string, FeatureDefinition>;
    // No driver sees vhost's own bit
    const vhost = transportMask("PROTOCOL_FEATURES");
    const declared = Object.values(definitions).reduce(
      (mask, { bit }) => mask | 1n << BigInt(bit),
      0n,
    );
    const known = (offered | declared | (acknowledged ?? 0n)) & ~vhost;
    return nameFeatures(known, definitions).map((feature) => {
      const mask = 1n << BigInt(feature.bit);
      return {
        ...feature,
        offered: (offered & mask) !== 0n,
        acknowledged: acknowledged === null ? null : (acknowledged & mask) !== 0n,
        source: "reported",
      };
    });
  }

  /** The device's own report, or the error that it throws. */
  #report(): Record<string, unknown> {
    try {
      return JSON.parse(shownJson(this.#subject.report?.() ?? {}));
    } catch (error) {
      return { error: `report() failed: ${error instanceof Error ? error.message : error}` };
    }
  }

  /** The record as it is now. */
  toJSON(): RecordJson {
    const { device, instance, config, queues, latencies } = this.#subject;
    const traced = this.#trace.toJSON();
    const isTraced = traced !== undefined && isAllTraced(traced);
    const visibility = isTraced ? visibleInTrace(traced) : visibilityOf(device.deviceId, {
      command: this.#connection?.frontend?.command ?? null,
      takesConfig: this.#connection?.protocolFeatures.includes("CONFIG") ?? false,
      ...this.#configUse,
    });
    return {
      version: RECORD_VERSION,
      device: {
        name: device.name,
        ...instance !== undefined && { instance },
        id: device.deviceId,
        about: device.about,
      },
      since: this.#since,
      at: Date.now(),
      features: this.#features ??= this.#nameFeatures(),
      config: {
        layout: config.layout.size === 0 ? null : config.layout.kind,
        bytes: config.layout.size,
        reads: visibility.configReads,
        writes: visibility.configWrites,
        fields: isTraced ? withTraced(config.observations, traced) : config.observations,
        steps: { source: "reported", ...config.steps },
      },
      status: { ...visibility.status, timeline: this.#timeline, dropped: this.#timelineDropped },
      queues: queues.map((ring) => ({
        index: ring.index,
        name: ring.name,
        size: ring.size,
        enabled: ring.enabled,
        running: ring.running,
        broken: ring.broken,
        starts: ring.starts,
        tracked: ring.tracked,
        resumed: ring.resumed,
        resubmitted: ring.resubmitted,
        faults: this.#faults[ring.index],
        ...ring.counters.toJSON(),
        latencies: latencies.toJSON(ring.index, device.queues[ring.name]),
        source: "reported",
      })),
      connections: { total: this.#connectionsTotal, latest: this.#connections },
      errors: { total: this.#errorsTotal, latest: this.#errors },
      ...traced !== undefined && { traced },
      process: { pid: Deno.pid, cpuSeconds: processorSeconds() },
      report: this.#lastReport ?? this.#report(),
    };
  }
}
