import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { CellResult, SideResult } from "../../tools/bench/compare.ts";
import { digits, markdown, table, thousands } from "../../tools/bench/markdown.ts";
import type { Report } from "../../tools/bench/markdown.ts";
import type { Summary } from "../../tools/bench/statistics.ts";

const of = (median: number): Summary => ({ median, least: median / 2, most: median * 2 });

const side: SideResult = {
  name: "vhostd",
  mode: "",
  drive: { queues: 1, depth: 32 },
  iops: of(1_234_567),
  p50Us: of(12.34),
  p99Us: of(123.4),
  cpuUs: of(0.456),
  loadUs: of(0.3),
  kicks: of(0.01),
  systemCalls: of(0.031),
};

const cell: CellResult = {
  name: "null/read4k/qd32",
  processors: "asleep",
  subject: side,
  reference: {
    ...side,
    name: "qemu-storage-daemon 11.1.3",
    mode: "iothread",
    systemCalls: undefined,
  },
  iopsRatio: of(1.5),
  cpuRatio: of(0.9),
  older: [],
  goals: {
    iops: { is: "at least", limit: 1.2, isMet: true },
    cpu: { is: "at most", limit: 0.7, isMet: false },
  },
};

const report: Report = {
  version: 2,
  date: "2026-11-22T10:11:12.000Z",
  machine: {
    processor: "A processor",
    cores: 2,
    memoryBytes: 8 * 2 ** 30,
    kernel: "Linux 6.1",
    disk: "ext4 on /dev/vda",
    loadAverage: 0.5,
    versions: { vhostd: "0.1.0", deno: "2.9.6", v8: "15.0", peers: ["11.1.3", "10.0.2"] },
  },
  runs: 3,
  seconds: 0.3,
  wakeUpUs: { asleep: 62.34, awake: 7.8 },
  chains: "direct",
  systemCalls: "counted by hand",
  cells: [cell],
  extras: { collections: { perMillion: 0, collections: 0, requests: 1e7 } },
  failures: [{ what: "null/read4k/qd1", reason: "it ended" }],
};

Deno.test("table() aligns columns", () => {
  assertEquals(
    table([["name", "n"], ["a", "1"], ["longer", "1234"]]),
    [
      "| name   |    n |",
      "| ------ | ---: |",
      "| a      |    1 |",
      "| longer | 1234 |",
    ].join("\n"),
  );
});

Deno.test("markdown() shows ratios, goals, the machine and what failed", () => {
  const text = markdown(report);
  assertStringIncludes(text, "2026-11-22 10:11 UTC: A processor, 2 cores, 8 GiB; Linux 6.1");
  assertStringIncludes(text, "1.23 M / 1.23 M | 1.50 (0.75–3.00)");
  assertStringIncludes(text, "IOPS ≥ 1.2 met, CPU ≤ 0.7 **not met**");
  assertStringIncludes(text, "0.031 / –");
  assertStringIncludes(text, "0.00 (of 10.0 million)");
  assertStringIncludes(text, "- null/read4k/qd1 could not be measured: it ended");
  const widths = text.split("\n").filter((line) => line.startsWith("| ")).map((line) =>
    line.split("|").length
  );
  assert(new Set(widths).size <= 2);
});

Deno.test("markdown() shows each world by itself, and older peers beside the newest", () => {
  const older = [{
    reference: { ...side, name: "qemu-storage-daemon 10.0.2" },
    iopsRatio: of(2.5),
    cpuRatio: of(0.25),
  }];
  const cells: CellResult[] = [{ ...cell, older }, { ...cell, processors: "awake", older }];
  const text = markdown({ ...report, cells });
  const [asleep, awake] = text.split("Processors are kept awake").map((part) => part.split("\n"));
  assertStringIncludes(asleep.join("\n"), "waking a thread takes 62.3 µs:");
  assertStringIncludes(awake[0], "waking a thread takes 7.80 µs:");
  for (const part of [asleep, awake]) {
    const row = part.filter((line) => line.startsWith("| null/read4k/qd32 "));
    assertEquals(row.length, 1);
    assertStringIncludes(row[0], "10.0.2: 2.50, 0.25");
  }
  assert(!markdown(report).includes("kept awake"));
  assert(!markdown(report).includes("older peer"));
});

Deno.test("markdown() shows what an independent client found", () => {
  const both = { own: of(250_000), peer: of(100_000), ratio: of(2.5) };
  const extras = { independent: [{ name: "null/read4k/qd32", iops: both, cpuUs: both }] };
  assertStringIncludes(markdown({ ...report, extras }), "| 250 k / 100 k | 2.50 (1.25–5.00) |");
});

Deno.test("markdown() shows the processor time at low rates, and whether an idle device is one", () => {
  const at = (percent: number) => ({ percent, iops: 0 });
  const text = (percent: number) =>
    markdown({
      ...report,
      extras: { lowRates: [{ rate: 0, polling: at(percent), sleeping: at(0.01) }] },
    });
  assertStringIncludes(text(0.11), "≤ 0.1 met");
  assertStringIncludes(text(0.13), "≤ 0.1 **not met**");
});

Deno.test("markdown() says what ours is compared with", () => {
  const own = (drive: Partial<SideResult["drive"]>, reference: Partial<SideResult["drive"]> = {}) =>
    markdown({
      ...report,
      cells: [{
        ...cell,
        subject: { ...side, drive: { ...side.drive, ...drive } },
        reference: { ...side, drive: { ...side.drive, ...reference } },
      }],
    });
  assertStringIncludes(own({ isPacked: true }), "| our split |");
  assertStringIncludes(own({ hasRecord: true }), "| ours, no record |");
  assertStringIncludes(own({}, { pollUs: 0 }), "| ours that never polls |");
  assertStringIncludes(own({ queues: 2, depth: 16 }), "| our 1 × QD 32 |");
});

Deno.test("thousands() and digits() show three digits", () => {
  assertEquals([999, 12_345, 123_456, 999_499, 999_500].map(thousands), [
    "1.0 k",
    "12.3 k",
    "123 k",
    "999 k",
    "1.00 M",
  ]);
  assertEquals([0, 0.0123, 0.1, 1.234, 9.99, 9.996, 12.34, 99.96].map(digits), [
    "0.00",
    "0.012",
    "0.10",
    "1.23",
    "9.99",
    "10.0",
    "12.3",
    "100",
  ]);
});
