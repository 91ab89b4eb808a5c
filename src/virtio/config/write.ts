/**
 * The effect of a driver's write to config space.
 *
 * @module
 */

/** One change that a write makes. */
export interface ConfigChange {
  /** The flat name of the field. */
  readonly name: string;
  /**
   * The part that changes: the value, or in the self-describing layout the mark, the acknowledged
   * bits or the status.
   */
  readonly part: "value" | "mark" | "acknowledged" | "status";
  /** The offset of `before` and `after` in config space, in bytes. */
  readonly offset: number;
  /** The whole part before the write, a copy. */
  readonly before: Uint8Array;
  /** The whole part after the write, a copy. */
  readonly after: Uint8Array;
}

/** The effect of a write. */
export interface ConfigWrite {
  /** The changes, in the order of config space. */
  readonly fields: readonly ConfigChange[];
  /**
   * The read-only fields whose bytes in the write differ and were ignored: most likely a stale copy.
   */
  readonly ignored: readonly string[];
  /** Whether it belongs to a migration. */
  readonly migration: boolean;
  /** Whether it resets the space, by a status of 0. */
  readonly reset: boolean;
}
