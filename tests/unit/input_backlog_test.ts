import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Backlog } from "../../backends/input/backlog.ts";
import { endsGroup, type InputEvent, SYN_REPORT } from "../../backends/input/events.ts";

/** A group of movements, `length` events with its end. */
function group(mark: number, length: number): InputEvent[] {
  const move = { type: 2, code: 0, value: mark };
  return [...new Array<InputEvent>(length - 1).fill(move), SYN_REPORT];
}

function key(code: number, value: number): InputEvent[] {
  return [{ type: 1, code, value }, SYN_REPORT];
}

/** A backlog with a running driver. */
function listening(limit?: number): Backlog {
  const backlog = new Backlog(limit);
  backlog.begin();
  return backlog;
}

function drain(backlog: Backlog): number[][] {
  const events: number[][] = [];
  while (!backlog.isEmpty) {
    const { type, code, value } = backlog.next()!;
    events.push([type, code, value]);
  }
  return events;
}

Deno.test("Backlog returns events in order", () => {
  const backlog = listening();
  let called = 0;
  backlog.onEvents = () => called++;
  assertEquals([backlog.isEmpty, backlog.next()], [true, undefined]);
  backlog.add([key(30, 1), key(30, 0)]);
  assertEquals([called, backlog.isEmpty], [1, false]);
  assertEquals(drain(backlog), [[1, 30, 1], [0, 0, 0], [1, 30, 0], [0, 0, 0]]);
  const { accepted, delivered, waiting, dropped } = backlog.counts;
  assertEquals([accepted, delivered, waiting, dropped], [4, 4, 0, 0]);
});

Deno.test("Backlog drops the oldest whole groups when there are too many", () => {
  const backlog = listening(8);
  backlog.add([group(1, 3), group(2, 3), group(3, 2)]);
  backlog.add([group(4, 2)]);
  assertEquals(drain(backlog).map(([, , value]) => value), [2, 2, 0, 3, 0, 4, 0]);
  assertEquals([backlog.counts.dropped, backlog.counts.droppedGroups], [3, 1]);
});

Deno.test("Backlog never drops a group of which a part was delivered", () => {
  const backlog = listening(6);
  backlog.add([group(1, 3), group(2, 3)]);
  assertEquals(backlog.next()?.value, 1);
  backlog.add([group(3, 3)]);
  assertEquals(drain(backlog).map(([, , value]) => value), [1, 0, 3, 3, 0]);
  assertEquals(backlog.counts.droppedGroups, 1);
});

Deno.test("Backlog drops a group that is larger than its limit", () => {
  const backlog = listening(4);
  backlog.add([group(1, 2), group(2, 5)]);
  assertEquals(drain(backlog), []);
  assertEquals([backlog.counts.dropped, backlog.counts.droppedGroups], [7, 2]);
});

Deno.test("Backlog sends the state of keys after it dropped some, before later events", () => {
  const backlog = listening(4);
  backlog.add([key(30, 1), key(29, 1)]);
  assertEquals(drain(backlog).filter(([type]) => type === 1), [[1, 30, 1], [1, 29, 1]]);
  backlog.add([key(30, 0), key(31, 1), key(32, 1), key(32, 0), key(30, 1), key(33, 1)]);
  assertEquals(drain(backlog).filter(([type]) => type === 1), [
    [1, 30, 0],
    [1, 31, 1],
    [1, 30, 1],
    [1, 33, 1],
  ]);
  assertEquals(backlog.counts.restored, 2);
});

Deno.test("Backlog drops events while no driver runs", () => {
  const backlog = new Backlog();
  backlog.add([key(30, 1), key(30, 0), group(1, 3)]);
  assertEquals([backlog.isEmpty, backlog.counts.dropped, backlog.counts.waiting], [true, 7, 0]);
  backlog.begin();
  assertEquals(drain(backlog), []);
  backlog.add([key(31, 1)]);
  assertEquals(drain(backlog), [[1, 31, 1], [0, 0, 0]]);
});

Deno.test("Backlog sends a starting driver only the keys and switches that are on", () => {
  const backlog = new Backlog();
  const lid = [{ type: 5, code: 0, value: 1 }, SYN_REPORT];
  backlog.add([key(42, 1), key(30, 1), key(30, 0), lid]);
  backlog.begin();
  assertEquals(drain(backlog), [[1, 42, 1], [5, 0, 1], [0, 0, 0]]);
  backlog.add([key(42, 0)]);
  assertEquals(drain(backlog), [[1, 42, 0], [0, 0, 0]]);
});

Deno.test("Backlog.end() drops pending events, ends a partial group, and releases keys", () => {
  const backlog = listening();
  backlog.add([key(30, 1), group(1, 3), key(31, 1)]);
  for (let i = 0; i < 3; i++) backlog.next();
  backlog.end();
  backlog.add([key(30, 0), key(31, 0), key(32, 1)]);
  backlog.begin();
  assertEquals(drain(backlog), [[1, 30, 0], [1, 32, 1], [0, 0, 0], [0, 0, 0]]);
  const { accepted, delivered, dropped, waiting } = backlog.counts;
  assertEquals([accepted, waiting], [delivered + dropped, 0]);
});

Deno.test("Backlog.begin() sends the state again, since the driver may be another one", () => {
  const backlog = listening();
  backlog.add([key(30, 1)]);
  drain(backlog);
  backlog.end();
  backlog.begin();
  backlog.begin();
  assertEquals(drain(backlog), [[1, 30, 1], [0, 0, 0]]);
});

Deno.test("Backlog.reset() leaves only the state for the next driver", () => {
  const backlog = listening();
  backlog.add([key(30, 1), group(1, 3)]);
  for (let i = 0; i < 3; i++) backlog.next();
  backlog.reset();
  assertEquals([backlog.isEmpty, backlog.counts.waiting], [true, 0]);
  backlog.add([key(30, 0), key(31, 1)]);
  backlog.begin();
  assertEquals(drain(backlog), [[1, 31, 1], [0, 0, 0]]);
});

Deno.test("Backlog.drained() resolves when a running driver has all events", async () => {
  const backlog = new Backlog();
  const order: string[] = [];
  const first = backlog.drained().then(() => order.push("begun"));
  backlog.begin();
  await first;
  backlog.add([key(30, 1)]);
  const second = backlog.drained().then(() => order.push("drained"));
  await Promise.resolve();
  order.push("waits");
  drain(backlog);
  await second;
  assertEquals(order, ["begun", "waits", "drained"]);
});

Deno.test("Backlog returns whole groups, in order and within its limit, over random steps", () => {
  const step = fc.oneof(
    fc.record({ add: fc.array(fc.integer({ min: 2, max: 6 }), { maxLength: 4 }) }),
    fc.record({ take: fc.nat(10) }),
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const backlog = listening(12);
    const got: InputEvent[] = [];
    let mark = 0;
    for (const step of steps) {
      if ("add" in step) backlog.add(step.add.map((length) => group(++mark, length)));
      else for (let i = 0; i < step.take && !backlog.isEmpty; i++) got.push(backlog.next()!);
      const { accepted, delivered, waiting, dropped } = backlog.counts;
      assert(waiting <= 12);
      assertEquals(accepted, delivered + waiting + dropped);
    }
    while (!backlog.isEmpty) got.push(backlog.next()!);
    let last = 0;
    let open = 0;
    for (const event of got) {
      if (endsGroup(event)) {
        last = open;
        open = 0;
      } else {
        assert(open === 0 ? event.value > last : event.value === open);
        open = event.value;
      }
    }
    assertEquals(open, 0);
  }));
});
