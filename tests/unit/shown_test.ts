import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { shown, shownDeep, shownJson, shownLines } from "../../src/runtime/shown.ts";

/** Characters that control a terminal, are invisible, or change the direction of text. */
const HOSTILE = [
  "\x00",
  "\x07",
  "\x08",
  "\t",
  "\r",
  "\x1b[2J",
  "\x1b]0;title\x07",
  "\x7f",
  "\x9b2J",
  "\xad",
  "\u061c",
  "\u200b",
  "\u200e",
  "\u202e",
  "\u2028",
  "\u2029",
  "\u2066",
  "\ufeff",
  "\ud800",
  "\u{e0041}",
];

function isSafe(text: string): boolean {
  return !/[\p{C}\p{Zl}\p{Zp}]/u.test(text);
}

Deno.test("shown() escapes control and invisible characters, and keeps ordinary text", () => {
  for (const text of HOSTILE) assert(isSafe(shown(`a${text}b`)), JSON.stringify(text));
  assertEquals(shown("Größe 12 µs → 日本語 🙂"), "Größe 12 µs → 日本語 🙂");
  assertEquals(shown("a\u202eb\x9bc"), "a\\u{202e}b\\x9bc");
});

Deno.test("shownLines() keeps newlines and no other control characters", () => {
  for (const text of HOSTILE) {
    const lines = shownLines(`a${text}b\nc`);
    assert(isSafe(lines.replace("\n", "")), JSON.stringify(text));
    assertEquals(lines.split("\n").length, 2);
  }
});

Deno.test("shownDeep() reaches each text, however deep, and the names of members", () => {
  const value = { "a\x1b": ["b\x9b", { c: "d\u202e", n: 1, z: null }] };
  assertEquals(shownDeep(value) as unknown, {
    "a\\x1b": ["b\\x9b", { c: "d\\u{202e}", n: 1, z: null }],
  });
});

Deno.test("shownJson() is safe to print, and parses to the same value", () => {
  for (const space of [undefined, 2]) {
    fc.assert(fc.property(fc.json(), fc.string({ unit: "binary" }), (json, text) => {
      const value = { value: JSON.parse(json), [text]: text };
      const written = shownJson(value, space);
      assert(isSafe(written.replaceAll("\n", "")));
      assertEquals(JSON.parse(written), JSON.parse(JSON.stringify(value)));
    }));
    for (const text of HOSTILE) assertEquals(JSON.parse(shownJson([text], space)), [text]);
  }
});

Deno.test("shownJson() writes a BigInt, exactly", () => {
  const values = [0n, -5n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 64n];
  assertEquals(
    shownJson(values),
    '[0,-5,9007199254740991,"9007199254740992","18446744073709551616"]',
  );
});
