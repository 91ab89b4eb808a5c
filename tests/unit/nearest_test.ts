import { assertEquals } from "@std/assert";
import { nearest, suggestion } from "../../src/virtio/nearest.ts";

Deno.test("nearest() finds the closest name", () => {
  const names = ["blk", "input", "rng", "socket-path", "control-path"];
  for (
    const [word, name] of [
      ["rgn", "rng"],
      ["bkl", "blk"],
      ["inptu", "input"],
      ["socketpath", "socket-path"],
      ["rn", "rng"],
      ["control", "control-path"],
      ["so", undefined],
      ["zzz", undefined],
    ] as const
  ) assertEquals(nearest(word, names), name, word);
});

Deno.test("suggestion() is empty when nothing is near", () => {
  assertEquals(suggestion("fdd", ["fd"], "--"), "; did you mean --fd?");
  assertEquals(suggestion("socket", ["fd"], "--"), "");
  assertEquals(
    suggestion("socket", ["lock", "socket-path"], "--"),
    "; did you mean --socket-path?",
  );
});
