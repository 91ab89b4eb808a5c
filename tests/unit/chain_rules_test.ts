/**
 * What rings of both layouts make of chains, and the rules that they share.
 *
 * @module
 */

import { assertEquals, assertStrictEquals } from "@std/assert";
import { RegionTable } from "../../src/memory/regions.ts";
import type { RingLayout, RingOptions, Virtqueue } from "../../src/virtqueue/mod.ts";
import { PackedRingDriver } from "./packed_ring_driver.ts";
import {
  assertBreaks,
  BUFFERS,
  type Descriptor,
  INDIRECT,
  MEMORY_BYTES,
  places,
  RingDriver,
  testMemory,
  WRITE,
} from "./ring_driver.ts";

/** A driver of either layout that makes chains of descriptors available. */
interface Driver {
  layout: RingLayout;
  ring: Virtqueue;
  offer(chain: Descriptor[]): void;
}

function splitDriver(options?: Partial<RingOptions>, memory = testMemory()): Driver {
  const driver = new RingDriver(8, options, memory);
  const { layout, ring } = driver;
  return { layout, ring, offer: (chain) => driver.offerChain(chain) };
}

function packedDriver(options?: Partial<RingOptions>, memory = testMemory()): Driver {
  return new PackedRingDriver(8, options, memory);
}

for (const [name, make] of [["SplitRing", splitDriver], ["PackedRing", packedDriver]] as const) {
  Deno.test(`${name}.take() gives readable and writable parts in order`, () => {
    const driver = make();
    driver.offer([
      { gpa: BUFFERS, bytes: 16 },
      { gpa: BUFFERS + 0x100, bytes: 3 },
      { gpa: BUFFERS + 0x201, bytes: 512, flags: WRITE },
      { gpa: BUFFERS + 0x500, bytes: 1, flags: WRITE },
    ]);
    const chain = driver.ring.take()!;
    assertEquals([chain.slot, chain.descriptors], [0, 4]);
    assertEquals(places(chain.readable), [[BUFFERS, 16], [BUFFERS + 0x100, 3]]);
    assertEquals(places(chain.writable), [[BUFFERS + 0x201, 512], [BUFFERS + 0x500, 1]]);
    assertEquals([chain.readableBytes, chain.writableBytes], [19, 513]);
    assertEquals(driver.ring.inFlight, 1);
    assertStrictEquals(driver.ring.take(), null);
  });

  Deno.test(`${name}.take() divides a buffer that goes on in the next region`, () => {
    const memory = testMemory();
    memory.regions = new RegionTable([
      { guestAddress: 0, bytes: 0x20000, userAddress: 0, index: 0 },
      { guestAddress: 0x20000, bytes: 0x10000, userAddress: 0x9_0000, index: 0x30000 },
    ]);
    const driver = make({}, memory);
    driver.offer([{ gpa: 0x1fff0, bytes: 0x30, flags: WRITE }]);
    assertEquals(places(driver.ring.take()!.writable), [[0x1fff0, 0x10], [0x30000, 0x20]]);
  });

  Deno.test(`${name}.take() refuses a chain of more than 2^32 bytes`, () => {
    const memory = testMemory();
    const all = { guestAddress: 0, bytes: 2 ** 40, userAddress: 0, index: 0 };
    memory.regions = new RegionTable([all]);
    const driver = make({}, memory);
    driver.offer([{ gpa: 0, bytes: 0xffff_ffff }, { gpa: 0, bytes: 2 }]);
    assertBreaks(driver, "chain-bytes");
  });

  for (
    const [where, gpa, bytes] of [
      ["behind the end of memory", MEMORY_BYTES, 1],
      ["over the end of memory", MEMORY_BYTES - 1, 2],
      ["with the largest address", 0xffff_ffff_ffff_ffffn, 1],
      ["that wraps around", 0xffff_ffff_ffff_fff0n, 0x20],
      ["with no bytes where no memory is", MEMORY_BYTES + 1, 0],
    ] as const
  ) {
    Deno.test(`${name}.take() refuses a buffer ${where}`, () => {
      const driver = make();
      driver.offer([{ gpa, bytes }]);
      assertBreaks(driver, "buffer-address");
    });
  }

  Deno.test(`${name}.take() refuses a readable buffer after a writable one`, () => {
    const driver = make();
    driver.offer([{ gpa: BUFFERS, bytes: 4, flags: WRITE }, { gpa: BUFFERS, bytes: 4 }]);
    assertBreaks(driver, "writable-before-readable");
  });

  Deno.test(`${name}.take() refuses INDIRECT that was not negotiated`, () => {
    const driver = make({ indirect: false });
    driver.offer([{ gpa: BUFFERS, bytes: 16, flags: INDIRECT }]);
    assertBreaks(driver, "indirect-negotiated");
  });

  Deno.test(`${name}.take() refuses an indirect table of every wrong length`, () => {
    for (let bytes = 0; bytes < 64; bytes++) {
      if (bytes > 0 && bytes % 16 === 0) continue;
      const driver = make();
      driver.offer([{ gpa: BUFFERS, bytes, flags: INDIRECT }]);
      assertBreaks(driver, "indirect-length");
    }
  });

  Deno.test(`${name}.take() refuses an indirect table outside memory`, () => {
    const driver = make();
    driver.offer([{ gpa: MEMORY_BYTES - 16, bytes: 32, flags: INDIRECT }]);
    assertBreaks(driver, "indirect-address");
  });
}
