/**
 * A driver and a device on one ring and one thread, for micro-benchmarks.
 *
 * @module
 */

import { type AnyDriverQueue, createDriverQueue, SharedMemory } from "../../../src/frontend/mod.ts";
import { RegionTable } from "../../../src/memory/regions.ts";
import {
  type Chain,
  createRing,
  inflightBytes,
  initialBase,
  type Virtqueue,
} from "../../../src/virtqueue/mod.ts";

/**
 * The number of chains in a batch. Deno does not measure anything shorter than 10 µs alone.
 */
export const BATCH = 256;

const GUEST_ADDRESS = 2 ** 20;
const BYTES = 4 * 2 ** 20;
const REQUEST_BYTES = 8192;

/** The kind of ring. */
export interface RingKind {
  packed: boolean;
  indirect: boolean;
  /** Whether the device keeps an in-flight record. */
  recorded?: boolean;
}

/** The kinds of rings, by name. */
export const RING_KINDS: Record<string, RingKind> = {
  "split, direct": { packed: false, indirect: false },
  "split, indirect": { packed: false, indirect: true },
  "split, indirect, recorded": { packed: false, indirect: true, recorded: true },
  "packed, direct": { packed: true, indirect: false },
  "packed, indirect": { packed: true, indirect: true },
  "packed, indirect, recorded": { packed: true, indirect: true, recorded: true },
};

/** A batch of block reads of three parts each, from driver to device and back. */
export class RingLoop {
  readonly driver: AnyDriverQueue;
  readonly device: Virtqueue;
  readonly #indirect: boolean;
  readonly #gpa: number;
  readonly #chains: (Chain | null)[] = new Array(BATCH).fill(null);

  /** Makes both sides of a ring. They last as long as the process. */
  constructor({ packed, indirect, recorded = false }: RingKind) {
    const memory = new SharedMemory([{ bytes: BYTES, guestAddress: GUEST_ADDRESS }]);
    this.driver = createDriverQueue(memory, { size: 1024, packed });
    const { size, descriptorGpa, availableGpa, usedGpa } = this.driver.handle;
    const record = memory.alloc(inflightBytes(size, packed), 64);
    this.device = createRing(
      {
        u8: memory.at(GUEST_ADDRESS, BYTES),
        base: memory.userAddress(GUEST_ADDRESS),
        regions: new RegionTable([
          { guestAddress: GUEST_ADDRESS, bytes: BYTES, userAddress: 0, index: 0 },
        ]),
      },
      {
        ...{ size, packed, indirect: true, eventIndex: true, inOrder: false },
        descriptorIndex: descriptorGpa - GUEST_ADDRESS,
        availableIndex: availableGpa - GUEST_ADDRESS,
        usedIndex: usedGpa - GUEST_ADDRESS,
        base: initialBase(packed),
      },
      recorded
        ? { bytes: memory.at(record, inflightBytes(size, packed)), descriptors: size }
        : undefined,
    );
    this.#indirect = indirect;
    this.#gpa = memory.alloc(BATCH * REQUEST_BYTES, 4096);
  }

  /** The driver makes chains available. */
  push(): void {
    const { driver } = this;
    for (let i = 0; i < BATCH; i++) {
      const gpa = this.#gpa + i * REQUEST_BYTES;
      driver.begin(3, this.#indirect);
      driver.descriptor(gpa, 16, false);
      driver.descriptor(gpa + 4096, 4096, true);
      driver.descriptor(gpa + 16, 1, true);
      driver.end();
    }
    driver.publish();
  }

  /** The device takes them. */
  take(): void {
    for (let i = 0; i < BATCH; i++) this.#chains[i] = this.device.take();
  }

  /** The device completes them. */
  put(): void {
    for (let i = 0; i < BATCH; i++) this.device.put(this.#chains[i]!, 4097);
    this.device.publish();
  }

  /** The driver takes the completions. */
  poll(): void {
    let count = 0;
    while (this.driver.poll() >= 0) count++;
    if (count !== BATCH) throw new Error(`Expected ${BATCH} chains back, got ${count}`);
  }
}
