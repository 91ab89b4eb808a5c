/**
 * The driver's accesses to a device's registers, as the front-end's process traced them. `vhostd
 * watch` reads QEMU's trace and posts it to the control socket, where it joins what the back-end saw.
 *
 * @module
 */

import type { ConfigField } from "../virtio/config/layout.ts";
import type { ConfigObservation } from "../virtio/mod.ts";
import type { Source } from "./visibility.ts";

/** Accesses that one batch may have. */
export const MAX_BATCH_ACCESSES = 4096;

/** Time after its last batch for which a watch counts as attached, in milliseconds. */
export const WATCH_EXPIRY_MS = 10_000;

const MAX_TIMELINE = 256;
/** Distinct accesses to config space that are counted: by kind, offset and length. */
const MAX_DISTINCT = 1024;
const MAX_ID_CHARACTERS = 64;
const MAX_OFFSET = 0xffff;
const MAX_INDEX = 0xffff;
const MAX_COUNT = 2 ** 32;

/**
 * The registers: those of virtio 1.3, 4.1.4.3 (Common configuration structure layout), and `config`
 * for the device's own config space. Those that only virtio-mmio or a legacy device has have their
 * names there in this style. The last two are events that the back-end saw.
 */
export const REGISTERS = [
  ...["device_feature_select", "device_feature", "driver_feature_select", "driver_feature"],
  ...["config_msix_vector", "num_queues", "device_status", "config_generation"],
  ...["queue_select", "queue_size", "queue_msix_vector", "queue_enable", "queue_notify_off"],
  ...["queue_desc", "queue_driver", "queue_device", "queue_notif_config_data", "queue_reset"],
  ...["magic_value", "version", "device_id", "vendor_id", "guest_page_size"],
  ...["queue_align", "queue_pfn", "shm", "other", "config"],
  ...["SET_FEATURES", "ring start"],
];

/** Accesses to a register that followed each other and were equal; usually one. */
export interface RegisterAccess {
  /** The time of the first, in milliseconds since 1970, with a fraction if it is known. */
  at: number;
  /** What the driver did; `event` for what the back-end saw. */
  access: "read" | "write" | "event";
  /** The name of the register, in the style of virtio 1.3, 4.1.4.3, or of the event. */
  register: string;
  /** Offset in config space in bytes; for other registers that in the register. */
  offset: number;
  /** Length in bytes. */
  bytes: number;
  /** The word of a feature register (32 bits each), or the queue; null for others. */
  index: number | null;
  /** The value, as hexadecimal digits after `0x`. */
  value: string;
  /** Number of accesses. */
  count: number;
}

/** An access in the record's timeline. */
export interface TimelineEntry extends RegisterAccess {
  /** `reported` for what the back-end saw. */
  source: Source;
}

/** The driver's accesses of one kind to one place of config space. */
export interface ConfigAccess {
  /** What the driver did. */
  access: "read" | "write";
  /** Offset in bytes. */
  offset: number;
  /** Length in bytes. */
  bytes: number;
  /** The fields of which it covers a byte. */
  fields: string[];
  /** Number of accesses. */
  count: number;
  /** The time of the first, in milliseconds since 1970. */
  first: number;
  /** The time of the last. */
  last: number;
}

/** What watches traced. */
export interface TraceRecord {
  /** The source of all that is not an event. */
  source: "traced";
  /** The time of the first watch's start. */
  since: number;
  /** The time of the last one's end; null while it is attached. */
  until: number | null;
  /** Whether it has all of a driver: it began before one, or has seen a reset. */
  isWhole: boolean;
  /** Whether it ended with the front-end, so that nothing of that was missed. */
  isComplete: boolean;
  /** Accesses that a watch had to drop, and times at which QEMU may have. */
  lost: number;
  /** Accesses to config space: by kind, offset and length, in the order of their first time. */
  config: ConfigAccess[];
  /** Accesses to config space that were too many to tell apart. */
  others: number;
  /** The latest accesses and events in the order of time, and the number of all. */
  timeline: { total: number; latest: TimelineEntry[] };
}

/** One batch of a watch: the body of `POST /traced`. */
export interface TraceBatch {
  /** The watch: any text that others do not have. */
  watch: string;
  /** Accesses, in the order of time. */
  accesses?: RegisterAccess[];
  /** Accesses that were dropped before these. */
  lost?: number;
  /** The trace began before any driver. */
  whole?: boolean;
  /** The watch ends here: with the front-end, or before it. */
  end?: "with front-end" | "before front-end";
}

/** Keeps what was traced of one device. */
export class DriverTrace {
  readonly #fields: readonly ConfigField[];
  readonly #now: () => number;
  #watch: string | undefined;
  #heardAt = 0;
  #since: number | undefined;
  #until: number | null = null;
  #isWhole = false;
  #isComplete = false;
  #lost = 0;
  #others = 0;
  #total = 0;
  readonly #config = new Map<string, ConfigAccess>();
  readonly #timeline: TimelineEntry[] = [];

  /** @param fields The fields of config space. */
  constructor(fields: readonly ConfigField[], now: () => number) {
    this.#fields = fields;
    this.#now = now;
  }

  /** Notes an event that the back-end saw. */
  note(register: string, value: bigint, index: number | null = null): void {
    const place = { offset: 0, bytes: 8, index, value: `0x${value.toString(16)}`, count: 1 };
    this.#add({ at: this.#now(), access: "event", register, ...place, source: "reported" });
  }

  /**
   * Takes a batch.
   *
   * @returns The driver's writes to the device status.
   * @throws {TypeError} When it is no {@linkcode TraceBatch}; nothing of it is taken then.
   * @throws {RangeError} When another watch is attached.
   */
  take(body: unknown): { at: number; status: number }[] {
    const { watch, accesses = [], lost = 0, whole = false, end } = checkBatch(body);
    const now = this.#now();
    if (this.#watch !== watch) {
      if (this.#isAttached) {
        throw new RangeError("Expected no other watch, but one is attached already; end it first");
      }
      this.#watch = watch;
      this.#since ??= now;
      this.#until = null;
      this.#isWhole = whole;
      this.#isComplete = false;
    }
    this.#heardAt = now;
    this.#lost += lost;
    for (const access of accesses) {
      const entry: TimelineEntry = { ...access, at: Math.min(access.at, now), source: "traced" };
      if (access.register === "config") this.#count(entry);
      this.#add(entry);
    }
    if (end !== undefined) {
      this.#watch = undefined;
      this.#until = now;
      this.#isComplete = end === "with front-end";
    }
    const statuses = accesses.filter(({ access, register }) =>
      access === "write" && register === "device_status"
    ).map(({ at, value }) => ({ at: Math.min(at, now), status: Number(value) & 0xff }));
    this.#isWhole ||= statuses.some(({ status }) => status === 0);
    return statuses;
  }

  get #isAttached(): boolean {
    return this.#watch !== undefined && this.#now() - this.#heardAt < WATCH_EXPIRY_MS;
  }

  /** Counts an access to config space by its place. */
  #count({ access, offset, bytes, at, count }: TimelineEntry): void {
    const key = `${access} ${offset}/${bytes}`;
    const known = this.#config.get(key);
    if (known !== undefined) {
      known.count += count;
      known.last = at;
    } else if (this.#config.size < MAX_DISTINCT) {
      const fields = this.#fields.filter((field) =>
        field.offset < offset + bytes && offset < field.offset + field.size
      ).map(({ name }) => name);
      const kind = access as ConfigAccess["access"];
      this.#config.set(key, { access: kind, offset, bytes, fields, count, first: at, last: at });
    } else {
      this.#others += count;
    }
  }

  /** Adds to the timeline at its time: a batch comes later than what the back-end saw. */
  #add(entry: TimelineEntry): void {
    let at = this.#timeline.length;
    while (at > 0 && this.#timeline[at - 1].at > entry.at) at--;
    this.#timeline.splice(at, 0, entry);
    this.#total += entry.count;
    if (this.#timeline.length > MAX_TIMELINE) this.#timeline.shift();
  }

  /** What was traced, or undefined where nothing watched. */
  toJSON(): TraceRecord | undefined {
    if (this.#since === undefined) return undefined;
    return {
      source: "traced",
      since: this.#since,
      until: this.#until ?? (this.#isAttached ? null : this.#heardAt),
      isWhole: this.#isWhole,
      isComplete: this.#isComplete,
      lost: this.#lost,
      config: [...this.#config.values()].map((access) => ({ ...access })),
      others: this.#others,
      timeline: { total: this.#total, latest: [...this.#timeline] },
    };
  }
}

/** Whether a trace has all that the driver of the latest connection did. */
export function isAllTraced({ isWhole, isComplete, until }: TraceRecord): boolean {
  return isWhole && (isComplete || until === null);
}

/** Observations with the driver's own accesses in place of those that the front-end passed on. */
export function withTraced(
  observations: ConfigObservation[],
  { config }: TraceRecord,
): ConfigObservation[] {
  return observations.map((observation) => {
    const own = config.filter(({ fields }) => fields.includes(observation.name));
    const counts = (kind: ConfigAccess["access"]) => {
      const those = own.filter(({ access }) => access === kind);
      return {
        count: those.reduce((sum, { count }) => sum + count, 0),
        first: those.length === 0 ? null : Math.min(...those.map(({ first }) => first)),
        last: those.length === 0 ? null : Math.max(...those.map(({ last }) => last)),
      };
    };
    const reads = counts("read"), writes = counts("write");
    return {
      ...observation,
      reads: reads.count,
      firstRead: reads.first,
      lastRead: reads.last,
      writes: writes.count,
      firstWrite: writes.first,
      lastWrite: writes.last,
    };
  });
}

function checkBatch(body: unknown): TraceBatch {
  const { watch, accesses, lost, whole, end } = expectObject("a batch", body) as Partial<
    TraceBatch
  >;
  if (typeof watch !== "string" || watch === "" || watch.length > MAX_ID_CHARACTERS) {
    throw new TypeError(`Expected watch to be a text of up to ${MAX_ID_CHARACTERS} characters`);
  }
  if (lost !== undefined) expectInteger("lost", lost, 0, MAX_COUNT);
  if (whole !== undefined && typeof whole !== "boolean") {
    throw new TypeError("Expected whole to be true or false");
  }
  if (end !== undefined && end !== "with front-end" && end !== "before front-end") {
    throw new TypeError('Expected end to be "with front-end" or "before front-end"');
  }
  if (accesses !== undefined) {
    if (!Array.isArray(accesses) || accesses.length > MAX_BATCH_ACCESSES) {
      throw new TypeError(`Expected accesses to be a list of up to ${MAX_BATCH_ACCESSES}`);
    }
    return { watch, lost, whole, end, accesses: accesses.map(checkAccess) };
  }
  return { watch, lost, whole, end };
}

function checkAccess(item: unknown): RegisterAccess {
  const { at, access, register, offset, bytes, index, value, count } = expectObject(
    "an access",
    item,
  ) as unknown as RegisterAccess;
  if (typeof at !== "number" || !Number.isFinite(at) || at < 0) {
    throw new TypeError("Expected at to be a time in milliseconds");
  }
  if (access !== "read" && access !== "write") {
    throw new TypeError("Expected access to be read or write");
  }
  if (!REGISTERS.slice(0, -2).includes(register)) {
    throw new TypeError("Expected register to be one that is known");
  }
  expectInteger("offset", offset, 0, MAX_OFFSET);
  expectInteger("bytes", bytes, 1, 8);
  if (index !== null) expectInteger("index", index, 0, MAX_INDEX);
  expectInteger("count", count, 1, MAX_COUNT);
  if (typeof value !== "string" || !/^0x[0-9a-f]{1,16}$/.test(value)) {
    throw new TypeError("Expected value to be 0x and up to 16 hexadecimal digits");
  }
  return { at, access, register, offset, bytes, index, value, count };
}

function expectObject(what: string, value: unknown): object {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new TypeError(`Expected ${what} to be an object`);
}

function expectInteger(name: string, value: unknown, least: number, most: number): void {
  if (Number.isInteger(value) && value as number >= least && value as number <= most) return;
  throw new TypeError(`Expected ${name} to be an integer from ${least} to ${most}`);
}
