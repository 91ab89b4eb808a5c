/**
 * A device's config space: its bytes, what the driver may do with them, and the record of what it
 * did.
 *
 * @module
 */

import { ConfigAccessError } from "./error.ts";
import type { ConfigField, ConfigLayout, ConfigView } from "./layout.ts";
import { CONFIG_STATUS, CONFIG_USED } from "./self_describing.ts";

/** Settings of a {@linkcode ConfigSpace}. */
export interface ConfigSpaceOptions {
  /**
   * The clock of the observations, in milliseconds since 1970.
   *
   * @default {Date.now}
   */
  now?: () => number;
}

/** Settings of one {@linkcode ConfigSpace.write}. */
export interface ConfigWriteOptions {
  /**
   * The write brings the state of a device that migrates here, read-only fields and all, and is not
   * the driver's.
   *
   * @default {false}
   */
  migration?: boolean;
  /** Called before anything is applied; what it throws refuses the write. */
  check?: (write: ConfigWrite) => void;
}

/** One change that a write makes. */
export interface ConfigChange {
  /** The flat name of the field. */
  readonly name: string;
  /**
   * What changes: the field's value, or, in the self-describing layout, its mark, its acknowledged
   * bits or the status.
   */
  readonly part: "value" | "mark" | "acknowledged" | "status";
  /** Where `before` and `after` lie in config space, in bytes. */
  readonly offset: number;
  /** The whole part before the write: a copy. */
  readonly before: Uint8Array;
  /** The whole part after the write: a copy. */
  readonly after: Uint8Array;
}

/** What a write does. */
export interface ConfigWrite {
  /** What changes, in the order of config space; empty if nothing does. */
  readonly fields: readonly ConfigChange[];
  /**
   * The fields whose bytes in the write were not applied because the driver may only read them: a
   * stale copy, most likely.
   */
  readonly ignored: readonly string[];
  /** Whether it is part of a migration. */
  readonly migration: boolean;
  /** Whether it resets the space, by a status of 0. */
  readonly reset: boolean;
}

/**
 * What a driver did with one field, and how it stands. Times are in milliseconds since 1970, null
 * for never. An access counts once for each field of which it covers a byte.
 */
export interface ConfigObservation {
  /** The flat name of the field. */
  name: string;
  /** The feature bit that makes it meaningful, or null. */
  feature: string | null;
  /** How many reads covered it. */
  reads: number;
  /** When the first of them came. */
  firstRead: number | null;
  /** When the last of them came. */
  lastRead: number | null;
  /** How many accepted writes covered a byte of it that the driver may write. */
  writes: number;
  /** When the first of them came. */
  firstWrite: number | null;
  /** When the last of them came. */
  lastWrite: number | null;
  /** How many of these writes changed it. */
  changes: number;
  /** How many writes were refused because of it. */
  refused: number;
  /** Whether it is marked as used now; null where the layout has no marks. */
  used: boolean | null;
  /** When the driver first marked it. */
  firstUsed: number | null;
  /** When the driver last marked it. */
  lastUsed: number | null;
  /** The bits acknowledged now, by name; null if it is no bit field. */
  acknowledged: string[] | null;
  /** The bits offered now that are not acknowledged; null as above. */
  left: string[] | null;
}

/** A config space as JSON. */
export interface ConfigSpaceJson {
  /** Its layout. */
  layout: "packed" | "self-describing";
  /** Its size in bytes. */
  size: number;
  /** What the driver did with each field. */
  fields: ConfigObservation[];
}

const STATUS_BITS = CONFIG_STATUS.ACKNOWLEDGE | CONFIG_STATUS.DRIVER |
  CONFIG_STATUS.DRIVER_OK | CONFIG_STATUS.FAILED;

class Counter {
  count = 0;
  first: number | null = null;
  last: number | null = null;

  add(now: number) {
    this.count++;
    this.first ??= now;
    this.last = now;
  }
}

class FieldRecord {
  readonly reads = new Counter();
  readonly writes = new Counter();
  readonly marks = new Counter();
  changes = 0;
  refused = 0;
  constructor(readonly field: ConfigField) {}

  isCovered(start: number, end: number): boolean {
    const { offset, size } = this.field;
    return offset < end && start < offset + size;
  }
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}

/**
 * The config space of one device, in either layout: GET_CONFIG is `read`, SET_CONFIG is `write`,
 * and the device itself uses `view`.
 *
 * A front-end may send the whole space although the driver wrote one byte (QEMU does), the rest
 * being its copy from the last read. So in a write that covers a byte that the driver may write,
 * bytes that it may only read are ignored. A write of nothing but such bytes is refused, unless it
 * changes nothing. A copy that is out of date can still undo what the device itself changed in a
 * *writable* field since the front-end's last read.
 *
 * The space is used by one thread; other threads may use views of its buffer.
 *
 * @typeParam L The layout
 *
 * @example Usage
 * ```ts
 * import { ConfigSpace } from "./space.ts";
 * import { packed } from "./layout.ts";
 * import { u64, u8 } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const space = new ConfigSpace(packed({
 *   capacity: u64("Capacity in sectors of 512 bytes"),
 *   writeback: u8("1: write-back cache", { access: "rw" }),
 * }));
 * space.view.capacity = 8n;
 * assertEquals([...space.read(0, 9)], [8, 0, 0, 0, 0, 0, 0, 0, 0]);
 *
 * const stale = Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0, 1);
 * const { fields, ignored } = space.write(0, stale);
 * assertEquals(fields.map((change) => change.name), ["writeback"]);
 * assertEquals(ignored, ["capacity"]);
 * assertEquals(space.view.capacity, 8n);
 * assertEquals(space.observations[1].writes, 1);
 * ```
 */
export class ConfigSpace<L extends ConfigLayout> {
  /** The layout. */
  readonly layout: L;
  /** The memory of the space, live: `layout.size` bytes. */
  readonly bytes: Uint8Array;
  /** The device's typed accessors, live. */
  readonly view: ConfigView<L>;
  readonly #now: () => number;
  readonly #records: readonly FieldRecord[];
  // What writable bytes held before the driver first wrote them since the last reset: -1 where it
  // did not
  readonly #initial: Int16Array;

  /**
   * A space in this layout. A buffer that is given stays the caller's. Blank memory gets the
   * layout's types and lengths, if it has any; a space that is there already is kept as it is.
   *
   * @throws {RangeError} if the buffer is smaller than the layout
   */
  constructor(
    layout: L,
    buffer: ArrayBufferLike = new SharedArrayBuffer(layout.size),
    options: ConfigSpaceOptions = {},
  ) {
    this.layout = layout;
    this.view = layout.view(buffer) as ConfigView<L>;
    this.bytes = new Uint8Array(buffer, 0, layout.size);
    this.#now = options.now ?? Date.now;
    this.#records = layout.fields.map((field) => new FieldRecord(field));
    this.#initial = new Int16Array(layout.size).fill(-1);
    // No type is 0 but the end's, so a space with fields that starts with one is blank; one that
    // does not belongs to a device that runs already
    if (layout.size > 0 && this.bytes[0] === 0) layout.initialise(buffer);
  }

  /**
   * Reads `size` bytes from `offset` on, for the driver. What comes back is a copy.
   *
   * @throws {ConfigAccessError} if the range is not inside the space
   */
  read(offset: number, size: number): Uint8Array<ArrayBuffer> {
    const end = this.#end("read", offset, size);
    const now = this.#now();
    for (const record of this.#records) {
      if (size > 0 && record.isCovered(offset, end)) record.reads.add(now);
    }
    const copy = new Uint8Array(size);
    copy.set(this.bytes.subarray(offset, end));
    return copy;
  }

  /**
   * Writes bytes from `offset` on, for the driver, and tells what changed. A write that is refused
   * changes nothing.
   *
   * @throws {ConfigAccessError} if the range is not inside the space; if it has only bytes that the
   * driver may not write, and they differ; if it takes back a mark, an acknowledged bit or a status
   * bit, acknowledges a bit that is not offered, sets an unknown status bit, or alters a type
   * number; in a migration, if types or lengths are not those of this layout
   * @throws what `options.check` throws
   */
  write(offset: number, data: Uint8Array, options: ConfigWriteOptions = {}): ConfigWrite {
    const end = this.#end("write", offset, data.length);
    const migration = options.migration ?? false;
    const before = this.bytes.slice();
    const next = before.slice();
    const ignored = migration ? this.#migrate(next, offset, data) : this.#apply(next, offset, data);
    const reset = !migration && this.#isReset(before, next);
    // A write that resets does nothing else
    if (reset) next.set(this.#cleared(before));

    const write: ConfigWrite = { fields: this.#changes(before, next), ignored, migration, reset };
    try {
      options.check?.(write);
    } catch (error) {
      for (const name of new Set(write.fields.map((change) => change.name))) {
        this.#refused(name);
      }
      throw error;
    }

    if (!migration) this.#observe(write, offset, end);
    this.#store(before, next);
    if (reset) this.#initial.fill(-1);
    return write;
  }

  /**
   * Puts back what the driver did, at a device reset: marks, acknowledged bits and status are
   * cleared, and writable fields get what they held before the driver first wrote them. The
   * observations stay.
   */
  reset(): void {
    const before = this.bytes.slice();
    this.#store(before, this.#cleared(before));
    this.#initial.fill(-1);
  }

  /** What the driver did with each field up to now: a copy. */
  get observations(): ConfigObservation[] {
    return this.#records.map(
      ({ field, reads, writes, marks, changes, refused }) => ({
        name: field.name,
        feature: field.feature ?? null,
        reads: reads.count,
        firstRead: reads.first,
        lastRead: reads.last,
        writes: writes.count,
        firstWrite: writes.first,
        lastWrite: writes.last,
        changes,
        refused,
        used: field.mark === undefined ? null : (this.bytes[field.mark.offset] & CONFIG_USED) !== 0,
        firstUsed: marks.first,
        lastUsed: marks.last,
        acknowledged: this.#bits(field, (offered, acked) => offered && acked),
        left: this.#bits(field, (offered, acked) => offered && !acked),
      }),
    );
  }

  /** The layout's kind, the size and the observations. */
  toJSON(): ConfigSpaceJson {
    const { kind, size } = this.layout;
    return { layout: kind, size, fields: this.observations };
  }

  #end(verb: string, offset: number, size: number): number {
    const end = offset + size;
    if (
      !Number.isInteger(offset) || !Number.isInteger(size) || offset < 0 ||
      size < 0 || end > this.layout.size
    ) {
      throw new ConfigAccessError(
        `Cannot ${verb} ${size} bytes at offset ${offset} of config space: outside its ${this.layout.size} bytes`,
      );
    }
    return end;
  }

  #refused(name: string): void {
    for (const record of this.#records) {
      const { name: own } = record.field;
      // A mark belongs to all flat fields of its entry
      const isOwn = own === name || own.startsWith(`${name}.`) ||
        own.startsWith(`${name}[`);
      if (isOwn) record.refused++;
    }
  }

  #refuse(at: number, why: string): never {
    const { owner } = this.layout.bytes[at];
    if (owner === undefined) {
      throw new ConfigAccessError(
        `Cannot write the end of config space (offset ${at}): it is fixed`,
      );
    }
    this.#refused(owner);
    throw new ConfigAccessError(
      `Cannot write config field ${owner} (offset ${at}): ${why}`,
      owner,
    );
  }

  /** Applies a driver's write to a copy, and names the fields it left out. */
  #apply(next: Uint8Array, offset: number, data: Uint8Array): string[] {
    const ignored = new Set<string>();
    let firstIgnored = -1;
    let isWritable = false;
    for (let i = 0; i < data.length; i++) {
      const at = offset + i;
      const { rule, owner, mirror } = this.layout.bytes[at];
      if (rule === "ro" || rule === "fixed") {
        if (data[i] !== next[at]) {
          if (firstIgnored === -1) firstIgnored = at;
          if (owner !== undefined) ignored.add(owner);
        }
        continue;
      }
      isWritable = true;
      if (rule === "mark") {
        if ((data[i] ^ next[at]) & ~CONFIG_USED) {
          this.#refuse(at, `alters its type to ${hex(data[i])}`);
        }
        this.#checkKept(at, next[at], data[i], "mark");
      } else if (rule === "ack") {
        this.#checkOffered(at, data[i], next[mirror!]);
        this.#checkKept(at, next[at], data[i], "acknowledgement");
      } else if (rule === "status" && data[i] !== 0) {
        const unknown = data[i] & ~STATUS_BITS;
        if (unknown !== 0) this.#refuse(at, `sets unknown status bits ${hex(unknown)}`);
        this.#checkKept(at, next[at], data[i], "status");
      }
      next[at] = data[i];
    }
    if (!isWritable && firstIgnored !== -1) {
      const isFixed = this.layout.bytes[firstIgnored].rule === "fixed";
      this.#refuse(firstIgnored, isFixed ? "its length is fixed" : "it is read-only");
    }
    return [...ignored];
  }

  #checkKept(at: number, before: number, after: number, what: string): void {
    const lost = before & ~after;
    if (lost !== 0) this.#refuse(at, `takes back ${what} bits ${hex(lost)} without a reset`);
  }

  #checkOffered(at: number, acknowledged: number, offered: number): void {
    const extra = acknowledged & ~offered;
    if (extra !== 0) {
      this.#refuse(at, `acknowledges bits ${hex(extra)}, which are not offered`);
    }
  }

  /** Applies the state of a migrating device to a copy. */
  #migrate(next: Uint8Array, offset: number, data: Uint8Array): string[] {
    for (let i = 0; i < data.length; i++) {
      const at = offset + i;
      const { rule } = this.layout.bytes[at];
      const kept = rule === "fixed" ? 0xff : rule === "mark" ? 0x7f : 0;
      if ((data[i] ^ next[at]) & kept) {
        this.#refuse(
          at,
          `the migrated space has ${hex(data[i])} for ${hex(next[at])}`,
        );
      }
      next[at] = data[i];
    }
    for (const [at, { rule, mirror }] of this.layout.bytes.entries()) {
      if (rule === "ack") this.#checkOffered(at, next[at], next[mirror!]);
    }
    return [];
  }

  #isReset(before: Uint8Array, next: Uint8Array): boolean {
    return this.layout.bytes.some(({ rule }, at) =>
      rule === "status" && next[at] === 0 && before[at] !== 0
    );
  }

  /** The space without what the driver did. */
  #cleared(before: Uint8Array): Uint8Array {
    const next = before.slice();
    for (const [at, { rule }] of this.layout.bytes.entries()) {
      if (rule === "mark") next[at] &= ~CONFIG_USED;
      else if (rule === "ack" || rule === "status") next[at] = 0;
      else if (this.#initial[at] !== -1) next[at] = this.#initial[at];
    }
    return next;
  }

  /**
   * Stores the bytes that the write changes and no others: what the device itself changed since
   * `before` stays.
   */
  #store(before: Uint8Array, next: Uint8Array): void {
    for (const [at, { rule }] of this.layout.bytes.entries()) {
      if (next[at] === before[at]) continue;
      if (rule === "rw" && this.#initial[at] === -1) {
        this.#initial[at] = before[at];
      }
      this.bytes[at] = next[at];
    }
  }

  #changes(before: Uint8Array, next: Uint8Array): ConfigChange[] {
    const changes: ConfigChange[] = [];
    const add = (name: string, part: ConfigChange["part"], offset: number, size: number) => {
      const old = before.slice(offset, offset + size);
      const after = next.slice(offset, offset + size);
      if (old.some((byte, i) => byte !== after[i])) {
        changes.push({ name, part, offset, before: old, after });
      }
    };
    for (const { name, offset, size, type, mark } of this.layout.fields) {
      if (mark !== undefined) add(name, "mark", mark.offset, 1);
      if (type === "status") {
        add(name, "status", offset, size);
      } else if (type === "bits") {
        add(name, "value", offset, size / 2);
        add(name, "acknowledged", offset + size / 2, size / 2);
      } else {
        add(name, "value", offset, size);
      }
    }
    return changes;
  }

  #observe({ fields, reset }: ConfigWrite, start: number, end: number): void {
    const now = this.#now();
    const { bytes } = this.layout;
    for (const record of this.#records) {
      const { name, offset, size } = record.field;
      const own = fields.filter((change) => change.name === name);
      if (!reset && own.some(({ part }) => part === "mark")) {
        record.marks.add(now);
      }
      const from = Math.max(start, offset);
      const to = Math.min(end, offset + size);
      if (!bytes.slice(from, to).some(({ rule }) => rule !== "ro")) continue;
      record.writes.add(now);
      if (own.some(({ part }) => part !== "mark")) record.changes++;
    }
  }

  #bits(
    { bits, offset, size }: ConfigField,
    choose: (offered: boolean, acknowledged: boolean) => boolean,
  ): string[] | null {
    if (bits === undefined) return null;
    const test = (at: number, bit: number) =>
      (this.bytes[at + (bit >> 3)] & (1 << (bit & 7))) !== 0;
    return Object.keys(bits).filter((name) =>
      choose(test(offset, bits[name]), test(offset + size / 2, bits[name]))
    );
  }
}
