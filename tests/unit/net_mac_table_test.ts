import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { AGE_S, GUEST_ADDRESSES, MacTable } from "../../backends/net/switch/mac_table.ts";

const MOST = 8;

/** What the table does, without its limits of memory. */
class Model {
  readonly known = new Map<number, { port: number; seen: number }>();
  swept = 0;

  find(address: number, now: number): number {
    const entry = this.known.get(address);
    return entry === undefined || now - entry.seen >= AGE_S ? -1 : entry.port;
  }

  learn(address: number, port: number, now: number): boolean {
    const entry = this.known.get(address);
    if (entry?.port === port) entry.seen = Math.max(entry.seen, now);
    else if (entry?.seen === Infinity) return false;
    else if (this.count(port) < MOST || this.sweep(port, now)) {
      this.known.set(address, { port, seen: now });
    }
    return true;
  }

  pin(address: number, port: number): boolean {
    const entry = this.known.get(address);
    if (entry?.seen === Infinity && entry.port !== port) return false;
    this.known.set(address, { port, seen: Infinity });
    return true;
  }

  count(port: number): number {
    return [...this.known.values()].filter((entry) => entry.port === port).length;
  }

  sweep(port: number, now: number): boolean {
    if (this.swept === now) return false;
    this.swept = now;
    for (const [address, { seen }] of this.known) {
      if (now - seen >= AGE_S) this.known.delete(address);
    }
    return this.count(port) < MOST;
  }
}

Deno.test("MacTable does what a model does", () => {
  const address = fc.nat(60), port = fc.nat(3);
  const step = fc.oneof(
    fc.record({ kind: fc.constant("learn" as const), address, port }),
    fc.record({ kind: fc.constant("find" as const), address, port }),
    fc.record({ kind: fc.constant("wait" as const), address: fc.nat(200), port }),
    fc.record({ kind: fc.constant("forget" as const), address, port }),
    fc.record({ kind: fc.constant("pin" as const), address, port }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
      const table = new MacTable(), model = new Model();
      let now = 1;
      for (const { kind, address, port } of steps) {
        const words = [0x5452 + (address & 1), address, 7 * address] as const;
        switch (kind) {
          case "learn":
            assertEquals(table.learn(...words, port, MOST, now), model.learn(address, port, now));
            break;
          case "find":
            assertEquals(table.find(...words, now), model.find(address, now));
            break;
          case "wait":
            now += address;
            break;
          case "forget":
            table.forget(port);
            for (const [address, entry] of model.known) {
              if (entry.port === port && entry.seen !== Infinity) model.known.delete(address);
            }
            break;
          case "pin":
            if (address > 2) break;
            assertEquals(table.pin(...words, port), model.pin(address, port));
        }
        assertEquals(
          table.list(now).map(({ port }) => port).sort(),
          [...model.known.values()].filter(({ seen }) => now - seen < AGE_S)
            .map(({ port }) => port).sort(),
        );
      }
    }),
    { numRuns: 200 },
  );
});

Deno.test("MacTable has room for the addresses of all ports at once", () => {
  const table = new MacTable();
  for (let port = 0; port < 17; port++) {
    const most = port === 16 ? 2048 : GUEST_ADDRESSES;
    // Some more than it may have.
    for (let i = 0; i < most + 100; i++) assert(table.learn(2, port, i, port, most, 1));
    for (let i = 0; i < most; i++) assertEquals(table.find(2, port, i, 1), port);
    for (let i = most; i < most + 100; i++) assertEquals(table.find(2, port, i, 1), -1);
  }
  assertEquals(table.list(1).length, 16 * GUEST_ADDRESSES + 2048);
});
