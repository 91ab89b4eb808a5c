/**
 * Code of a device that still has what was given up, and the memory that is kept
 * for it.
 *
 * @module
 */

import type { GuestMemory } from "../memory/mod.ts";
import type { LateEvent } from "./data_plane/messages.ts";

/** Old places of guest memory, kept for those who may touch them. */
interface Kept {
  place: Disposable;
  /** Incidents whose chains the device has not done with. */
  waitsFor: Set<number>;
}

/** Knows which chains are late, and gives places in memory up when they are back. */
export class LateCode {
  readonly #memory: GuestMemory;
  /** Late since memory was withdrawn last: what they may still read. */
  readonly #late = new Map<number, readonly number[]>();
  readonly #kept: Kept[] = [];

  /** Begins with none. */
  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** Takes what an engine tells. */
  note(event: LateEvent): void {
    if (event.kind === "late") {
      this.#late.set(event.incident, event.readable);
      return;
    }
    this.#late.delete(event.incident);
    for (const kept of [...this.#kept]) {
      if (kept.waitsFor.delete(event.incident) && kept.waitsFor.size === 0) this.#release(kept);
    }
  }

  #release(kept: Kept): void {
    this.#kept.splice(this.#kept.indexOf(kept), 1);
    kept.place[Symbol.dispose]();
  }

  /**
   * Moves guest memory away; no ring may be running.
   *
   * @param isForEver A thread is late, which never tells that it has done.
   */
  withdraw(isForEver: boolean): void {
    const readable = [...this.#late.values()].flatMap((places) =>
      Array.from({ length: places.length / 2 }, (_, i) => ({
        index: places[2 * i],
        bytes: places[2 * i + 1],
      }))
    );
    const waitsFor = new Set(this.#late.keys());
    if (waitsFor.size === 0 && !isForEver) return;
    this.#late.clear();
    const kept: Kept = { place: this.#memory.withdraw(readable), waitsFor };
    if (!isForEver) this.#kept.push(kept);
  }
}
