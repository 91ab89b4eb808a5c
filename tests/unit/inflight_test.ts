import { assert, assertEquals } from "@std/assert";
import {
  type Chain,
  createRing,
  inflightBytes,
  type InflightRegion,
  type Virtqueue,
} from "../../src/virtqueue/mod.ts";
import { Random } from "../frontend/random.ts";
import { type CrashDriver, PackedCrashDriver, SplitCrashDriver, tagOf } from "./crash_driver.ts";
import { traceStores } from "./store_trace.ts";

/** The device is killed. */
class Crash extends Error {}

/** A driver, the memory of the record, and whichever device has them just now. */
class World {
  readonly driver: CrashDriver;
  readonly area: ArrayBuffer;
  readonly #descriptors: number;
  ring: Virtqueue | undefined;
  /** What the device has taken and not put back. */
  inHand: Chain[] = [];

  constructor(driver: CrashDriver, descriptors: number, area?: ArrayBuffer) {
    this.driver = driver;
    this.#descriptors = descriptors;
    this.area = area ?? new ArrayBuffer(inflightBytes(descriptors, driver.packed));
  }

  get #region(): InflightRegion {
    return { bytes: new Uint8Array(this.area), descriptors: this.#descriptors };
  }

  /** The device starts, or the next one after it died. */
  start(base: number | null): void {
    this.inHand = [];
    this.ring = undefined;
    this.ring = createRing(this.driver.memoryView, this.driver.options(base), this.#region);
  }

  /** Takes all there is. */
  takeAll(): void {
    for (let chain = this.ring!.take(); chain !== null; chain = this.ring!.take()) {
      this.inHand.push(chain);
    }
  }

  /** Every request that did not come back is done again, in its order, and nothing else. */
  expectRecovery(base: number | null): void {
    // What it can see is done.
    this.driver.poll();
    this.start(base);
    this.takeAll();
    assertEquals(this.inHand.map(tagOf), this.driver.tags);
    // And what the next device does comes back.
    for (const chain of this.inHand.reverse()) this.ring!.put(chain, 0);
    this.ring!.publish();
    this.driver.poll();
    assertEquals(this.driver.tags, []);
    assertEquals(this.ring!.take(), null);
  }

  /** A second world that is as this one is now. */
  copy(): World {
    return new World(this.driver.copy(), this.#descriptors, this.area.slice(0));
  }
}

function makeDriver(packed: boolean, size: number, inOrder: boolean): CrashDriver {
  return packed
    ? new PackedCrashDriver(size, inOrder)
    // The indexes wrap around soon.
    : new SplitCrashDriver(size, inOrder, 0x10000 - 3 * size);
}

/** What a device may do, and the driver. */
const STEPS = ["add", "poll", "take", "putOldest", "putNewest", "publish"] as const;
type Step = typeof STEPS[number];

/** Makes a step; false if there is nothing to do. */
function step(world: World, name: Step, random: Random): boolean {
  const { driver, ring, inHand } = world;
  switch (name) {
    case "add":
    case "poll": {
      const before = driver.outstanding.length;
      if (name === "add") driver.add(random);
      else driver.poll();
      return driver.outstanding.length !== before;
    }
    case "take": {
      const chain = ring!.take();
      if (chain === null) return false;
      inHand.push(chain);
      return true;
    }
    case "putOldest":
    case "putNewest": {
      const chain = name === "putOldest" ? inHand.shift() : inHand.pop();
      if (chain === undefined) return false;
      ring!.put(chain, 0);
      return true;
    }
    case "publish":
      ring!.publish();
      return true;
  }
}

/** Looks at what another device would find if this one died now, whatever the driver does meanwhile. */
function expectRecoveryNow(world: World, random: Random): void {
  const { bases } = world.driver as SplitCrashDriver | PackedCrashDriver;
  world.copy().expectRecovery(random.pick(bases));
  const busy = world.copy();
  busy.driver.poll();
  for (let i = 0; i < busy.driver.size; i++) busy.driver.add(random);
  busy.expectRecovery(random.pick(bases));
}

function trace(world: World, onStore: () => void): Disposable {
  return traceStores(new Set<ArrayBufferLike>([world.driver.memory, world.area]), onStore);
}

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";

  Deno.test(`a ${layout} ring loses nothing at any store of any short history`, () => {
    let stores = 0;
    const play = (history: readonly Step[]): boolean => {
      // What is added depends on the history alone.
      const random = new Random(7);
      const world = new World(makeDriver(packed, 2, false), 2);
      let isLast = false;
      // Stores before the last step were looked at with a shorter history.
      using _ = trace(world, () => {
        if (isLast || history.length === 0) {
          stores++;
          expectRecoveryNow(world, new Random(stores));
        }
      });
      world.start(null);
      return history.every((name, i) => {
        isLast = i === history.length - 1;
        return step(world, name, random);
      });
    };
    let histories = 0;
    const extend = (history: readonly Step[]) => {
      histories++;
      if (!play(history) || history.length === 8) return;
      for (const name of STEPS) {
        if (name !== "publish" || history.at(-1) !== "publish") extend([...history, name]);
      }
    };
    extend([]);
    assert(histories > 1000 && stores > 1000, `${histories} histories, ${stores} stores`);
  });

  for (const inOrder of [false, true]) {
    const order = inOrder ? "in order" : "out of order";
    Deno.test(`a ${layout} ring ${order} loses nothing at any store, over many crashes`, () => {
      for (
        const [size, descriptors] of packed ? [[1, 1], [5, 5], [8, 16]] : [[1, 1], [4, 4], [8, 16]]
      ) {
        const seed = Math.trunc(Math.random() * 2 ** 32);
        try {
          liveThroughCrashes(new World(makeDriver(packed, size, inOrder), descriptors), seed);
        } catch (error) {
          throw new Error(`With size ${size} and seed ${seed}`, { cause: error });
        }
      }
    });
  }
}

/** A long life with crashes; each store is looked at, and some are the last of a device. */
function liveThroughCrashes(world: World, seed: number): void {
  const random = new Random(seed);
  const { driver } = world;
  let crashes = 0;
  using _ = trace(world, () => {
    // The driver is another processor.
    if (world.ring !== undefined && random.chance(1, 8)) {
      driver.poll();
      driver.add(random);
    }
    expectRecoveryNow(world, random);
    if (random.chance(1, 100)) throw new Crash();
  });
  const { bases } = driver as SplitCrashDriver | PackedCrashDriver;
  const attempt = (act: () => void): boolean => {
    try {
      act();
      return true;
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      crashes++;
      return false;
    }
  };
  let isUp = false;
  for (let steps = 0; steps < 1000 || crashes < 10; steps++) {
    if (!isUp) {
      isUp = attempt(() => world.start(random.pick(bases)));
      if (!isUp) continue;
      if (random.chance(1, 2)) {
        isUp = attempt(() => {
          world.takeAll();
          driver.poll();
          assertEquals(world.inHand.map(tagOf), driver.tags);
        });
      }
      continue;
    }
    isUp = attempt(() => void step(world, random.pick(STEPS), random));
  }
}
