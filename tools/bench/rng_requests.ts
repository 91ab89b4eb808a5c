/** Requests for random bytes: virtio 1.3, 5.4.6. */
import type { DriverRing } from "../../src/frontend/mod.ts";
import type { Requests } from "./requests.ts";
import { ToolError } from "../lib/tool_error.ts";

/** How requests for random bytes are made. */
export interface RngRequestsOptions {
  depth: number;
  bytes: number;
  /** Guest physical address of memory for all of them. */
  gpa: number;
}

/** Requests for random bytes. A device may give fewer than it was asked for. */
export class RngRequests implements Requests {
  readonly depth: number;
  readonly #bytes: number;
  readonly #gpa: number;

  constructor({ depth, bytes, gpa }: RngRequestsOptions) {
    this.depth = depth;
    this.#bytes = bytes;
    this.#gpa = gpa;
  }

  add(ring: DriverRing, slot: number): number {
    if (!ring.begin(1)) throw new ToolError("Expected room in the ring, got none");
    ring.descriptor(this.#gpa + slot * this.#bytes, this.#bytes, true);
    return ring.end();
  }

  check(_slot: number, written: number): void {
    // The table says how many bytes come per second.
    if (written !== this.#bytes) {
      throw new ToolError(`Expected ${this.#bytes} random bytes, got ${written}`);
    }
  }
}
