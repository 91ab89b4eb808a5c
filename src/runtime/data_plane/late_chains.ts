/**
 * Chains that were given up while the device had them.
 *
 * @module
 */

import type { Chain } from "../../virtqueue/mod.ts";
import type { LateEvent } from "./messages.ts";

/** The most parts of late chains that are reported. */
const MAX_LATE_PARTS = 4096;

/** Chains that were given up together. */
interface Incident {
  readonly id: number;
  /** How many the device still has. */
  left: number;
}

/** Reports chains that were given up, and when the device has returned them. */
export class LateChains {
  readonly #emit: (event: LateEvent) => void;
  readonly #incidents = new Map<Chain, Incident>();

  /** Begins with none. */
  constructor(emit: (event: LateEvent) => void) {
    this.#emit = emit;
  }

  /** Gives chains up. */
  add(id: number, chains: readonly Chain[]): void {
    const incident: Incident = { id, left: chains.length };
    const readable: number[] = [];
    for (const chain of chains) {
      this.#incidents.set(chain, incident);
      for (let i = 0; i < chain.readable.count && readable.length < 2 * MAX_LATE_PARTS; i++) {
        readable.push(chain.readable.index(i), chain.readable.length(i));
      }
    }
    this.#emit({ kind: "late", incident: id, readable });
    if (chains.length === 0) this.#emit({ kind: "returned", incident: id });
  }

  /** The device has returned a chain, late or not. */
  returned(chain: Chain): void {
    const incident = this.#incidents.get(chain);
    if (incident === undefined) return;
    this.#incidents.delete(chain);
    if (--incident.left === 0) this.#emit({ kind: "returned", incident: incident.id });
  }
}
