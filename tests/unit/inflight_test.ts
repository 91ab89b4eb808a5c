import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  type Chain,
  createRing,
  inflightBytes,
  InflightError,
  type InflightRegion,
  initialBase,
  RingError,
  type Virtqueue,
} from "../../src/virtqueue/mod.ts";
import { Random } from "../../tools/lib/random.ts";
import {
  type CrashDriver,
  PackedCrashDriver,
  SplitCrashDriver,
  tagOf,
} from "./lib/crash_driver.ts";
import { delayStores, type PlainStore, traceStores } from "./lib/store_trace.ts";

/** Thrown to kill the device. */
class Crash extends Error {}

/** A driver, the memory of the in-flight record, and the current device. */
class World {
  readonly driver: CrashDriver;
  readonly area: ArrayBuffer;
  readonly #descriptors: number;
  ring: Virtqueue | undefined;
  /** Chains in flight. */
  inHand: Chain[] = [];
  /** Chains that it took, the oldest first; null for a completed one. */
  taken: (Chain | null)[] = [];
  /** The numbers of untaken chains, which are taken next, from the end on. */
  untaken: number[] = [];

  constructor(driver: CrashDriver, descriptors: number, area?: ArrayBuffer) {
    this.driver = driver;
    this.#descriptors = descriptors;
    this.area = area ?? new ArrayBuffer(inflightBytes(descriptors, driver.packed));
  }

  get #region(): InflightRegion {
    return { bytes: new Uint8Array(this.area), descriptors: this.#descriptors };
  }

  /** Starts a device, or the next one after it died. */
  start(base: number | null): void {
    this.inHand = [];
    this.taken = [];
    this.untaken = [];
    this.ring = undefined;
    this.ring = createRing(this.driver.memoryView, this.driver.options(base), this.#region);
  }

  /** Takes all available chains. */
  takeAll(): void {
    while (this.take());
  }

  /** Takes a chain, if there is one. */
  take(): boolean {
    const chain = this.ring!.take();
    if (chain === null) return false;
    this.inHand.push(chain);
    this.taken.push(chain);
    if (this.untaken.length > 0) assertEquals(tagOf(chain), this.untaken.pop());
    return true;
  }

  /** Expects that exactly the requests in flight are resubmitted, in order. */
  expectRecovery(base: number | null): void {
    // Completions that the driver can see are final.
    this.driver.poll();
    this.start(base);
    this.takeAll();
    assertEquals(this.inHand.map(tagOf), this.driver.tags);
    // The next device's completions reach the driver.
    for (const chain of this.inHand.reverse()) this.ring!.put(chain, 0);
    this.ring!.publish();
    this.driver.poll();
    assertEquals(this.driver.tags, []);
    assertEquals(this.ring!.take(), null);
  }

  /** A copy of this world. */
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

/** Steps of a device and of the driver. */
const STEPS = ["add", "poll", "take", "putOldest", "putNewest", "untake", "publish"] as const;
type Step = typeof STEPS[number];

/** Makes a step; false if there is nothing to do. */
function step(world: World, name: Step, random: Random): boolean {
  const { driver, ring, inHand, taken, untaken } = world;
  switch (name) {
    case "add":
    case "poll": {
      const before = driver.outstanding.length;
      if (name === "add") driver.addAny(random);
      else driver.poll();
      return driver.outstanding.length !== before;
    }
    case "take":
      return world.take();
    case "untake": {
      const last = taken.at(-1);
      for (const chain of inHand) {
        if (chain !== last) assertThrows(() => ring!.untake(chain), Error, "taken last");
      }
      if (last === undefined || last === null) return false;
      untaken.push(tagOf(last));
      ring!.untake(last);
      taken.pop();
      inHand.splice(inHand.indexOf(last), 1);
      return true;
    }
    case "putOldest":
    case "putNewest": {
      const chain = name === "putOldest" ? inHand.shift() : inHand.pop();
      if (chain === undefined) return false;
      taken[taken.lastIndexOf(chain)] = null;
      ring!.put(chain, 0);
      return true;
    }
    case "publish":
      ring!.publish();
      return true;
  }
}

/**
 * Checks the state that the next device would find if this one died now, whatever the driver does
 * meanwhile, and also if V8 delayed some plain stores.
 */
function expectRecoveryNow(world: World, random: Random, plain: readonly PlainStore[]): void {
  const { bases } = world.driver as SplitCrashDriver | PackedCrashDriver;
  world.copy().expectRecovery(random.pick(bases));
  if (plain.length > 1) {
    const late = world.copy();
    const copies = new Map([[world.driver.memory, late.driver.memory], [world.area, late.area]]);
    delayStores(plain, () => random.chance(1, 2), copies);
    late.expectRecovery(random.pick(bases));
  }
  const busy = world.copy();
  busy.driver.poll();
  for (let i = 0; i < busy.driver.size; i++) busy.driver.addAny(random);
  busy.expectRecovery(random.pick(bases));
}

function trace(world: World, onStore: (plain: readonly PlainStore[]) => void): Disposable {
  return traceStores(new Set<ArrayBufferLike>([world.driver.memory, world.area]), onStore);
}

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";

  Deno.test(`a ${layout} ring loses nothing at any store of any short history`, () => {
    let stores = 0;
    const play = (history: readonly Step[]): boolean => {
      // Added requests depend on the history alone.
      const random = new Random(7);
      const world = new World(makeDriver(packed, 2, false), 2);
      let isLast = false;
      // Stores before the last step were checked with a shorter history.
      using _ = trace(world, (plain) => {
        if (isLast || history.length === 0) {
          stores++;
          expectRecoveryNow(world, new Random(stores), plain);
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

Deno.test("a packed ring loses nothing at any store of a batch over its end", () => {
  // The next used descriptor is written where the tail of a list still looks available from the
  // last round.
  const world = new World(new PackedCrashDriver(3, false), 3);
  const random = new Random(1);
  using _ = trace(world, (plain) => expectRecoveryNow(world, random, plain));
  world.start(null);
  for (let round = 0; round < 4; round++) {
    world.driver.add(2);
    for (const name of ["take", "putOldest", "publish", "poll"] as const) step(world, name, random);
  }
});

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";

  /** A device that died with two requests in flight, in the middle of using a third. */
  const crashed = () => {
    const world = new World(makeDriver(packed, 4, false), 4);
    world.start(null);
    for (let i = 0; i < 3; i++) world.driver.add(1);
    world.takeAll();
    world.ring!.put(world.inHand.splice(1, 1)[0], 0);
    world.ring!.publish();
    world.driver.poll();
    return world;
  };

  Deno.test(`a ${layout} ring refuses an invalid record`, () => {
    const header = packed ? 32 : 16, entry = packed ? 32 : 16;
    const wrong: [what: string, at: number, bytes: number[], message: string][] = [
      ["a version to come", 8, [2, 0], "version 1"],
      ["another size", 10, [3, 0], "for 4 descriptors"],
      ...packed
        ? [
          ["a used index outside", 18, [4, 0], "below 4"],
          ["a free entry twice", header + 3 * entry + 2, [1, 0], "twice"],
          ["a chain of no entries", header + 6, [0, 0], "to end at"],
          ["a chain that others have", header + 6, [3, 0], "of its own"],
          ["a chain with another end", header + 4, [3, 0], "to end at entry 0"],
          ["a list of free ones that is too short", header + 1 * entry + 2, [4, 0], "free or in"],
        ] as [string, number, number[], string][]
        : [
          ["a used index far away", 14, [0x34, 0x12], "as chains are in flight"],
          ["more in flight than available", header + 3 * entry, [1], "so many are available"],
        ] as [string, number, number[], string][],
    ];
    for (const [what, at, bytes, message] of wrong) {
      const world = crashed();
      if (what === "more in flight than available") new Uint8Array(world.area)[header + entry] = 1;
      new Uint8Array(world.area).set(bytes, at);
      const { message: got } = assertThrows(() => world.start(null), InflightError);
      assertStringIncludes(got, message, what);
    }
    // A batch that a crash interrupted between two stores.
    if (!packed) {
      const world = crashed();
      world.driver.add(1);
      world.takeAll();
      for (const chain of world.inHand.splice(1)) world.ring!.put(chain, 0);
      const before = world.area.slice(0);
      world.ring!.publish();
      for (const [at, value] of [[12, 9], [12, 4]]) {
        const after = new Uint8Array(world.area);
        after.set(new Uint8Array(before));
        after[at] = value;
        assertThrows(() => world.start(null), InflightError, "the last batch");
      }
    }
  });

  Deno.test(`a new ${layout} ring ignores the record of another one`, () => {
    const worlds = [packed ? 0 : 0xfffe, packed ? 0 : 0xff00].map((used) => {
      const world = new World(
        packed ? new PackedCrashDriver(8, false) : new SplitCrashDriver(8, false, used),
        8,
      );
      world.start(null);
      for (let i = 0; i < 6; i++) world.driver.add(1);
      world.takeAll();
      // Three are completed and three in flight, which complete later or never.
      for (const chain of world.inHand.splice(0, 3)) world.ring!.put(chain, 0);
      world.ring!.publish();
      return world;
    });
    for (const isIdle of [false, true]) {
      for (const { area, ring, inHand } of worlds) {
        if (isIdle) {
          for (const chain of inHand.splice(0)) ring!.put(chain, 0);
          ring!.publish();
        }
        const driver = packed ? new PackedCrashDriver(8, false) : new SplitCrashDriver(8, false, 0);
        const next = new World(driver, 8, area.slice(0));
        for (let i = 0; i < 5; i++) driver.add(1);
        next.start(initialBase(packed));
        assertEquals(next.ring!.resubmitted, 0);
        next.takeAll();
        assertEquals(next.inHand.map(tagOf), driver.tags);
        // From here on the record follows this ring.
        next.expectRecovery(initialBase(packed));
      }
    }
  });

  Deno.test(`a ${layout} ring removes untaken chains from the record`, () => {
    for (const inOrder of [false, true]) {
      const world = new World(makeDriver(packed, 8, inOrder), 8);
      world.start(null);
      const random = new Random(3);
      using _ = trace(world, () => world.copy().expectRecovery(null));
      for (let round = 0; round < 20; round++) {
        for (let i = 0; i < 4; i++) world.driver.addAny(random);
        world.takeAll();
        if (random.chance(1, 2)) step(world, "putOldest", random);
        if (random.chance(1, 2)) step(world, "putNewest", random);
        world.inHand = [];
        world.ring!.giveBack();
        world.ring!.publish();
        world.driver.poll();
        assertEquals(world.ring!.inFlight, 0);
        world.start(world.ring!.base);
        assertEquals(world.ring!.resubmitted, 0);
      }
    }
  });

  Deno.test(`a ${layout} ring refuses a record that is too small for it`, () => {
    const { driver } = new World(makeDriver(packed, 8, false), 8);
    const bytes = new Uint8Array(inflightBytes(4, packed));
    for (const descriptors of [4, 8]) {
      assertThrows(
        () => createRing(driver.memoryView, driver.options(null), { bytes, descriptors }),
        InflightError,
        "for a queue of 8",
      );
    }
  });

  Deno.test(`a ${layout} ring survives any record that a front-end writes`, () => {
    const seed = Math.trunc(Math.random() * 2 ** 32);
    const random = new Random(seed);
    const outcomes = { refused: 0, broken: 0, went: 0 };
    for (let round = 0; round < 3000; round++) {
      const world = crashed();
      // Most addresses of this test have no memory.
      world.driver.indirect = false;
      const area = new Uint8Array(world.area);
      const scribble = () => {
        for (let i = random.between(1, 4); i > 0; i--) {
          area[random.below(area.length)] = random.chance(1, 2) ? random.below(8) : random.u32();
        }
      };
      try {
        scribble();
        world.start(null);
        for (let i = 0; i < 20; i++) {
          scribble();
          // The driver may have reused a chain of the record.
          world.untaken = [];
          step(world, random.pick(["take", "putOldest", "putNewest", "untake", "publish"]), random);
        }
        outcomes.went++;
      } catch (error) {
        if (error instanceof InflightError) outcomes.refused++;
        else if (error instanceof RingError) outcomes.broken++;
        else throw new Error(`With seed ${seed}`, { cause: error });
      }
    }
    assert(outcomes.refused > 0 && outcomes.went > 0, JSON.stringify(outcomes));
  });
}

Deno.test("a split ring without a record resumes at its base if that is possible, else at its used index", () => {
  const cases: [
    base: number | null,
    used: number,
    available: number,
    inOrder: boolean,
    next: number,
  ][] = [
    [null, 700, 702, false, 700],
    [0, 700, 702, false, 700],
    [699, 700, 702, false, 700],
    [700, 700, 702, false, 700],
    // One was taken and never completed.
    [701, 700, 702, false, 701],
    [701, 700, 702, true, 700],
    [0, 0xffff, 1, false, 0],
  ];
  for (const [base, used, available, inOrder, next] of cases) {
    const driver = new SplitCrashDriver(4, inOrder, used);
    while (driver.next !== available) driver.add(1);
    const ring = createRing(driver.memoryView, driver.options(base));
    assertEquals(ring.base, next, `base ${base}, used index ${used}, in order: ${inOrder}`);
  }
});

/** Random steps with crashes; each store is checked, and some are a device's last. */
function liveThroughCrashes(world: World, seed: number): void {
  const random = new Random(seed);
  const { driver } = world;
  let crashes = 0;
  using _ = trace(world, (plain) => {
    // The driver's stores are not delayed.
    if (world.ring !== undefined && random.chance(1, 8)) {
      driver.poll();
      driver.addAny(random);
    }
    expectRecoveryNow(world, random, plain);
    if (random.chance(1, 100)) {
      // Delayed plain stores are lost.
      const same = new Map([[driver.memory, driver.memory], [world.area, world.area]]);
      delayStores(plain, () => random.chance(1, 2), same);
      throw new Crash();
    }
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
