/** Rings placed at random, and why that may be refused. */
import { type Chain, createRing, InflightError, RingError } from "../../../src/virtqueue/mod.ts";
import type { Random } from "../../lib/random.ts";
import type { Tally } from "../frame.ts";
import { World } from "./world.ts";

/**
 * Places a ring of any size, anywhere in memory, with any base and with a record that says
 * anything: the only refusals are those that are promised.
 */
export function placeAnyRing(random: Random, tally: Tally): void {
  const world = new World(random);
  const { memory, options, record } = world;
  const anySize = [0, 1, 3, 63, 64, 65, 128, 32767, 32768, 32769, 65536, random.below(70_000)];
  const place = () => random.below(0x400) * random.pick([1, 2, 4, 16]);
  const anywhere = {
    ...options,
    size: random.pick(anySize),
    descriptorIndex: place(),
    availableIndex: place(),
    usedIndex: place(),
    base: random.pick([0, 0x8000, 0x8000_8000, random.u32()]),
  };
  if (record !== undefined && random.chance(7, 8)) {
    // One that looks as if it had been used.
    const view = new DataView(record.bytes.buffer);
    view.setUint16(8, 1, true);
    view.setUint16(10, record.descriptors, true);
  }
  for (let i = random.below(40); i > 0; i--) {
    world.scribble();
    world.scribbleRecord();
  }
  try {
    const ring = createRing(memory, random.chance(1, 2) ? options : anywhere, record);
    tally.add(
      ring.resubmitted > 0 ? "pure: rings with chains to take again" : "pure: rings placed",
    );
    const chains: Chain[] = [];
    for (let chain = ring.take(); chain !== null; chain = ring.take()) chains.push(chain);
    for (const chain of chains) ring.put(chain, chain.writableBytes);
    ring.publish();
    ring.arm();
    tally.add("pure: chains of any record", chains.length);
  } catch (error) {
    expectRefusal(error, tally);
  }
}

/** A ring may be refused for these reasons, and no others. */
export function expectRefusal(error: unknown, tally: Tally): void {
  if (error instanceof RingError) tally.add(`pure: ${error.rule}`);
  else if (error instanceof InflightError) tally.add("pure: records refused");
  else if (error instanceof RangeError) tally.add("pure: rings elsewhere or with a wrong base");
  else throw error;
}
