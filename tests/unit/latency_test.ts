import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Latencies, latencyMemory } from "../../src/runtime/latency.ts";
import type { AnyDevice, QueueDefinition } from "../../src/virtio/mod.ts";

const requestq: QueueDefinition = { about: "Requests", kinds: ["read", "write"] };
const device = { queues: { requestq, eventq: { about: "Events" } } } as unknown as AnyDevice;

function latencies(): Latencies {
  return new Latencies(device, latencyMemory(device, 2));
}

Deno.test("Latencies puts each latency into a bucket at most 25 % above it", () => {
  fc.assert(fc.property(fc.double({ min: 256, max: 1.3e11, noNaN: true }), (ns) => {
    const all = latencies();
    all.add(0, 0, ns);
    const [{ buckets: [[upToUs, count]] }] = all.toJSON(0, requestq);
    assertEquals(count, 1);
    assert(upToUs * 1000 > ns && upToUs * 1000 <= ns * 1.25 + 64, `${upToUs} for ${ns}`);
  }));
});

Deno.test("Latencies keeps kinds and queues apart", () => {
  const all = latencies();
  for (let i = 0; i < 99; i++) all.add(0, 1, 10_000);
  all.add(0, 1, 5_000_000);
  all.add(1, 0, 1000);
  const [write, ...others] = all.toJSON(0, requestq);
  assertEquals(others, []);
  assertEquals([write.kind, write.samples, write.maxUs], ["write", 100, 5000]);
  assertEquals(write.totalUs, 5990);
  assertEquals([write.p50Us, write.p99Us], [10.24, 10.24]);
  assertEquals(write.p999Us, 5000);
  assertEquals(all.toJSON(1, device.queues.eventq).map(({ kind }) => kind), ["request"]);
});

Deno.test("Latencies takes what is no possible time", () => {
  const all = latencies();
  for (const ns of [-1, 0, 1e15, Number.MAX_SAFE_INTEGER]) all.add(0, 0, ns);
  assertEquals(all.toJSON(0, requestq)[0].samples, 4);
});
