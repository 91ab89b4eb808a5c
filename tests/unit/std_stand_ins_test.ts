/**
 * Calls of `@std/cli`, `@std/bytes` and `@std/assert` with the results that their documentation
 * gives. They hold for the packages as for the stand-ins in `compat/std`.
 */
import * as std from "@std/assert";
import { concat, equals, indexOfNeedle, startsWith } from "@std/bytes";
import { parseArgs } from "@std/cli";

const { assertEquals, assertRejects, assertThrows } = std;

for (
  const [args, options, expected] of [
    [["--foo", "--bar=baz", "./quux.txt"], {}, { foo: true, bar: "baz", _: ["./quux.txt"] }],
    [["--bar", "baz"], { string: ["bar"] }, { bar: "baz", _: [] }],
    [["--foo", "bar", "--foo", "baz"], { collect: ["foo"] }, { foo: ["bar", "baz"], _: [] }],
    [["--foo", "--foo", "b"], { string: ["foo"], collect: ["foo"] }, { foo: ["", "b"], _: [] }],
    [[], { string: ["foo", "bar"], collect: ["foo"] }, { foo: [], _: [] }],
    [["--", "a", "arg1"], { "--": false }, { _: ["a", "arg1"] }],
    [["--", "a", "arg1"], { "--": true }, { _: [], "--": ["a", "arg1"] }],
    [["a"], { "--": true }, { _: ["a"], "--": [] }],
    [["-a", "beep", "-b", "boop"], {}, { _: [], a: "beep", b: "boop" }],
    [
      ["-x", "3", "-abc", "--beep=boop", "foo"],
      {},
      { _: ["foo"], x: 3, a: true, b: true, c: true, beep: "boop" },
    ],
    [["--n", "5", "007"], { string: ["n"] }, { _: [7], n: "5" }],
    [["--n", "5", "007"], { string: ["_"] }, { _: ["007"], n: 5 }],
    [["--n=a=b", "-"], {}, { _: ["-"], n: "a=b" }],
  ] as [string[], Record<string, never>, unknown][]
) {
  Deno.test(`parseArgs() of ${JSON.stringify(args)} with ${JSON.stringify(options)}`, () => {
    assertEquals(parseArgs(args, options) as unknown, expected);
  });
}

Deno.test("parseArgs() asks unknown() about what no option names, and drops what it refuses", () => {
  const calls: unknown[][] = [];
  const args = parseArgs(["--a", "1", "--b=2", "c", "-d"], {
    string: ["a"],
    unknown: (...call: unknown[]) => calls.push(call) < 0,
  });
  assertEquals(args as unknown, { a: "1", _: [] });
  assertEquals(calls, [["--b=2", "b", "2"], ["c"], ["-d", "d", true]]);
});

Deno.test("concat(), equals(), startsWith() and indexOfNeedle() behave as documented", () => {
  const source = new Uint8Array([0, 1, 2, 1, 2, 1, 2, 3]);
  const needle = new Uint8Array([1, 2]);
  assertEquals(
    concat([source.subarray(0, 3), new Uint8Array([3, 4, 5])]),
    Uint8Array.of(0, 1, 2, 3, 4, 5),
  );
  assertEquals(concat([]), new Uint8Array());
  assertEquals(equals(needle, Uint8Array.of(1, 2)), true);
  assertEquals(equals(needle, Uint8Array.of(1, 3)), false);
  assertEquals(equals(needle, Uint8Array.of(1, 2, 3)), false);
  assertEquals(startsWith(source, Uint8Array.of(0, 1, 2)), true);
  assertEquals(startsWith(needle, source), false);
  assertEquals(indexOfNeedle(source, needle), 1);
  assertEquals(indexOfNeedle(source, Uint8Array.of(5, 0)), -1);
  assertEquals(indexOfNeedle(source, needle, 2), 3);
  assertEquals(indexOfNeedle(source, needle, 6), -1);
});

const DATE = new Date(0);
for (
  const [name, passes, fails] of [
    ["assert", ["hello"], [""]],
    ["assertEquals", [{ a: [1] }, { a: [1] }], [{ a: [1] }, { a: [2] }]],
    ["assertNotEquals", [1, 2], [1, 1]],
    ["assertStrictEquals", [DATE, DATE], [DATE, new Date(0)]],
    ["assertGreater", [2, 1], [1, 1]],
    ["assertGreaterOrEqual", [1, 1], [0, 1]],
    ["assertLess", [1, 2], [1, 1]],
    ["assertLessOrEqual", [1, 1], [1, 0]],
    ["assertMatch", ["Raptor", /Raptor/], ["Denosaurus", /Raptor/]],
    ["assertStringIncludes", ["Hello", "ello"], ["Hello", "world"]],
    ["assertInstanceOf", [DATE, Date], [DATE, Number]],
    ["assertThrows", [() => raise(new TypeError("hello world!")), TypeError, "hello"], [() => 1]],
    ["assertThrows", [() => raise(new TypeError()), Error], [() => raise(new Error()), TypeError]],
    ["assertThrows", [() => raise(new Error("a")), Error, "a"], [
      () => raise(new Error("a")),
      Error,
      "b",
    ]],
  ] as [keyof typeof std, unknown[], unknown[]][]
) {
  Deno.test(`${name}() throws if the assertion fails, and only then`, () => {
    const call = std[name] as (...args: unknown[]) => unknown;
    call(...passes);
    assertEquals(assertThrows(() => call(...fails)).name, "AssertionError");
  });
}

Deno.test("assertRejects() returns the reason, and rejects if there is none", async () => {
  const reason = new TypeError("hello world!");
  assertEquals(await assertRejects(() => Promise.reject(reason), TypeError, "hello"), reason);
  for (const run of [() => Promise.resolve(), () => Promise.reject(new Error("other"))]) {
    const error = await assertRejects(() => assertRejects(run, TypeError, "hello"));
    assertEquals(error.name, "AssertionError");
  }
});

function raise(error: Error): never {
  throw error;
}
