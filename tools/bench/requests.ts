/**
 * What a load consists of.
 *
 * @module
 */

import type { DriverRing } from "../../src/frontend/mod.ts";

/** Requests of one kind, in slots that are used again and again. */
export interface Requests {
  /** How many there are. */
  readonly depth: number;
  /**
   * Puts the next request of a slot into the ring.
   *
   * @returns The chain's number
   */
  add(ring: DriverRing, slot: number): number;
  /**
   * Looks at what came back.
   *
   * @throws {ToolError} When it is not what it has to be
   */
  check(slot: number, written: number): void;
}
