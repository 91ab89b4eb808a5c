import { assert, assertEquals, assertThrows } from "@std/assert";
import { allCells, quickCells, selectCells } from "../../tools/bench/cells.ts";
import { goalsOf, goalText, isMet } from "../../tools/bench/goals.ts";
import { BENCH } from "../../tools/bench/options.ts";
import { parseTool } from "../../tools/lib/tool.ts";

function cell(name: string) {
  const found = allCells().find((cell) => cell.name === name);
  assert(found, name);
  return found;
}

function names(filter: string): string[] {
  return selectCells(allCells(), filter).map(({ name }) => name);
}

Deno.test("allCells() gives each cell a unique name", () => {
  const all = allCells().map(({ name }) => name);
  assertEquals(new Set(all).size, all.length);
  for (const name of all) {
    assert(/^[a-z-]+\/[a-z]+(4k|128k)\/qd\d+(\/[a-z0-9]+)?(\/client-polls)?$/.test(name), name);
  }
});

Deno.test("quickCells() are cells", () => {
  assertEquals(quickCells().length, 40);
});

Deno.test("selectCells() takes a name, parts of names and wildcards", () => {
  assertEquals(names("null/read4k/qd32"), ["null/read4k/qd32"]);
  assertEquals(names("null/read4k/qd1/poll"), ["null/read4k/qd1/poll"]);
  assertEquals(names("tmpfs/read4k/qd1"), ["tmpfs/read4k/qd1"]);
  assert(names("disk").every((name) => name.startsWith("disk/")));
  assertEquals(names("read4k/qd1/2q").length, 8);
  assertEquals(names("*/2threads").length, 6);
  assertEquals(names("disk*/write4k/qd128").length, 2);
  assertEquals(names("client-polls").length, allCells().length / 2);
  assertEquals(names("qd3"), []);
  assertEquals(names("read.k"), []);
});

Deno.test("goalsOf() knows the goals of the table", () => {
  const limits = (name: string) =>
    Object.fromEntries(Object.entries(goalsOf(cell(name))).map(([key, goal]) => [key, goal.limit]));
  assertEquals(limits("null/read4k/qd1"), { iops: 1, cpu: 1 });
  assertEquals(limits("null/read4k/qd1/client-polls"), { iops: 2, cpu: 1 });
  assertEquals(limits("null/read4k/qd32"), { iops: 1.3, cpu: 0.6, systemCalls: 0.1 });
  assertEquals(limits("null/write4k/qd128"), { iops: 1.3, cpu: 0.6 });
  assertEquals(limits("null/read4k/qd128/client-polls"), { iops: 1.2, cpu: 0.8 });
  assertEquals(limits("tmpfs/read4k/qd32"), { iops: 3, cpu: 0.2 });
  assertEquals(limits("tmpfs/write4k/qd32/client-polls"), { iops: 2.5, cpu: 0.3 });
  assertEquals(limits("tmpfs/read4k/qd1"), {});
  assertEquals(limits("tmpfs/seqread128k/qd1"), {});
  assertEquals(limits("disk/read4k/qd32"), { iops: 1.5, cpu: 0.7 });
  assertEquals(limits("disk-direct/write4k/qd32"), { iops: 1, cpu: 0.8 });
  assertEquals(limits("rbd/read4k/qd32"), { iops: 1, cpu: 0.8 });
  assertEquals(limits("disk/read4k/qd128"), {});
  assertEquals(limits("null/read4k/qd32/packed"), { iops: 0.95 });
  assertEquals(limits("null/read4k/qd32/packed/client-polls"), { iops: 1, cpu: 1.05 });
  assertEquals(limits("null/read4k/qd32/inflight"), { iops: 0.95 });
  assertEquals(limits("null/read4k/qd32/typescript"), { iops: 0.95 });
  assertEquals(limits("null/read4k/qd32/promise/client-polls"), { iops: 0.2 });
  assertEquals(limits("tmpfs/read4k/qd32/packed"), {});
  assertEquals(limits("tmpfs/read4k/qd32/2threads/client-polls"), { iops: 1.5 });
  assertEquals(limits("disk-direct/read4k/qd32/2threads"), {});
});

Deno.test("isMet() judges by the displayed value", () => {
  assert(isMet({ is: "at least", limit: 1.2 }, 1.196));
  assert(!isMet({ is: "at least", limit: 1.2 }, 1.194));
  assert(isMet({ is: "at most", limit: 0.7 }, 0.704));
  assert(!isMet({ is: "below", limit: 0.1 }, 0.1));
  assertEquals(goalText({ is: "at most", limit: 0.7 }), "≤ 0.7");
});

Deno.test("parseTool() chooses cells and times", () => {
  const all = parseTool(BENCH, []);
  assertEquals([all.cells.length, all.withExtras, all.runs], [allCells().length, true, 5]);
  const quick = parseTool(BENCH, ["--quick", "--runs=1"]);
  assertEquals([quick.cells.length, quick.seconds, quick.runs], [quickCells().length, 0.3, 1]);
  assertEquals(quick.processors, ["asleep", "awake"]);
  assertEquals(parseTool(BENCH, ["--processors=awake"]).processors, ["awake"]);
  const some = parseTool(BENCH, [
    "null/read4k/qd32",
    "null/read4k/qd1/poll",
    "--seconds=0.5",
    "--flags=--io=sync -x",
  ]);
  assertEquals(some.cells.map(({ name }) => name), ["null/read4k/qd1/poll", "null/read4k/qd32"]);
  assertEquals([some.withExtras, some.seconds], [false, 0.5]);
  assertEquals(some.own.flags, ["--io=sync", "-x"]);
});

Deno.test("parseTool() says what is wrong", () => {
  assertThrows(() => parseTool(BENCH, ["nul/read"]), Error, "No cell is called nul/read");
  assertThrows(() => parseTool(BENCH, ["--fast"]), Error, "Unknown flag --fast");
  assertThrows(() => parseTool(BENCH, ["--processors=hot"]), Error, "asleep, awake, both");
  assertThrows(() => parseTool(BENCH, ["--runs=0"]), Error, "--runs takes 1 to 1000");
  assertThrows(() => parseTool(BENCH, ["--seconds=0"]), Error, "expected a number");
});
