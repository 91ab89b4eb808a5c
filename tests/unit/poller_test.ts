import { assert, assertEquals, assertLess } from "@std/assert";
import { Poller } from "../../src/runtime/poller.ts";

/** Sleeps, or polls as long as it goes on; returns whether it polled. */
function turn(poller: Poller, finds = 0): boolean {
  if (!poller.isOn) {
    poller.sleeps();
    return false;
  }
  if (!poller.begin()) return false;
  for (let i = 0; i < finds; i++) {
    poller.found();
    assert(poller.goesOn());
  }
  const start = performance.now();
  while (poller.goesOn()) assertLess(performance.now() - start, 5000);
  poller.end();
  return true;
}

const alone = () => new SharedArrayBuffer(4);

Deno.test("Poller polls again as long as that brings something", () => {
  const poller = new Poller(10, alone(), 2);
  for (let i = 0; i < 100; i++) assert(turn(poller, 1), `${i}`);
});

Deno.test("Poller pauses for longer and longer where polling brings nothing", () => {
  const poller = new Poller(10, alone(), 2);
  const polled = Array.from({ length: 40 }, (_, i) => turn(poller) ? i : -1).filter((i) => i >= 0);
  assertEquals(polled, [0, 1, 2, 3, 6, 11, 20, 37]);
  let count = 0;
  for (let i = 0; i < 10_000; i++) if (turn(poller)) count++;
  // A thousandth, and what it takes to get there.
  assertLess(count, 20);
  while (!poller.isOn) poller.sleeps();
  assert(turn(poller, 1));
  for (let i = 0; i < 4; i++) assert(turn(poller), `${i}`);
  assert(!turn(poller));
});

Deno.test("Poller leaves a processor to others", () => {
  const shared = alone();
  const pollers = Array.from({ length: 4 }, () => new Poller(1000, shared, 3));
  assertEquals(pollers.map((poller) => poller.begin()), [true, true, false, false]);
  pollers[0].end();
  assertEquals([pollers[2].begin(), pollers[3].begin()], [true, false]);
  const single = new Poller(1000, alone(), 1);
  assert(single.begin());
});

Deno.test("Poller never polls with a time of 0", () => {
  const poller = new Poller(0, alone(), 2);
  for (let i = 0; i < 10; i++) assert(!turn(poller, 1));
});
