/** The least that a device can do, on the load generator's own thread. */
import type { DriverMemory, DriverQueue } from "../../src/frontend/mod.ts";
import { splitRingBytes } from "../../src/virtqueue/mod.ts";
import { type LoadControl, phases } from "./load_state.ts";
import type { Waiter } from "./waiter.ts";

const IDX = 1;
const RING = 2;
const VIRTQ_DESC_F_INDIRECT = 4; // virtio 1.3, 2.7.5

export interface EchoOptions {
  /** After so many requests the load is told to stop. */
  requests: number;
  /** How many bytes it says it wrote to each. */
  written: number;
}

/** Says of each request of three parts that it is done, when the load has nothing else to do. */
export class EchoWaiter implements Waiter {
  readonly #control: LoadControl;
  readonly #left: EchoOptions;
  readonly #mask: number;
  readonly #base: number;
  readonly #memory: Uint32Array<ArrayBuffer>;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #descriptors: Uint32Array<ArrayBuffer>;
  readonly #available: Uint16Array<ArrayBuffer>;
  readonly #used: Uint16Array<ArrayBuffer>;
  readonly #elements: Uint32Array<ArrayBuffer>;
  #next: number;

  constructor(
    memory: DriverMemory,
    { handle }: DriverQueue,
    control: LoadControl,
    options: EchoOptions,
  ) {
    const { size, descriptorGpa, availableGpa, usedGpa } = handle;
    const parts = splitRingBytes(size);
    const [{ guestAddress, bytes }] = memory.handle;
    const all = memory.at(guestAddress, bytes);
    const descriptors = memory.locate(descriptorGpa, parts.descriptor);
    const available = memory.locate(availableGpa, parts.available);
    const used = memory.locate(usedGpa, parts.used);
    this.#control = control;
    this.#left = { ...options };
    this.#mask = size - 1;
    this.#base = guestAddress;
    this.#memory = new Uint32Array(all.buffer, all.byteOffset, bytes >> 2);
    this.#bytes = all;
    this.#descriptors = new Uint32Array(descriptors.buffer, descriptors.offset, size * 4);
    this.#available = new Uint16Array(available.buffer, available.offset, RING + size);
    this.#used = new Uint16Array(used.buffer, used.offset, RING);
    this.#elements = new Uint32Array(used.buffer, used.offset + 4, size * 2);
    this.#next = Atomics.load(this.#used, IDX);
  }

  begin(): void {}

  wait(): void {
    const end = Atomics.load(this.#available, IDX);
    let next = this.#next;
    for (; next !== end; next = (next + 1) & 0xffff) {
      const head = this.#available[RING + (next & this.#mask)];
      this.#bytes[this.#statusOf(head) - this.#base] = 0;
      const element = (next & this.#mask) * 2;
      this.#elements[element] = head;
      this.#elements[element + 1] = this.#left.written;
      this.#left.requests--;
    }
    this.#next = next;
    Atomics.store(this.#used, IDX, next);
    if (this.#left.requests <= 0) this.#control.phase = phases.STOP;
  }

  /** Where the third part of a chain is. */
  #statusOf(head: number): number {
    const table = this.#descriptors;
    const flags = table[head * 4 + 3];
    if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
      return this.#memory[(table[head * 4] - this.#base >> 2) + 8];
    }
    return table[(table[(flags >>> 16) * 4 + 3] >>> 16) * 4];
  }

  [Symbol.dispose](): void {}
}
