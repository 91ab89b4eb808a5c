/**
 * The record: what is known of what the front-end and the guest's driver did with a device, and how
 * it is known.
 *
 * It is kept from the first message on and across connections. Its shape as JSON is
 * {@linkcode RecordJson}; `version` rises when a program that reads it would have to change.
 *
 * @module
 */

import { protocolFeatureNames } from "../vhost_user/protocol_features.ts";
import {
  type AnyDevice,
  type ConfigLayout,
  type ConfigObservation,
  type ConfigSpace,
  type FeatureDefinition,
  type NamedFeature,
  nameFeatures,
  nameStatus,
  transportMask,
} from "../virtio/mod.ts";
import type { QueueCounts } from "./counters.ts";
import { brokenNotice, type Notices, refusedNotice } from "./notices.ts";
import type { Ring } from "./ring.ts";
import { shownJson } from "./shown.ts";
import { type Source, type Visibility, visibilityOf } from "./visibility.ts";

/** The version of {@linkcode RecordJson}. */
export const RECORD_VERSION: RecordJson["version"] = 1;

const MAX_STATUS_ENTRIES = 64;
const MAX_CONNECTIONS = 16;
const MAX_ERRORS = 32;

/** A feature bit, and what became of it. */
export interface FeatureRecord extends NamedFeature {
  /** Offered by the device. */
  offered: boolean;
  /** Acknowledged by the driver; null while no driver has negotiated. */
  acknowledged: boolean | null;
  /** How it is known. */
  source: Source;
}

/** A change of the device status. Times are milliseconds since 1970, here and everywhere. */
export interface StatusRecord {
  /** When. */
  at: number;
  /** The status, as its bits. */
  status: number;
  /** The names of the bits; `RESET` for none. */
  names: string[];
  /** How it is known. */
  source: Source;
}

/** A fault. */
export interface ErrorRecord {
  /** When. */
  at: number;
  /** Where: the queue's index, or null for a message. */
  queue: number | null;
  /** The rule that was broken, `device`, or the name of the request. */
  rule: string;
  /** The section of the standard, with the standard: `virtio 1.3, 2.7.5`. */
  section: string | null;
  /** What came, and what the rule asks for. */
  message: string;
}

/** A queue. Counters are from the first connection on. */
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
  /** Broken by the last entry of `faults`. */
  broken: boolean;
  /** How often its ring was started. */
  starts: number;
  /** What is in flight is recorded in memory of the front-end (INFLIGHT_SHMFD). */
  tracked: boolean;
  /** It was not begun anew when its ring was started last: somebody had used it before. */
  resumed: boolean;
  /** Requests that somebody who ran it before had left in flight, and that were submitted again. */
  resubmitted: number;
  /** What broke it, the latest last. */
  faults: ErrorRecord[];
  /** How it is known. */
  source: Source;
}

/** A connection of a front-end. */
export interface ConnectionRecord {
  /** When it began. */
  connectedAt: number;
  /** When it ended; null while it lasts. */
  disconnectedAt: number | null;
  /** Why it ended. */
  reason: string | null;
  /** The process at the other end, where the kernel tells. */
  frontend: { pid: number; command: string } | null;
  /** Messages received. */
  messages: number;
  /** vhost-user protocol features that were acknowledged. */
  protocolFeatures: string[];
}

/** The record as JSON. */
export interface RecordJson {
  /** The version of this shape. */
  version: 1;
  /** The device: its name here, the number of its type in the standard, and what it is. */
  device: { name: string; id: number; about: string };
  /** When the record was begun. */
  since: number;
  /** When it was read. */
  at: number;
  /** Every bit that the device or the framework knows, lowest first. */
  features: FeatureRecord[];
  /** Config space: its layout (null where there is none), what can be seen of it, and its fields. */
  config: {
    layout: "packed" | "self-describing" | null;
    bytes: number;
    reads: Visibility;
    writes: Visibility;
    fields: ConfigObservation[];
  };
  /** The device status: its changes, and how many older ones are left out. */
  status: { source: Source; note: string; timeline: StatusRecord[]; dropped: number };
  /** The queues, by index. */
  queues: QueueRecord[];
  /** How many connections there were, and the latest of them. */
  connections: { total: number; latest: ConnectionRecord[] };
  /** Messages that were refused. */
  errors: { total: number; latest: ErrorRecord[] };
  /** What the device itself adds. */
  report: Record<string, unknown>;
}

/** What a record is made of. */
export interface RecordSubject {
  device: AnyDevice;
  offered: bigint;
  config: ConfigSpace<ConfigLayout>;
  queues: readonly Ring[];
  report?: () => Record<string, unknown>;
  /** Where the person who runs the device is told of faults. */
  notices?: Notices;
}

/** Keeps the record of one device. */
export class DeviceRecord {
  readonly #subject: RecordSubject;
  readonly #now: () => number;
  readonly #since: number;
  /** What broke each queue. */
  readonly #faults: ErrorRecord[][];
  #acknowledged: bigint | null = null;
  #timeline: StatusRecord[] = [];
  #timelineDropped = 0;
  #connections: ConnectionRecord[] = [];
  #connectionsTotal = 0;
  #errors: ErrorRecord[] = [];
  #errorsTotal = 0;
  #lastReport: Record<string, unknown> | undefined;
  /** What this connection did with config space. */
  #configUse = { configReads: 0, configWrites: 0, announcements: 0 };

  /** Begins a record. */
  constructor(subject: RecordSubject, now: () => number = Date.now) {
    this.#subject = subject;
    this.#now = now;
    this.#since = now();
    this.#faults = subject.queues.map(() => []);
  }

  /** The device is about to be closed: what it reports now is its last word. */
  finish(): void {
    this.#lastReport ??= this.#report();
  }

  /** A front-end connected. */
  connected(frontend: ConnectionRecord["frontend"]): void {
    this.#connectionsTotal++;
    this.#configUse = { configReads: 0, configWrites: 0, announcements: 0 };
    this.#connections.push({
      connectedAt: this.#now(),
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

  /** The process at the other end of the latest connection, where the kernel tells. */
  get frontend(): ConnectionRecord["frontend"] {
    return this.#connection?.frontend ?? null;
  }

  /** The front-end is gone. */
  disconnected(reason: string): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    connection.disconnectedAt = this.#now();
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
  }

  /** The device status changed, or was seen to. */
  status(status: number, source: Source): void {
    const last = this.#timeline.at(-1);
    if (last?.status === status && last.source === source) return;
    this.#timeline.push({ at: this.#now(), status, names: nameStatus(status), source });
    if (this.#timeline.length > MAX_STATUS_ENTRIES) {
      this.#timeline.shift();
      this.#timelineDropped++;
    }
  }

  /**
   * A fault broke a queue.
   *
   * @param stack That of the error, where the device's code threw it.
   */
  broken(
    queue: number,
    rule: string,
    section: string | null,
    message: string,
    stack?: string,
  ): void {
    const { queues, notices } = this.#subject;
    notices?.add(brokenNotice(queues[queue], rule, section, message, stack));
    queues[queue].broken = true;
    const faults = this.#faults[queue];
    faults.push({ at: this.#now(), queue, rule, section, message });
    if (faults.length > MAX_ERRORS) faults.shift();
  }

  /** A message was refused. */
  refused(request: string, message: string): void {
    this.#subject.notices?.add(refusedNotice(request, message));
    this.#error(request, message);
  }

  /** A request, or the end of a connection, takes long; it is done all the same. */
  slow(what: string, message: string): void {
    this.#subject.notices?.add({ what: `${what} takes long`, why: message });
    this.#error(what, message);
  }

  #error(rule: string, message: string): void {
    this.#errorsTotal++;
    this.#errors.push({ at: this.#now(), queue: null, rule, section: null, message });
    if (this.#errors.length > MAX_ERRORS) this.#errors.shift();
  }

  #features(): FeatureRecord[] {
    const { device, offered } = this.#subject;
    const acknowledged = this.#acknowledged;
    const definitions = (device.features ?? {}) as Record<string, FeatureDefinition>;
    // vhost's own bit is between the front-end and us: no driver ever sees it.
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

  /** What the device adds. That it fails, or says what is no JSON, is no reason to end anything. */
  #report(): Record<string, unknown> {
    try {
      return JSON.parse(shownJson(this.#subject.report?.() ?? {}));
    } catch (error) {
      return { error: `report() failed: ${error instanceof Error ? error.message : error}` };
    }
  }

  /** The record as it is now. */
  toJSON(): RecordJson {
    const { device, config, queues } = this.#subject;
    const visibility = visibilityOf(device.deviceId, {
      command: this.#connection?.frontend?.command ?? null,
      takesConfig: this.#connection?.protocolFeatures.includes("CONFIG") ?? false,
      ...this.#configUse,
    });
    return {
      version: RECORD_VERSION,
      device: { name: device.name, id: device.deviceId, about: device.about },
      since: this.#since,
      at: this.#now(),
      features: this.#features(),
      config: {
        layout: config.layout.size === 0 ? null : config.layout.kind,
        bytes: config.layout.size,
        reads: visibility.configReads,
        writes: visibility.configWrites,
        fields: config.observations,
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
        source: "reported",
      })),
      connections: { total: this.#connectionsTotal, latest: this.#connections },
      errors: { total: this.#errorsTotal, latest: this.#errors },
      report: this.#lastReport ?? this.#report(),
    };
  }
}
