import { assertEquals } from "@std/assert";
import { Latencies, latencyMemory } from "../../src/runtime/latency.ts";
import { metricsText } from "../../src/runtime/metrics.ts";
import type { AnyDevice, QueueDefinition } from "../../src/virtio/mod.ts";
import { sampleRecord } from "./lib/sample_record.ts";

const requestq: QueueDefinition = { about: "Requests", kinds: ["read", "write"] };
const device = { queues: { requestq } } as unknown as AnyDevice;

/** The lines of a metric, by its name. */
function linesOf(text: string, name: string): string[] {
  return text.split("\n").filter((line) => line.startsWith(`vhostd_${name}{`));
}

Deno.test("metricsText() follows the text format", () => {
  const text = metricsText([{ record: sampleRecord() }]);
  const label = '[a-z_]+="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
  const line = new RegExp(`^vhostd_[a-z_]+\\{${label}(?:,${label})*\\} -?[0-9.e+-]+$`);
  let metric = "";
  const seen = new Set<string>();
  for (const text_ of text.trimEnd().split("\n")) {
    const [, kind, name] = /^# (HELP|TYPE) (\S+) \S/.exec(text_) ?? [];
    if (kind !== undefined) {
      if (kind === "HELP") assertEquals(seen.has(name), false, `${name} twice`);
      seen.add(name);
      metric = name;
    } else {
      assertEquals(line.test(text_), true, text_);
      assertEquals(text_.startsWith(metric), true, text_);
    }
  }
  assertEquals(
    linesOf(text, "queue_requests_total"),
    [0, 1, 2, 3].map((queue) =>
      `vhostd_queue_requests_total{device="blk",queue="${queue}",name="requestq"} ${
        queue === 0 ? 12_345 : 0
      }`
    ),
  );
  assertEquals(linesOf(text, "connected"), ['vhostd_connected{device="blk"} 1']);
  assertEquals(linesOf(text, "report")[1], 'vhostd_report{device="blk",item="failures.write"} 2');
});

Deno.test("metricsText() tells records apart, and escapes labels", () => {
  const record = sampleRecord();
  record.device.instance = 'a"b\\c\nd';
  const text = metricsText([{ record, labels: { socket: "one" } }, { record: sampleRecord() }]);
  assertEquals(linesOf(text, "connections_total"), [
    'vhostd_connections_total{socket="one",device="blk",instance="a\\"b\\\\c\\nd"} 2',
    'vhostd_connections_total{device="blk"} 2',
  ]);
  assertEquals(text.split("# TYPE vhostd_connections_total").length, 2);
});

Deno.test("metricsText() has cumulative histograms in seconds", () => {
  const latencies = new Latencies(device, latencyMemory(device, 1));
  for (const us of [0.5, 3, 3, 1000, 60e6]) latencies.add(0, 1, us * 1000);
  const record = sampleRecord();
  record.queues = [{ ...record.queues[0], latencies: latencies.toJSON(0, requestq) }];
  const text = metricsText([{ record }]);
  const at = (le: string) => {
    const label = `kind="write",le="${le}"`;
    const line = linesOf(text, "request_duration_seconds_bucket").find((line) =>
      line.includes(label)
    );
    return Number(line?.split(" ").at(-1));
  };
  assertEquals(
    ["0.000001024", "0.000002048", "0.000004096", "0.001048576", "17.179869184", "+Inf"].map(at),
    [1, 1, 3, 4, 4, 5],
  );
  const labels = '{device="blk",queue="0",name="requestq",kind="write"}';
  assertEquals(linesOf(text, "request_duration_seconds_count"), [
    `vhostd_request_duration_seconds_count${labels} 5`,
  ]);
  assertEquals(linesOf(text, "request_duration_seconds_sum"), [
    `vhostd_request_duration_seconds_sum${labels} ${(60e6 + 1006.5) / 1e6}`,
  ]);
});

Deno.test("metricsText() has the numbers of a report that JSON has, BigInts too", () => {
  const record = sampleRecord();
  record.report = { bytes: 7n, list: [true, "x", null] };
  assertEquals(linesOf(metricsText([{ record }]), "report"), [
    'vhostd_report{device="blk",item="bytes"} 7',
    'vhostd_report{device="blk",item="list.0"} 1',
  ]);
});

Deno.test("metricsText() takes records of an older version of vhostd", () => {
  const record = sampleRecord();
  // deno-lint-ignore no-explicit-any
  delete (record as any).process;
  // deno-lint-ignore no-explicit-any
  for (const queue of record.queues) delete (queue as any).latencies;
  assertEquals(linesOf(metricsText([{ record }]), "process_cpu_seconds_total"), []);
});

Deno.test("the dashboard for Grafana queries metrics that there are", async () => {
  const latencies = new Latencies(device, latencyMemory(device, 1));
  latencies.add(0, 0, 1000);
  const record = sampleRecord();
  record.queues = [{ ...record.queues[0], latencies: latencies.toJSON(0, requestq) }];
  const text = metricsText([{ record }]);
  const dashboard = await Deno.readTextFile(new URL("../../share/grafana.json", import.meta.url));
  const { panels } = JSON.parse(dashboard) as { panels: { targets: { expr: string }[] }[] };
  const names = panels.flatMap(({ targets }) => targets)
    .flatMap(({ expr }) => expr.match(/vhostd_[a-z_]+/g) ?? []);
  assertEquals(names.length > 8, true);
  for (const name of names) assertEquals(text.includes(`\n${name}{`), true, name);
});
