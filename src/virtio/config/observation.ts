/**
 * Observations of a config space: what the driver did with each field.
 *
 * @module
 */

import type { ConfigField } from "./layout.ts";
import { CONFIG_USED } from "./self_describing.ts";
import { hasBit } from "./view.ts";

/**
 * What a driver did with one field, and its state. Times are in milliseconds since 1970, null for
 * never. An access counts once for each field that it covers a byte of.
 */
export interface ConfigObservation {
  /** The flat name of the field. */
  name: string;
  /** The feature bit that makes it meaningful, or null. */
  feature: string | null;
  /** Number of reads that covered it. */
  reads: number;
  /** Time of the first of them. */
  firstRead: number | null;
  /** Time of the last of them. */
  lastRead: number | null;
  /** Number of accepted writes that covered a byte of it that the driver may write. */
  writes: number;
  /** Time of the first of them. */
  firstWrite: number | null;
  /** Time of the last of them. */
  lastWrite: number | null;
  /** Number of these writes that changed it. */
  changes: number;
  /** Number of writes refused because of it. */
  refused: number;
  /** Whether it is marked as used now; null where the layout has no marks. */
  used: boolean | null;
  /** Time when the driver first marked it. */
  firstUsed: number | null;
  /** Time when the driver last marked it. */
  lastUsed: number | null;
  /** The names of the bits that are acknowledged now; null if it is no bit field. */
  acknowledged: string[] | null;
  /** The names of the bits that are offered now and not acknowledged; null as above. */
  left: string[] | null;
}

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

/** Counts what the driver does with one field. */
export class FieldObserver {
  readonly reads: Counter = new Counter();
  readonly writes: Counter = new Counter();
  readonly marks: Counter = new Counter();
  changes = 0;
  refused = 0;
  constructor(readonly field: ConfigField) {}

  /** Whether an access from `start` to `end` covers a byte of the field. */
  isCovered(start: number, end: number): boolean {
    const { offset, size } = this.field;
    return start < end && offset < end && start < offset + size;
  }

  /** The observation up to now: a copy. */
  observation(space: DataView): ConfigObservation {
    const { field: { name, feature, mark }, reads, writes, marks, changes, refused } = this;
    return {
      name,
      feature: feature ?? null,
      reads: reads.count,
      firstRead: reads.first,
      lastRead: reads.last,
      writes: writes.count,
      firstWrite: writes.first,
      lastWrite: writes.last,
      changes,
      refused,
      used: mark === undefined ? null : (space.getUint8(mark.offset) & CONFIG_USED) !== 0,
      firstUsed: marks.first,
      lastUsed: marks.last,
      acknowledged: this.#bits(space, (offered, acknowledged) => offered && acknowledged),
      left: this.#bits(space, (offered, acknowledged) => offered && !acknowledged),
    };
  }

  #bits(
    space: DataView,
    choose: (offered: boolean, acknowledged: boolean) => boolean,
  ): string[] | null {
    const { bits, offset, size } = this.field;
    if (bits === undefined) return null;
    return Object.entries(bits).filter(([, bit]) =>
      choose(hasBit(space, offset, bit), hasBit(space, offset + size / 2, bit))
    ).map(([name]) => name);
  }
}
