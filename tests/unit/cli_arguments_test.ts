import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { parseArguments } from "../../src/cli/arguments.ts";
import { UsageError } from "../../src/cli/usage_error.ts";
import { OptionError } from "../../src/virtio/options.ts";

const options = {
  blkFile: { type: "text", placeholder: "PATH", about: "The image" },
  size: { type: "number", unit: "bytes", placeholder: "SIZE", about: "Its size" },
  readOnly: { type: "flag", about: "Refuse writes" },
  help: { type: "flag", about: "Show this" },
} as const;

const parse = (...args: string[]) => parseArguments(args, options, "vhostd blk --help");
const refusal = (...args: string[]) => assertThrows(() => parse(...args), UsageError).message;

Deno.test("parseArguments() takes values after = and after a space", () => {
  assertEquals(parse("--blk-file=a=b", "--size", "1G", "--read-only").values, {
    blkFile: "a=b",
    size: 2 ** 30,
    readOnly: true,
  });
  assertEquals(parse("-h").values, { help: true });
});

Deno.test("parseArguments() does not use the word after a flag that takes no value", () => {
  assertEquals(parse("--read-only", "a"), {
    values: { readOnly: true },
    repeated: [],
    positional: ["a"],
  });
  assertEquals(parse("--", "--size"), { values: {}, repeated: [], positional: ["--size"] });
  assertEquals(parse("12", "true").positional, ["12", "true"]);
});

Deno.test("parseArguments() names the nearest flag", () => {
  assertEquals(refusal("--blk-fiel=x"), "Unknown flag --blk-fiel; did you mean --blk-file?");
  assertEquals(refusal("--network"), "Unknown flag --network; vhostd blk --help lists all");
  assertStringIncludes(refusal("-x"), "Unknown flag -x");
});

Deno.test("parseArguments() reports a missing value", () => {
  const message = "Expected a value after --blk-file, got none; write --blk-file=PATH";
  for (const args of [["--blk-file"], ["--blk-file="], ["--blk-file", "--read-only"]]) {
    assertEquals(refusal(...args), message);
  }
});

Deno.test("parseArguments() refuses a flag twice", () => {
  assertEquals(
    refusal("--size=1", "--size=2"),
    "Expected --size once, got 1 and 2; remove one of them",
  );
});

Deno.test("parseArguments() refuses values that are invalid for the option", () => {
  for (const args of ["--size=1Q", "--size=-1", "--read-only=maybe"]) {
    assertThrows(() => parse(args), OptionError, args.split("=")[0]);
  }
});

Deno.test("parseArguments() takes one option several times if told so", () => {
  const options = { port: { type: "text", placeholder: "PATH", about: "" } } as const;
  const args = ["--port=a", "--port", "b", "--port=c,mac=d"];
  assertEquals(parseArguments(args, options, "help", "port"), {
    ...{ values: {}, repeated: ["a", "b", "c,mac=d"], positional: [] },
  });
  assertThrows(() => parseArguments(args, options, "help"), UsageError, "Expected --port once");
});
