/**
 * Chains of rings of both layouts, and the rules that both layouts check.
 *
 * @module
 */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { RegionTable } from "../../src/memory/regions.ts";
import {
  type Chain,
  createRing,
  MAX_PARTS_IN_FLIGHT,
  type RingLayout,
  type RingOptions,
  type Virtqueue,
} from "../../src/virtqueue/mod.ts";
import { Random } from "../../tools/lib/random.ts";
import { PackedCrashDriver, SplitCrashDriver, tagOf } from "./lib/crash_driver.ts";
import { PackedRingDriver } from "./lib/packed_ring_driver.ts";
import {
  assertBreaks,
  BUFFERS,
  type Descriptor,
  INDIRECT,
  MEMORY_BYTES,
  NEXT,
  places,
  RingDriver,
  testMemory,
  WRITE,
} from "./lib/ring_driver.ts";

/** A driver of either layout that makes chains of descriptors available. */
interface Driver {
  layout: RingLayout;
  ring: Virtqueue;
  view: DataView;
  offer(chain: Descriptor[], id?: number): void;
}

function splitDriver(options?: Partial<RingOptions>, memory = testMemory(), size = 8): Driver {
  const driver = new RingDriver(size, options, memory);
  const { layout, ring, view } = driver;
  return { layout, ring, view, offer: (chain, id = 0) => driver.offerChain(chain, id) };
}

function packedDriver(options?: Partial<RingOptions>, memory = testMemory(), size = 8): Driver {
  return new PackedRingDriver(size, options, memory);
}

/** Writes an indirect table of `count` descriptors, each of one writable byte, and names it. */
function table({ view, layout }: Driver, count: number): Descriptor {
  const at = BUFFERS + 0x1000;
  for (let i = 0; i < count; i++) {
    const entry = at + i * 16;
    view.setBigUint64(entry, BigInt(BUFFERS), true);
    view.setUint32(entry + 8, 1, true);
    const flags = WRITE | (layout === "split" && i < count - 1 ? NEXT : 0);
    view.setUint16(entry + (layout === "split" ? 12 : 14), flags, true);
    view.setUint16(entry + (layout === "split" ? 14 : 12), i + 1, true);
  }
  return { gpa: at, bytes: count * 16, flags: INDIRECT };
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
    assertEquals([chain.id, chain.descriptors], [0, 4]);
    assertEquals(places(chain.readable), [[BUFFERS, 16], [BUFFERS + 0x100, 3]]);
    assertEquals(places(chain.writable), [[BUFFERS + 0x201, 512], [BUFFERS + 0x500, 1]]);
    assertEquals([chain.readableBytes, chain.writableBytes], [19, 513]);
    assertEquals(driver.ring.inFlight, 1);
    assertStrictEquals(driver.ring.take(), null);
  });

  Deno.test(`${name}.take() splits a buffer that continues in the next region`, () => {
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

  Deno.test(`${name}.take() accepts indirect tables of up to 1024 descriptors, whatever its size`, () => {
    for (const size of [1, 4, 64]) {
      const driver = make({}, testMemory(), size);
      driver.offer([table(driver, 1024)]);
      const chain = driver.ring.take()!;
      assertEquals([chain.descriptors, chain.writableBytes], [1024, 1024]);
      const hostile = make({}, testMemory(), size);
      hostile.offer([table(hostile, 1025)]);
      assertBreaks(hostile, "chain-length");
    }
  });

  Deno.test(`${name}.take() accepts indirect tables up to its own size, and no longer ones`, () => {
    for (const [count, isRight] of [[2048, true], [2049, false]] as const) {
      const driver = make({}, testMemory(), 2048);
      driver.offer([table(driver, count)]);
      if (isRight) assertEquals(driver.ring.take()!.descriptors, count);
      else assertBreaks(driver, "chain-length");
    }
  });

  Deno.test(`${name}.take() refuses a chain in more parts than it may have descriptors`, () => {
    const memory = testMemory();
    const whole = { guestAddress: 0, bytes: 0x20000, userAddress: 0, index: 0 };
    const crumbs = Array.from({ length: 255 }, (_, i) => ({
      ...{ guestAddress: 0x20000 + i, bytes: 1, userAddress: 2 ** 40 + i, index: 0x20000 + 2 * i },
    }));
    memory.regions = new RegionTable([whole, ...crumbs]);
    const buffer = { gpa: 0x20000, bytes: 255, flags: WRITE };
    const driver = make({}, memory);
    driver.offer(Array(4).fill(buffer));
    assertEquals(driver.ring.take()!.writable.count, 4 * 255);
    const hostile = make({}, memory);
    hostile.offer(Array(5).fill(buffer));
    assertBreaks(hostile, "chain-length");
  });

  Deno.test(`${name} takes no more chains while those in flight have too many parts`, () => {
    const driver = make({}, testMemory(), 512);
    const { ring } = driver;
    const most = MAX_PARTS_IN_FLIGHT / 1024;
    for (let i = 0; i < most + 1; i++) driver.offer([table(driver, 1024)], i);
    const chains = Array.from({ length: most }, () => ring.take()!);
    assertEquals([ring.take(), ring.isHeldUp, ring.arm(), ring.isAvailable], [
      null,
      true,
      false,
      false,
    ]);
    ring.put(chains[0], 0);
    assertEquals(ring.isAvailable, true);
    // Large part lists are freed: a completed chain's is empty.
    assertEquals(chains[0].writable.count, 0);
    assertEquals([ring.take()!.id, ring.isHeldUp], [most, false]);
  });

  for (const inOrder of [false, true]) {
    Deno.test(
      `${name}.giveBack() goes back before what is untouched${inOrder ? ", in order" : ""}`,
      () => {
        const driver = make({ inOrder });
        const { ring } = driver;
        for (let id = 0; id < 4; id++) driver.offer([{ gpa: BUFFERS, bytes: 4, flags: WRITE }], id);
        ring.put(ring.take()!, 4);
        const { base } = ring;
        const held = [ring.take()!, ring.take()!];
        ring.giveBack();
        ring.publish();
        assertEquals(ring.inFlight, 0);
        assertEquals(
          driver.layout === "split" ? ring.base : ring.base & 0xffff,
          driver.layout === "split" ? base : base & 0xffff,
        );
        assertEquals(held.map(({ inFlight }) => inFlight), [false, false]);
        assertEquals([ring.take()!.id, ring.take()!.id, ring.take()!.id], [1, 2, 3]);
      },
    );

    Deno.test(
      `${name}.giveBack() uses empty what was overtaken${inOrder ? ", in order" : ""}`,
      () => {
        const driver = make({ inOrder });
        const { ring } = driver;
        for (let id = 0; id < 3; id++) driver.offer([{ gpa: BUFFERS, bytes: 4, flags: WRITE }], id);
        const [first, second, third] = [ring.take()!, ring.take()!, ring.take()!];
        ring.put(second, 3);
        ring.giveBack();
        ring.publish();
        assertEquals([first, second, third].map(({ inFlight }) => inFlight), [false, false, false]);
        assertEquals(ring.inFlight, 0);
        assertEquals(ring.take()!.id, third.id);
      },
    );
  }

  Deno.test(`${name}.untake() refuses a chain that is not the last one taken`, () => {
    const driver = make();
    const { ring } = driver;
    for (let id = 0; id < 3; id++) driver.offer([{ gpa: BUFFERS, bytes: 4, flags: WRITE }], id);
    const [first, second, third] = [ring.take()!, ring.take()!, ring.take()!];
    const refuse = (chain: Chain) => assertThrows(() => ring.untake(chain), Error, "taken last");
    refuse(first);
    ring.put(second, 0);
    refuse(second);
    ring.untake(third);
    refuse(third);
    // The next chain was completed.
    refuse(first);
    assertStrictEquals(ring.take(), third);
    const other = make();
    other.offer([{ gpa: BUFFERS, bytes: 4, flags: WRITE }], 2);
    refuse(other.ring.take()!);
    ring.abandon(third);
    refuse(third);
    assertEquals(ring.inFlight, 1);
  });

  Deno.test(`${name}.untake() releases room for parts`, () => {
    const driver = make({}, testMemory(), 512);
    const { ring } = driver;
    const most = MAX_PARTS_IN_FLIGHT / 1024;
    for (let i = 0; i < most; i++) driver.offer([table(driver, 1024)], i);
    for (let chain = ring.take(); chain !== null; chain = ring.take()) {
      if (ring.inFlight < most) continue;
      assertEquals([ring.isAvailable, ring.take(), ring.isHeldUp], [false, null, true]);
      ring.untake(chain);
      assertEquals([ring.isAvailable, ring.arm()], [true, true]);
      assertStrictEquals(ring.take(), chain);
      assertEquals(chain.writableBytes, 1024);
    }
  });

  for (const inOrder of [false, true]) {
    const order = inOrder ? ", in order" : "";
    Deno.test(`${name}.untake() keeps the driver's order, over random steps${order}`, () => {
      const seed = Math.trunc(Math.random() * 2 ** 32);
      try {
        liveWithUntaking(name === "PackedRing", inOrder, new Random(seed));
      } catch (error) {
        throw new Error(`With seed ${seed}`, { cause: error });
      }
    });
  }

  Deno.test(`${name}.release() empties chains that a device still holds`, () => {
    const driver = make();
    driver.offer([{ gpa: BUFFERS, bytes: 4, flags: WRITE }]);
    const chain = driver.ring.take()!;
    driver.ring.release();
    assertEquals(chain.writable.write(0, Uint8Array.of(1)), 0);
    assertEquals(driver.view.getUint8(BUFFERS), 0);
  });

  Deno.test(`${name}.take() refuses an indirect table outside memory`, () => {
    const driver = make();
    driver.offer([{ gpa: MEMORY_BYTES - 16, bytes: 32, flags: INDIRECT }]);
    assertBreaks(driver, "indirect-address");
  });
}

/** Expects that requests are taken in order, however often the device untakes some. */
function liveWithUntaking(packed: boolean, inOrder: boolean, random: Random): void {
  const driver = packed
    ? new PackedCrashDriver(5, inOrder)
    : new SplitCrashDriver(8, inOrder, 0xf000);
  const ring = createRing(driver.memoryView, { ...driver.options(null), eventIndex: true });
  /** Taken chains, the oldest first; null for a completed one. */
  const taken: (Chain | null)[] = [];
  let next = 0;
  // Indexes wrap around while the first chain is still in flight.
  for (let step = 0; next < 7_000; step++) {
    assert(step < 500_000, `${step} steps and ${next} requests`);
    const [last, any] = [taken.at(-1), random.below(Math.max(1, taken.length))];
    const isMore = driver.tags.some((tag) => tag >= next);
    switch (random.below(6)) {
      case 0:
        driver.addAny(random);
        break;
      case 1:
      case 2: {
        const chain = ring.take();
        assertEquals(chain && tagOf(chain), isMore ? next++ : null);
        if (chain !== null) taken.push(chain);
        break;
      }
      case 3: {
        // The first chain stays in flight until the end if others can overtake it.
        const chain = any === 0 && !inOrder ? null : taken[any] ?? null;
        if (chain === null) break;
        taken[any] = null;
        ring.put(chain, 0);
        break;
      }
      case 4:
        if (!last) break;
        assertEquals(tagOf(last), --next);
        ring.untake(last);
        taken.pop();
        break;
      default:
        ring.publish();
        driver.poll();
        assertEquals(ring.arm(), isMore);
    }
    // One is enough.
    for (let i = taken.length - 1; i > 0; i--) {
      if (taken[i] === null && taken[i - 1] === null) taken.splice(i, 1);
    }
    assertEquals(ring.inFlight, taken.filter((chain) => chain !== null).length);
  }
  ring.giveBack();
  ring.publish();
  driver.poll();
  const again = createRing(driver.memoryView, driver.options(ring.base));
  const left = driver.tags;
  for (const tag of left) assertEquals(tagOf(again.take()!), tag);
  assertStrictEquals(again.take(), null);
}
