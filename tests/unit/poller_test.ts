import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { Poller } from "../../src/runtime/data_plane/poller.ts";

const alone = () => new SharedArrayBuffer(4);

/**
 * Makes a thread handle its queue 20,000 times, and returns the share of the later half in which it
 * polled. Each turn handles a request and takes the given time.
 */
function share(poller: Poller, turnUs: (polls: boolean, turn: number) => number): number {
  let polled = 0;
  for (let i = 0; i < 20_000; i++) {
    if (poller.isOn && i >= 10_000) polled++;
    now = (now + turnUs(poller.isOn, i)) % 2 ** 30;
    poller.turn(now, 1);
  }
  return polled / 10_000;
}
let now = 2 ** 30 - 1000;

Deno.test("Poller polls if that serves more requests", () => {
  assertGreater(share(new Poller(32, alone(), 2), (polls) => polls ? 10 : 20), 0.95);
});

Deno.test("Poller sleeps if polling serves fewer requests, or as many", () => {
  assertLess(share(new Poller(32, alone(), 2), (polls) => polls ? 60 : 25), 0.05);
  assertLess(share(new Poller(32, alone(), 2), () => 30), 0.05);
  assertLess(share(new Poller(32, alone(), 2), () => 1000), 0.05);
});

Deno.test("Poller follows a client that changes", () => {
  const poller = new Poller(32, alone(), 2);
  for (let round = 0; round < 3; round++) {
    assertGreater(share(poller, (polls) => polls ? 10 : 20), 0.95);
    assertLess(share(poller, (polls) => polls ? 60 : 25), 0.05);
  }
});

Deno.test("Poller is not misled by an idle client", () => {
  const turnUs = (polls: boolean, i: number) => i % 640 === 0 ? 5_000_000 : polls ? 10 : 20;
  assertGreater(share(new Poller(32, alone(), 2), turnUs), 0.9);
});

Deno.test("Poller continues to poll for a while after a request", () => {
  const poller = new Poller(1000, alone(), 2);
  const start = performance.now();
  assert(poller.begin());
  while (performance.now() - start < 3) {
    poller.found();
    assert(poller.continues());
  }
  while (poller.continues()) assertLess(performance.now() - start, 5000);
  assertGreater(performance.now() - start, 3.5);
  poller.end();
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
  assertEquals(share(new Poller(0, alone(), 2), (polls) => polls ? 10 : 20), 0);
});
