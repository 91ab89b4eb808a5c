import { assertEquals, assertThrows } from "@std/assert";
import {
  DriverTrace,
  isAllTraced,
  MAX_BATCH_ACCESSES,
  type RegisterAccess,
  WATCH_EXPIRY_MS,
  withTraced,
} from "../../src/runtime/driver_trace.ts";
import { ConfigSpace, packed, u16, u32, u64 } from "../../src/virtio/mod.ts";

const layout = packed({ capacity: u64("Sectors"), size: u32("Bytes"), many: u16("Number") });

/** A read of config space, with overrides. */
function read(differing: Partial<RegisterAccess> = {}): RegisterAccess {
  return {
    ...{ at: 5, access: "read", register: "config", offset: 0, bytes: 4, index: null },
    ...{ value: "0x1", count: 1, ...differing },
  };
}

function start() {
  const clock = { now: 10 };
  const trace = new DriverTrace(layout.fields, () => clock.now);
  return { clock, trace };
}

Deno.test("a device that nothing watched has no trace in its record", () => {
  const { trace } = start();
  trace.note("SET_FEATURES", 1n << 32n);
  assertEquals(trace.toJSON(), undefined);
});

Deno.test("accesses to config space are counted by kind, offset and length, with their fields", () => {
  const { trace } = start();
  const accesses = [
    read(),
    read({ at: 6, offset: 4 }),
    read({ at: 7, count: 2 }),
    read({ at: 8, offset: 6, bytes: 8 }),
    read({ at: 9, access: "write", offset: 12, bytes: 2 }),
    read({ at: 9, register: "config_generation" }),
  ];
  trace.take({ watch: "a", accesses });
  assertEquals(trace.toJSON()?.config, [
    { access: "read", offset: 0, bytes: 4, fields: ["capacity"], count: 3, first: 5, last: 7 },
    { access: "read", offset: 4, bytes: 4, fields: ["capacity"], count: 1, first: 6, last: 6 },
    {
      ...{ access: "read", offset: 6, bytes: 8, count: 1, first: 8, last: 8 },
      fields: ["capacity", "size", "many"],
    },
    { access: "write", offset: 12, bytes: 2, fields: ["many"], count: 1, first: 9, last: 9 },
  ]);
  const fields = withTraced(new ConfigSpace(layout).observations, trace.toJSON()!);
  assertEquals(
    fields.map(({ name, reads, firstRead, lastRead, writes }) => [
      ...[name, reads, firstRead, lastRead, writes],
    ]),
    [["capacity", 5, 5, 8, 0], ["size", 1, 8, 8, 0], ["many", 1, 8, 8, 1]],
  );
});

Deno.test("the timeline has the accesses and what the back-end saw in the order of time", () => {
  const { clock, trace } = start();
  clock.now = 7;
  trace.note("SET_FEATURES", 0x44n);
  clock.now = 10;
  trace.take({ watch: "a", accesses: [read({ at: 6 }), read({ at: 8.5 }), read({ at: 99 })] });
  const { latest, total } = trace.toJSON()!.timeline;
  assertEquals(total, 4);
  assertEquals(latest.map(({ at, source }) => [at, source]), [
    ...[[6, "traced"], [7, "reported"], [8.5, "traced"]],
    [10, "traced"], // Never in the future
  ]);
});

Deno.test("the driver's writes to the status are given back", () => {
  const { trace } = start();
  const status = { register: "device_status" } as const;
  assertEquals(
    trace.take({
      watch: "a",
      accesses: [read(status), read({ ...status, access: "write", value: "0xf" })],
    }),
    [{ at: 5, status: 15 }],
  );
});

Deno.test("only one watch is attached at a time, until it ends or is silent", () => {
  const { clock, trace } = start();
  trace.take({ watch: "a", lost: 3 });
  assertThrows(() => trace.take({ watch: "b" }), RangeError, "one is attached already");
  clock.now += WATCH_EXPIRY_MS;
  assertEquals(trace.toJSON()?.until, 10);
  trace.take({ watch: "b", lost: 1 });
  assertEquals(trace.toJSON()?.until, null);
  assertEquals(trace.toJSON()?.lost, 4);
  trace.take({ watch: "b", end: "before front-end" });
  trace.take({ watch: "c", end: "with front-end" });
  assertEquals(trace.toJSON()?.isComplete, true);
});

Deno.test("a watch has all of a driver if it began before it, or has seen a reset", () => {
  const { trace } = start();
  const isAll = () => isAllTraced(trace.toJSON()!);
  trace.take({ watch: "a", whole: true });
  assertEquals(isAll(), true);
  trace.take({ watch: "a", end: "before front-end" });
  assertEquals(isAll(), false);
  trace.take({ watch: "b", accesses: [read()] });
  assertEquals(isAll(), false);
  const reset = { register: "device_status", access: "write", value: "0x0" } as const;
  trace.take({ watch: "b", accesses: [read(reset)] });
  assertEquals(isAll(), true);
  trace.take({ watch: "b", end: "with front-end" });
  assertEquals(isAll(), true);
});

Deno.test("what a watch posts is bounded", () => {
  const { trace } = start();
  for (let i = 0; i < 4; i++) {
    const accesses = Array.from(
      { length: MAX_BATCH_ACCESSES },
      (_, j) => read({ offset: i * MAX_BATCH_ACCESSES + j }),
    );
    trace.take({ watch: "a", accesses });
  }
  const { config, others, timeline } = trace.toJSON()!;
  assertEquals([config.length, others, timeline.latest.length, timeline.total], [
    ...[1024, 15 * 1024, 256, 16 * 1024],
  ]);
});

Deno.test("a batch that is no batch is refused whole", () => {
  const { trace } = start();
  const wrong: unknown[] = [
    ...[undefined, null, 1, "x", [], {}, { watch: "" }, { watch: "x".repeat(65) }],
    ...[{ lost: -1 }, { lost: 0.5 }, { end: "never" }, { whole: 1 }, { accesses: {} }].map((
      part,
    ) => ({
      watch: "a",
      ...part,
    })),
    ...[
      null,
      {},
      read({ at: NaN }),
      read({ at: -1 }),
      read({ access: "event" }),
      read({ register: "SET_FEATURES" }),
      read({ register: "no such" as "config" }),
      read({ offset: -1 }),
      read({ bytes: 0 }),
      read({ bytes: 9 }),
      read({ index: 1.5 }),
      read({ count: 0 }),
      read({ value: "1" }),
      read({ value: "0x" + "f".repeat(17) }),
    ].map((access) => ({ watch: "a", accesses: [read(), access] })),
    { watch: "a", accesses: Array(MAX_BATCH_ACCESSES + 1).fill(read()) },
  ];
  for (const batch of wrong) assertThrows(() => trace.take(batch), TypeError, "Expected");
  assertEquals(trace.toJSON(), undefined);
});
