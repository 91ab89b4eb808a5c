import { assertEquals, assertLessOrEqual, assertMatch } from "@std/assert";
import type { LiveRead } from "../../src/cli/live_records.ts";
import { topText } from "../../src/cli/top_text.ts";
import type { RecordJson } from "../../src/runtime/record.ts";
import { queue, sampleRecord, SINCE } from "./lib/sample_record.ts";

/** A record with two queues that have made so many requests. */
function record(at: number, requests: number[], cpuSeconds = 0): RecordJson {
  return {
    ...sampleRecord(),
    at,
    process: { pid: 7, cpuSeconds },
    queues: requests.map((requests, i) =>
      queue(i, "requestq", {
        requests,
        bytesRead: requests * 1024,
        starts: 1,
        running: true,
        latencies: requests === 0 ? [] : [{
          ...{ kind: "read", samples: requests, totalUs: requests * 9, maxUs: 20, p50Us: 10 },
          ...{ p90Us: 10, p99Us: 10, p999Us: 10, buckets: [[10.24, requests]] },
        }],
      })
    ),
  };
}

function read(records: RecordJson[], silent: string[] = []): LiveRead {
  return { records: records.map((record, i) => ({ socket: `/${i}`, record })), silent };
}

Deno.test("topText() has the busiest queues first, with rates since the read before", () => {
  const before = read([record(SINCE, [10, 20], 1)]);
  const after = read([record(SINCE + 2000, [20, 220], 1.5)], ["/gone.ctl"]);
  const [title, head, first, second, ...rest] = topText(after, before);
  assertEquals(title, "1 device, 105 requests/s, 25 % CPU, 1 silent: /gone.ctl");
  assertMatch(head, /^ +device +# +queue +state +requests\/s/);
  assertMatch(first, /blk +1 +requestq +running +100 +0 +100\.0 KiB .* 10\.2 µs +10\.2 µs/);
  assertMatch(second, /blk +0 +requestq +running +5 /);
  assertEquals(rest, []);
});

Deno.test("topText() fits a window", () => {
  const many = (count: number) => [record(SINCE + count, Array(100).fill(count))];
  const lines = topText(read(many(1000)), read(many(0)), { rows: 10, columns: 50 });
  assertEquals(lines.length, 10);
  for (const line of lines) assertLessOrEqual(line.length, 50);
  assertMatch(lines[9], /… 93 queues more/);
});

Deno.test("topText() takes a device that restarted, came or broke", () => {
  const restarted = { ...record(SINCE + 5000, [1, 1]), since: SINCE + 4000 };
  assertEquals(topText(read([restarted]), read([record(SINCE, [9, 9])])), [
    "1 device, 0 requests/s, 0 % CPU",
  ]);
  assertEquals(topText(read([restarted]), undefined), ["1 device"]);
  const broken = record(SINCE + 1000, [10, 30]);
  broken.queues[0].broken = true;
  assertMatch(topText(read([broken]), read([record(SINCE, [0, 0])]))[2], /blk +0 .* broken/);
});
