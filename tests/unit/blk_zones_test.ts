/** Zones beside a model that says the standard's rules again: virtio 1.3, 5.2.6. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { REFUSED } from "../../backends/blk/request.ts";
import { parseZoned } from "../../backends/blk/zoned/zoned_option.ts";
import { type ZoneLayout, type ZoneOperation, Zones } from "../../backends/blk/zoned/zones.ts";
import { OptionError } from "../../mod.ts";
import { makeChain } from "./lib/blk_chains.ts";

const { ZONE_INVALID_CMD: INVALID, ZONE_UNALIGNED_WP: UNALIGNED } = REFUSED;
const { ZONE_OPEN_RESOURCE: OPEN_RESOURCE, ZONE_ACTIVE_RESOURCE: ACTIVE_RESOURCE } = REFUSED;

const ZONE = 16;
const LAYOUT: ZoneLayout = {
  sectors: 7 * ZONE + 6, // the last zone is smaller
  zoneSectors: ZONE,
  capacitySectors: 12,
  conventional: 1,
  maxOpen: 2,
  maxActive: 3,
  maxAppendSectors: 8,
  granularitySectors: 2,
};
const ZONES = 8;

type State = "conventional" | "empty" | "implicit" | "explicit" | "closed" | "full";
const STATE_NUMBERS = { conventional: 0, empty: 1, implicit: 2, explicit: 3, closed: 4, full: 14 };

/** One zone of the model. */
interface ModelZone {
  state: State;
  start: number;
  capacity: number;
  pointer: number;
  /** When it became implicitly open. */
  since: number;
}

/** Zones as plain objects, searched from the beginning for each question. */
class Model {
  #clock = 0;
  readonly zones: ModelZone[] = Array.from({ length: ZONES }, (_, i) => ({
    state: i < LAYOUT.conventional ? "conventional" : "empty",
    start: i * ZONE,
    capacity: Math.min(LAYOUT.capacitySectors, LAYOUT.sectors - i * ZONE),
    pointer: i * ZONE,
    since: 0,
  }));

  count(...states: State[]): number {
    return this.zones.filter(({ state }) => states.includes(state)).length;
  }

  touched(sector: number, sectors: number): ModelZone[] {
    return this.zones.filter(({ start }) => start < sector + sectors && sector < start + ZONE);
  }

  read(sector: number, sectors: number): number {
    const zones = this.touched(sector, Math.max(sectors, 1));
    return zones.length > 1 && zones.some(({ state }) => state !== "conventional") ? INVALID : 0;
  }

  write(sector: number, sectors: number): number {
    if (this.read(sector, sectors) !== 0) return INVALID;
    const [zone] = this.touched(sector, Math.max(sectors, 1));
    if (zone.state === "conventional" || sectors === 0) return 0;
    if (zone.state === "full") return INVALID;
    if (sector !== zone.pointer) return UNALIGNED;
    return this.#put(zone, sectors);
  }

  append(sector: number, sectors: number): number {
    const zone = this.zones.find(({ start }) => start === sector);
    if (zone === undefined || zone.state === "conventional" || zone.state === "full") {
      return INVALID;
    }
    if (sectors > LAYOUT.maxAppendSectors) return INVALID;
    const { pointer } = zone;
    return (sectors === 0 ? 0 : this.#put(zone, sectors)) || pointer;
  }

  manage(operation: ZoneOperation, sector: number): number {
    const zone = this.zones.find(({ start }) => start === sector);
    if (zone === undefined || zone.state === "conventional") return INVALID;
    const transitions: Record<ZoneOperation, () => number> = {
      open: () => zone.state === "full" ? INVALID : this.#open(zone, "explicit"),
      close: () => {
        if (zone.state === "empty" || zone.state === "full") return INVALID;
        zone.state = zone.pointer === zone.start ? "empty" : "closed";
        return 0;
      },
      finish: () => {
        const refused = zone.state === "full" ? 0 : this.#open(zone, "explicit");
        if (refused === 0) zone.state = "full";
        return refused;
      },
      reset: () => {
        zone.state = "empty";
        zone.pointer = zone.start;
        return 0;
      },
    };
    return transitions[operation]();
  }

  resetAll(): void {
    for (const { start } of this.zones) this.manage("reset", start);
  }

  #put(zone: ModelZone, sectors: number): number {
    if (sectors % LAYOUT.granularitySectors !== 0) return UNALIGNED;
    if (zone.pointer + sectors > zone.start + zone.capacity) return INVALID;
    const refused = zone.state === "explicit" ? 0 : this.#open(zone, "implicit");
    if (refused !== 0) return refused;
    zone.pointer += sectors;
    if (zone.pointer === zone.start + zone.capacity) zone.state = "full";
    return 0;
  }

  #open(zone: ModelZone, wanted: "implicit" | "explicit"): number {
    if (
      zone.state === "empty" && this.count("implicit", "explicit", "closed") === LAYOUT.maxActive
    ) {
      return ACTIVE_RESOURCE;
    }
    const isOpen = zone.state === "implicit" || zone.state === "explicit";
    if (!isOpen && this.count("implicit", "explicit") === LAYOUT.maxOpen) {
      const [oldest] = this.zones.filter(({ state }) => state === "implicit")
        .sort((a, b) => a.since - b.since);
      if (oldest === undefined) return OPEN_RESOURCE;
      oldest.state = "closed";
    }
    if (zone.state !== wanted) zone.since = this.#clock++;
    zone.state = wanted;
    return 0;
  }
}

/** What a report says, a line per zone. */
function reported(zones: Zones, sector = 0, room = 64 * (ZONES + 1)) {
  const { chain, written } = makeChain({ readable: new Uint8Array(), writableBytes: room });
  const refused = zones.report(chain.writable, room, sector);
  const bytes = written();
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const u64 = (at: number) => Number(view.getBigUint64(at, true));
  const count = refused === 0 ? u64(0) : 0;
  return {
    refused,
    zones: Array.from({ length: count }, (_, i) => {
      const at = 64 * (i + 1);
      const [type, state] = bytes.subarray(at + 24, at + 26);
      return { capacity: u64(at), start: u64(at + 8), pointer: u64(at + 16), type, state };
    }),
  };
}

const anySector = fc.nat(LAYOUT.sectors - 1);
const anyZone = fc.oneof(
  { weight: 9, arbitrary: fc.nat(ZONES).map((zone) => zone * ZONE) },
  { weight: 1, arbitrary: anySector },
);
const anyStep = fc.oneof(
  fc.record({
    kind: fc.constantFrom("read", "write" as const),
    sector: anySector,
    sectors: fc.nat(20),
  }),
  // At a write pointer, of a zone that is found when the step is taken
  fc.record({
    kind: fc.constant("atPointer" as const),
    sector: fc.nat(ZONES - 1),
    sectors: fc.constantFrom(1, 2, 2, 4, 6, 12),
  }),
  fc.record({
    kind: fc.constant("append" as const),
    sector: anyZone,
    sectors: fc.constantFrom(0, 1, 2, 4, 8, 10),
  }),
  fc.record({
    kind: fc.constantFrom<ZoneOperation[]>("open", "open", "close", "finish", "reset"),
    sector: anyZone,
    sectors: fc.constant(0),
  }),
  { weight: 1, arbitrary: fc.constant({ kind: "resetAll" as const, sector: 0, sectors: 0 }) },
);

Deno.test("Zones does what the standard says, step by step", () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 120, size: "max" }), (steps) => {
      const zones = new Zones(LAYOUT);
      const model = new Model();
      for (const { kind, sector, sectors } of steps) {
        const both = (call: (zones: Zones | Model) => number) => {
          const [got, expected] = [call(zones), call(model)];
          assertEquals(got, expected, `${kind} at ${sector}, ${sectors} sectors`);
          seen.add(`${kind} ${Math.min(got, 0)}`);
        };
        switch (kind) {
          case "resetAll":
            zones.resetAll();
            model.resetAll();
            break;
          case "atPointer": {
            const { pointer } = model.zones[sector];
            if (pointer + sectors <= LAYOUT.sectors) both((it) => it.write(pointer, sectors));
            break;
          }
          case "append":
            both((it) => it.append(sector, sectors));
            break;
          case "read":
          case "write":
            if (sector + sectors <= LAYOUT.sectors) both((it) => it[kind](sector, sectors));
            break;
          default:
            both((it) => it.manage(kind, sector));
        }
        assertEquals(
          reported(zones).zones,
          model.zones.map(({ state, start, capacity, pointer }, i) => {
            const sectors = i === ZONES - 1 ? LAYOUT.sectors - start : ZONE;
            const isConventional = state === "conventional";
            return {
              capacity: isConventional ? sectors : capacity,
              start,
              pointer: isConventional || state === "full" ? start + sectors : pointer,
              type: isConventional ? 1 : 2,
              state: STATE_NUMBERS[state],
            };
          }),
        );
        assert(model.count("implicit", "explicit") <= LAYOUT.maxOpen);
        assert(model.count("implicit", "explicit", "closed") <= LAYOUT.maxActive);
      }
      const { empty, full } = new Zones(LAYOUT, zones.memory).counts();
      assertEquals([empty, full], [model.count("empty"), model.count("full")]);
    }),
    { numRuns: 300 },
  );
  // Each outcome that a step can have came
  for (const refusal of [0, INVALID, UNALIGNED, OPEN_RESOURCE, ACTIVE_RESOURCE]) {
    for (const kind of ["atPointer", "append"]) {
      assert(seen.has(`${kind} ${refusal}`), `${kind} ${refusal}`);
    }
  }
  for (const kind of ["open", "close", "finish", "reset"]) {
    assert(seen.has(`${kind} 0`) && seen.has(`${kind} ${INVALID}`), kind);
  }
});

Deno.test("Zones continues with the zones in memory, and closes the oldest of them first", () => {
  const before = new Zones(LAYOUT);
  assertEquals([before.write(ZONE, 2), before.write(2 * ZONE, 2)], [0, 0]);
  const zones = new Zones(LAYOUT, before.memory);
  assertEquals(zones.write(3 * ZONE, 2), 0);
  assertEquals(reported(zones).zones.slice(1, 4).map(({ state }) => state), [4, 2, 2]);
  assertEquals(zones.write(4 * ZONE, 2), ACTIVE_RESOURCE);
});

Deno.test("Zones reports as many zones as there is room for, from any sector on", () => {
  const zones = new Zones(LAYOUT);
  assertEquals(reported(zones, 2 * ZONE + 5, 64 * 3).zones.map(({ start }) => start / ZONE), [
    2,
    3,
  ]);
  assertEquals(reported(zones, 6 * ZONE).zones.map(({ start }) => start / ZONE), [6, 7]);
  assertEquals(reported(zones, 0, 64 + 63), { refused: 0, zones: [] });
  assertEquals(reported(zones, 0, 63).refused, INVALID);
  assertEquals(reported(zones, LAYOUT.sectors).refused, INVALID);
});

Deno.test("Zones without limits opens all of them", () => {
  const zones = new Zones({ ...LAYOUT, maxOpen: 0, maxActive: 0 });
  for (let zone = 1; zone < ZONES; zone++) assertEquals(zones.write(zone * ZONE, 2), 0);
  assertEquals(zones.counts().implicitlyOpen, ZONES - 1);
});

Deno.test("parseZoned() divides a disk", () => {
  const GIB = 2 ** 30;
  assertEquals(parseZoned("host-managed", GIB, 512).zoneSectors, 2 ** 17);
  assertEquals(parseZoned("host-managed", 2 ** 40, 512).zoneSectors, 2 ** 19);
  assertEquals(parseZoned("host-managed", 4096, 4096).zoneSectors, 8);
  assertEquals(
    parseZoned("host-managed,size=1M,capacity=768K,conventional=2,open=3,active=4", GIB, 4096),
    {
      sectors: 2 ** 21,
      zoneSectors: 2048,
      capacitySectors: 1536,
      conventional: 2,
      maxOpen: 3,
      maxActive: 4,
      maxAppendSectors: 1536,
      granularitySectors: 8,
    },
  );
  for (
    const [text, why] of [
      ["host-aware", 'takes host-managed[,NAME=VALUE…], got "host-aware"'],
      ["host-managed,zone=1M", "has no option zone; it has size"],
      ["host-managed,size=3M", "a power of 2 as size"],
      ["host-managed,size=4K,capacity=8K", "at most the size"],
      ["host-managed,size=64K,capacity=5000", "a multiple of 512"],
      ["host-managed,size=512M,conventional=2", "fewer conventional zones"],
      ["host-managed,open=5,active=4", "at most as many open zones as active"],
    ]
  ) {
    assertThrows(() => parseZoned(text, GIB, 512), OptionError, why);
  }
  assertThrows(() => parseZoned("host-managed,size=4K", 2 ** 40, 512), OptionError, "larger size");
});
