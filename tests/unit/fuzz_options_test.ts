import { assert, assertEquals, assertThrows } from "@std/assert";
import { FUZZ } from "../../tools/fuzz/options.ts";
import { parseTool } from "../../tools/lib/tool.ts";
import { TARGETS } from "../../tools/fuzz/frame.ts";

Deno.test("parseTool() takes targets, each once, in any order", () => {
  assertEquals(parseTool(FUZZ, ["ring", "device", "ring"]).targets, ["ring", "device"]);
  assertEquals(parseTool(FUZZ, ["ring", "all"]).targets, TARGETS);
});

Deno.test("parseTool() takes a seed and a number of cases, or uses its own", () => {
  const { seed, cases } = parseTool(FUZZ, ["ring", "--seed=4294967295", "--cases=1"]);
  assertEquals([seed, cases], [2 ** 32 - 1, 1]);
  const other = parseTool(FUZZ, ["ring"]);
  assert(other.seed >= 0 && other.seed < 2 ** 32 && other.cases === 100_000);
});

Deno.test("parseTool() needs no target for --list", () => {
  assert(parseTool(FUZZ, ["--list"]).list);
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
  Deno.test(`parseTool() says in one line what is wrong with ${JSON.stringify(args)}`, () => {
    const { message } = assertThrows(() => parseTool(FUZZ, args), Error);
    assert(message.includes(what) && !message.includes("\n"), message);
  });
}
