/**
 * The device's thread of the handshake stress test: only the device's ring.
 *
 * @module
 */

import { bufferAt } from "../../../src/linux/mod.ts";
import { type MemoryView, RegionTable } from "../../../src/memory/mod.ts";
import { type Chain, createRing, type Virtqueue } from "../../../src/virtqueue/mod.ts";
import {
  Bell,
  type HandshakeOrder,
  type HandshakeResult,
  Jitter,
  LINE_WORDS,
  linesOf,
  writtenOf,
} from "./handshake_order.ts";
import { Random } from "../../../tools/lib/random.ts";
import { answerOrders } from "./worker_thread.ts";

class Device {
  readonly #random: Random;
  readonly #jitter: Jitter;
  readonly #ring: Virtqueue;
  readonly #mine: Bell;
  readonly #drivers: Bell;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #taken: (Chain | undefined)[];
  readonly result: HandshakeResult = { sleeps: 0, requests: 0 };

  constructor({ memory: [region], queue, bells, seed }: HandshakeOrder) {
    const memory: MemoryView = {
      u8: new Uint8Array(bufferAt(region.address, region.bytes)),
      base: region.address,
      regions: new RegionTable([{ ...region, index: 0 }]),
    };
    this.#words = new Uint32Array(memory.u8.buffer);
    const index = (gpa: number) => memory.regions.translate(gpa, 1);
    this.#ring = createRing(memory, {
      ...queue,
      descriptorIndex: index(queue.descriptorGpa),
      availableIndex: index(queue.availableGpa),
      usedIndex: index(queue.usedGpa),
      indirect: false,
    });
    this.#random = new Random(seed);
    this.#jitter = new Jitter(this.#random);
    this.#mine = Bell.ofDevice(bells);
    this.#drivers = Bell.ofDriver(bells);
    this.#taken = new Array(queue.size).fill(undefined);
  }

  run(): void {
    const ring = this.#ring;
    while (!this.#mine.isEnded) {
      ring.disarm();
      while (this.#handle());
      this.#jitter.pass();
      if (ring.arm()) continue;
      this.result.sleeps++;
      this.#mine.wait("an available buffer", () => ring.isAvailable);
    }
  }

  /** Takes all available chains and completes them in reverse order. */
  #handle(): boolean {
    const ring = this.#ring;
    const taken = this.#taken;
    let count = 0;
    for (let chain = ring.take(); chain !== null; chain = ring.take()) taken[count++] = chain;
    if (count === 0) return false;
    this.result.requests += count;
    const together = this.#random.chance(1, 2);
    while (count > 0) {
      const chain = taken[--count]!;
      if (!together) this.#jitter.pass();
      ring.put(chain, this.#answer(chain));
      if (together && count > 0) continue;
      if (ring.publish()) this.#drivers.ring();
    }
    return true;
  }

  /** Writes an answer; returns its stated number of bytes. */
  #answer({ readable, writable }: Chain): number {
    const id = readable.u32(0);
    const first = writable.index(0) / 4;
    for (let line = 0; line < linesOf(id); line++) this.#words[first + line * LINE_WORDS] = id;
    return writtenOf(id);
  }
}

answerOrders((order: HandshakeOrder): HandshakeResult => {
  const device = new Device(order);
  try {
    device.run();
    return device.result;
  } catch (error) {
    return { ...device.result, error: (error as Error).message };
  } finally {
    Bell.end(order.bells);
  }
});
