/**
 * A device's config space: its bytes, and the driver's accesses to them, checked and observed.
 *
 * @module
 */

import { ConfigAccessError } from "./error.ts";
import type { ConfigLayout, ConfigView } from "./layout.ts";
import { type ConfigObservation, FieldObserver } from "./observation.ts";
import { CONFIG_STATUS, CONFIG_USED } from "./self_describing.ts";
import { ConfigStepLog, type ConfigSteps } from "./steps.ts";
import type { ConfigChange, ConfigWrite } from "./write.ts";

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
   * The write is not the driver's: it is the state of a device that migrates here, read-only fields
   * included.
   *
   * @default {false}
   */
  migration?: boolean;
  /** Called before anything is applied; an error that it throws refuses the write. */
  check?: (write: ConfigWrite) => void;
}

const STATUS_BITS = CONFIG_STATUS.ACKNOWLEDGE | CONFIG_STATUS.DRIVER |
  CONFIG_STATUS.DRIVER_OK | CONFIG_STATUS.FAILED;

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}

/**
 * The config space of one device, in either layout: GET_CONFIG is `read`, SET_CONFIG is `write`,
 * and the device itself uses `view`.
 *
 * When the driver writes one byte, a front-end may send the whole space (QEMU does) from the copy
 * of its last read. So read-only bytes are ignored in a write that also covers writable ones. A
 * write of read-only bytes alone is refused, unless it changes nothing. A stale copy can still undo
 * a change that the device itself made to a *writable* field since the front-end's last read.
 *
 * Use the space on one thread only; other threads may use views of its buffer.
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
  readonly #observers: readonly FieldObserver[];
  readonly #steps: ConfigStepLog;
  /** The values of writable bytes before the driver wrote them since the last reset, else -1. */
  readonly #initial: Int16Array;

  /**
   * Makes a space in this layout. A given buffer stays the caller's; if it is blank, it gets the
   * layout's types and lengths, else its content is kept.
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
    this.#observers = layout.fields.map((field) => new FieldObserver(field));
    this.#steps = new ConfigStepLog(layout);
    this.#initial = new Int16Array(layout.size).fill(-1);
    // Only the end has type 0, so a space with fields that starts with 0 is blank
    if (layout.size > 0 && this.bytes[0] === 0) layout.initialise(buffer);
  }

  /**
   * Reads `size` bytes from `offset` on for the driver: a copy.
   *
   * @throws {ConfigAccessError} if the range is not inside the space
   */
  read(offset: number, size: number): Uint8Array<ArrayBuffer> {
    const end = this.#end("read", offset, size);
    const now = this.#now();
    for (const observer of this.#observers) {
      if (observer.isCovered(offset, end)) observer.reads.add(now);
    }
    return new Uint8Array(this.bytes.subarray(offset, end));
  }

  /**
   * Writes bytes from `offset` on for the driver, and returns what changed. A refused write changes
   * nothing.
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
      new Set(write.fields.map(({ name }) => name)).forEach((name) => this.#countRefusal(name));
      throw error;
    }

    if (!migration) this.#observe(write, offset, end);
    this.#store(before, next);
    if (reset) this.#initial.fill(-1);
    return write;
  }

  /**
   * Undoes the driver's writes, at a device reset: clears marks, acknowledged bits and status, and
   * gives writable fields back their values from before. The observations stay.
   */
  reset(): void {
    const before = this.bytes.slice();
    const next = this.#cleared(before);
    if (this.#changes(before, next).length > 0) this.#steps.reset(this.#now());
    this.#store(before, next);
    this.#initial.fill(-1);
  }

  /** The observations of each field up to now: a copy. */
  get observations(): ConfigObservation[] {
    const { buffer, byteOffset, length } = this.bytes;
    const space = new DataView(buffer, byteOffset, length);
    return this.#observers.map((observer) => observer.observation(space));
  }

  /** The driver's latest steps: a copy. */
  get steps(): ConfigSteps {
    return this.#steps.steps;
  }

  #end(verb: string, offset: number, size: number): number {
    const end = offset + size;
    const isWhole = Number.isInteger(offset) && Number.isInteger(size);
    if (isWhole && offset >= 0 && size >= 0 && end <= this.layout.size) return end;
    const range = `${size} bytes at offset ${offset} of config space`;
    throw new ConfigAccessError(`Cannot ${verb} ${range}: outside its ${this.layout.size} bytes`);
  }

  #countRefusal(name: string): void {
    for (const observer of this.#observers) {
      const { name: own } = observer.field;
      // A mark belongs to all flat fields of its entry
      if (own === name || own.startsWith(`${name}.`) || own.startsWith(`${name}[`)) {
        observer.refused++;
      }
    }
  }

  #refuse(at: number, why: string): never {
    const { owner } = this.layout.bytes[at];
    if (owner !== undefined) this.#countRefusal(owner);
    const what = owner === undefined ? "the end of config space" : `config field ${owner}`;
    throw new ConfigAccessError(`Cannot write ${what} (offset ${at}): ${why}`, owner);
  }

  /** Applies a driver's write to a copy; returns the names of ignored fields. */
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
      const { rule, owner } = this.layout.bytes[firstIgnored];
      const whyFixed = owner === undefined ? "it is fixed" : "its length is fixed";
      this.#refuse(firstIgnored, rule === "fixed" ? whyFixed : "it is read-only");
    }
    return [...ignored];
  }

  #checkKept(at: number, before: number, after: number, what: string): void {
    const lost = before & ~after;
    if (lost !== 0) this.#refuse(at, `takes back ${what} bits ${hex(lost)} without a reset`);
  }

  #checkOffered(at: number, acknowledged: number, offered: number): void {
    const extra = acknowledged & ~offered;
    if (extra !== 0) this.#refuse(at, `acknowledges bits ${hex(extra)}, which are not offered`);
  }

  /** Applies the state of a migrating device to a copy. */
  #migrate(next: Uint8Array, offset: number, data: Uint8Array): string[] {
    for (let i = 0; i < data.length; i++) {
      const at = offset + i;
      const { rule } = this.layout.bytes[at];
      const kept = rule === "fixed" ? 0xff : rule === "mark" ? 0x7f : 0;
      if ((data[i] ^ next[at]) & kept) {
        this.#refuse(at, `the migrated space has ${hex(data[i])} for ${hex(next[at])}`);
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

  /** The space without the driver's writes. */
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
   * Stores only the bytes that the write changes: the device may have changed others since `before`.
   */
  #store(before: Uint8Array, next: Uint8Array): void {
    for (const [at, { rule }] of this.layout.bytes.entries()) {
      if (next[at] === before[at]) continue;
      if (rule === "rw" && this.#initial[at] === -1) this.#initial[at] = before[at];
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
      const half = type === "bits" ? size / 2 : size;
      add(name, type === "status" ? "status" : "value", offset, half);
      if (type === "bits") add(name, "acknowledged", offset + half, half);
    }
    return changes;
  }

  #observe(write: ConfigWrite, start: number, end: number): void {
    const { fields, reset } = write;
    const now = this.#now();
    this.#steps.written(write, now);
    const { bytes } = this.layout;
    for (const observer of this.#observers) {
      const { name, offset, size } = observer.field;
      const own = fields.filter((change) => change.name === name);
      if (!reset && own.some(({ part }) => part === "mark")) observer.marks.add(now);
      const from = Math.max(start, offset);
      const to = Math.min(end, offset + size);
      if (!bytes.slice(from, to).some(({ rule }) => rule !== "ro")) continue;
      observer.writes.add(now);
      if (own.some(({ part }) => part !== "mark")) observer.changes++;
    }
  }
}
