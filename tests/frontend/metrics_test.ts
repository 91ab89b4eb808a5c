/** Prometheus's own program on the metrics, and on the dashboard's queries. */
import { assertEquals, assertGreater } from "@std/assert";
import { Latencies, latencyMemory } from "../../src/runtime/latency.ts";
import { metricsText } from "../../src/runtime/metrics.ts";
import type { AnyDevice, QueueDefinition } from "../../src/virtio/mod.ts";
import { programPath } from "../../tools/guest/programs.ts";
import { sampleRecord } from "../unit/lib/sample_record.ts";

/** Runs promtool with a text on stdin; returns its status and what it printed. */
async function promtool(args: string[], stdin: string): Promise<[status: number, text: string]> {
  const child = new Deno.Command(await programPath("promtool"), {
    ...{ args, stdin: "piped", stdout: "piped", stderr: "piped" },
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(stdin));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  return [code, new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr)];
}

Deno.test("promtool reads all metrics, and finds no fault in their names and units", async () => {
  const requestq: QueueDefinition = { about: "Requests", kinds: ["read", "write"] };
  const device = { queues: { requestq } } as unknown as AnyDevice;
  const latencies = new Latencies(device, latencyMemory(device, 1));
  for (const us of [0.5, 3, 3, 1000, 60e6]) latencies.add(0, 1, us * 1000);
  const record = sampleRecord();
  record.queues[0].latencies = latencies.toJSON(0, requestq);
  record.device.instance = 'a"b\\c\nd';
  const text = metricsText([{ record }, { record: sampleRecord(), labels: { socket: "two" } }]);
  assertEquals(await promtool(["check", "metrics"], text), [0, ""]);
});

Deno.test("promtool reads each query of the dashboard for Grafana", async () => {
  const dashboard = await Deno.readTextFile(new URL("../../share/grafana.json", import.meta.url));
  const { panels } = JSON.parse(dashboard) as { panels: { targets: { expr: string }[] }[] };
  const rules = panels.flatMap(({ targets }) => targets).map(({ expr }, i) => ({
    record: `query:${i}`,
    expr: expr.replaceAll("$__rate_interval", "1m").replaceAll("$__interval", "1m"),
  }));
  assertGreater(rules.length, 5);
  // JSON is YAML
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(path, JSON.stringify({ groups: [{ name: "dashboard", rules }] }));
    const [status, said] = await promtool(["check", "rules", path], "");
    assertEquals([status, said.includes(`${rules.length} rules found`)], [0, true], said);
  } finally {
    await Deno.remove(path);
  }
});
