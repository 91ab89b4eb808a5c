import { assert, assertEquals } from "@std/assert";
import { devices } from "../../backends/mod.ts";
import { complete, completionLines } from "../../src/cli/completion.ts";
import { commands } from "../../src/cli/program.ts";

/** The offered words, and whether a path is possible. */
async function offered(...words: string[]): Promise<[words: string[], files: boolean]> {
  const { candidates, files } = await complete(words, commands, devices);
  return [candidates.map(({ word }) => word), files];
}

Deno.test("complete() offers devices and commands first, and the program's flags after a dash", async () => {
  const [first] = await offered("");
  for (const name of ["blk", "input", "rng", "describe", "inspect", "new"]) {
    assert(first.includes(name));
  }
  assert(!first.includes("--help"));
  assertEquals(await offered("de"), [["describe"], false]);
  assertEquals(await offered("--v"), [["--version"], false]);
  assertEquals(await offered("./my"), [[], true]);
});

Deno.test("complete() offers a device's own flags and every device's, except those already given", async () => {
  const [flags] = await offered("rng", "--");
  for (const flag of ["--max-bytes=", "--socket-path=", "--print-capabilities"]) {
    assert(flags.includes(flag), flag);
  }
  const [rest] = await offered("rng", "--max-bytes=5", "--socket-path", "/x", "--");
  assert(!rest.includes("--max-bytes=") && !rest.includes("--socket-path="));
  assertEquals(await offered("rng", "--max"), [["--max-bytes="], false]);
});

Deno.test("complete() offers values: choices, or paths", async () => {
  assertEquals(await offered("blk", "--io="), [["--io=auto", "--io=uring", "--io=sync"], false]);
  assertEquals(await offered("blk", "--io=u"), [["--io=uring"], false]);
  assertEquals(await offered("blk", "--blk-file=/tm"), [[], true]);
  assertEquals(await offered("rng", "--record="), [[], true]);
  assertEquals(await offered("rng", "--threads="), [[], false]);
});

Deno.test("complete() offers a command's arguments", async () => {
  assertEquals(await offered("describe", ""), [
    ["blk", "input", "net", "rng", "sensor", "switch"],
    false,
  ]);
  assertEquals(await offered("inspect", ""), [[], true]);
  assertEquals(await offered("inspect", "--"), [["--watch", "--json", "--help"], false]);
  assertEquals(await offered("completion", "z"), [["zsh"], false]);
  assertEquals(await offered("new", "--kind="), [[
    "--kind=entropy",
    "--kind=console",
    "--kind=network",
  ], false]);
});

Deno.test("complete() knows a device from a module, and nothing of a missing one", async () => {
  const echo = new URL("../frontend/lib/echo_device.ts", import.meta.url).pathname;
  assertEquals(await offered(echo, "--que"), [["--queues="], false]);
  assertEquals(await offered("nothing", "--"), [[], false]);
  assertEquals(await offered("/no/such.ts", "--"), [[], false]);
});

Deno.test("completionLines() are one line each, and short", () => {
  const about = `${"long ".repeat(40)}\n\x1b[2J`;
  const lines = completionLines({ candidates: [{ word: "a", about }], files: true });
  assertEquals(lines.split("\n").length, 3);
  assert(lines.split("\n")[0].length <= 62, lines);
  assert(lines.endsWith("\n:files\n") && !lines.includes("\x1b"));
});
