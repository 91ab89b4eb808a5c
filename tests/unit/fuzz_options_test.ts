import { assert, assertEquals, assertThrows } from "@std/assert";
import { parseOptions } from "../../tools/fuzz/options.ts";
import { TARGETS } from "../../tools/fuzz/targets.ts";

Deno.test("parseOptions() takes targets, each once, in any order", () => {
  assertEquals(parseOptions(["ring", "device", "ring"]).targets, ["ring", "device"]);
  assertEquals(parseOptions(["ring", "all"]).targets, TARGETS);
});

Deno.test("parseOptions() takes a seed and a number of cases, or has its own", () => {
  const { seed, cases } = parseOptions(["ring", "--seed=4294967295", "--cases=1"]);
  assertEquals([seed, cases], [2 ** 32 - 1, 1]);
  const other = parseOptions(["ring"]);
  assert(other.seed >= 0 && other.seed < 2 ** 32 && other.cases === 100_000);
});

Deno.test("parseOptions() needs no target for --list", () => {
  assert(parseOptions(["--list"]).list);
});

for (
  const [args, what] of [
    [[], "No target"],
    [["rings"], '"rings"'],
    [["ring", "--seed=-1"], "--seed takes"],
    [["ring", "--seed=1.5"], "--seed takes"],
    [["ring", "--cases=0"], "--cases takes"],
    [["ring", "--coverage="], "--coverage"],
    [["ring", "--sed=1"], "--sed"],
  ] as [string[], string][]
) {
  Deno.test(`parseOptions() says in one line what is wrong with ${JSON.stringify(args)}`, () => {
    const { message } = assertThrows(() => parseOptions(args), Error);
    assert(message.includes(what) && !message.includes("\n"), message);
  });
}
