/**
 * Guest memory that code of a device may still touch after its chains were given up.
 *
 * @module
 */

import type { GuestMemory } from "../memory/mod.ts";
import type { LateEvent } from "./data_plane/messages.ts";

/** Old places of guest memory, kept for code that may touch them. */
interface Kept {
  place: Disposable;
  /** Incidents with chains that the device still holds. */
  waitsFor: Set<number>;
}

/** Knows which chains are late, and lets go of old places of memory when they are back. */
export class LateCode {
  readonly #memory: GuestMemory;
  /** Incidents since memory was withdrawn last, with what the device may still read. */
  readonly #late = new Map<number, readonly number[]>();
  readonly #kept = new Set<Kept>();

  /** Begins without late chains. */
  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** Notes an incident that an engine tells of. */
  note(event: LateEvent): void {
    if (event.kind === "late") {
      this.#late.set(event.incident, event.readable);
      return;
    }
    this.#late.delete(event.incident);
    for (const kept of this.#kept) {
      if (!kept.waitsFor.delete(event.incident) || kept.waitsFor.size > 0) continue;
      this.#kept.delete(kept);
      kept.place[Symbol.dispose]();
    }
  }

  /**
   * Moves guest memory away from late code; no ring may be running.
   *
   * @param isForEver A thread was given up: it never tells that it is done.
   */
  withdraw(isForEver: boolean): void {
    const waitsFor = new Set(this.#late.keys());
    if (waitsFor.size === 0 && !isForEver) return;
    const readable = [...this.#late.values()].flatMap((places) =>
      Array.from({ length: places.length / 2 }, (_, i) => ({
        index: places[2 * i],
        bytes: places[2 * i + 1],
      }))
    );
    this.#late.clear();
    const kept: Kept = { place: this.#memory.withdraw(readable), waitsFor };
    if (!isForEver) this.#kept.add(kept);
  }
}
