import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { applyChanges } from "../../src/web/client/apply.ts";
import { updateState } from "../../src/runtime/changes.ts";

const copy = <T>(value: T): T => JSON.parse(JSON.stringify(value));

Deno.test("updateState() names the path to each changed value", () => {
  const before = { a: 1, b: [{ c: null, d: 2 }, 3], e: { f: 1 } };
  const after = { a: 1, b: [{ c: 5, d: 2 }], e: {}, g: [] };
  assertEquals(updateState(before, after), [
    ["b", 0, "c", 5],
    ["b", "length", 1],
    ["e", {}],
    ["g", []],
  ]);
  assertEquals<object>(before, after);
  after.b.push({ c: 6, d: 7 });
  assertEquals(before.b.length, 1, "a copy");
  assertEquals(updateState(before, copy(before)), []);
});

Deno.test("applyChanges() makes any value of another with the changes between them", () => {
  const { json } = fc.letrec((tie) => ({
    json: fc.oneof(
      { depthSize: "small" },
      fc.constantFrom(null, true, 0, 1, "", "text"),
      fc.array(tie("json"), { maxLength: 4 }),
      fc.dictionary(fc.constantFrom("a", "b", "c"), tie("json")),
    ),
  }));
  fc.assert(fc.property(fc.record({ root: json }), fc.record({ root: json }), (
    before,
    after,
  ) => {
    const [from, to] = [copy(before), copy(after)];
    const changes = copy(updateState(from, to));
    assertEquals(from, to);
    assertEquals(applyChanges(copy(before), changes), to);
  }));
});

Deno.test("applyChanges() leaves out changes of what an object inherits", () => {
  const made = JSON.parse('[["__proto__", "a", 1], ["__proto__", {}], ["constructor", "b", 2]]');
  const root = { c: 3 };
  assertEquals(applyChanges(root, made), { c: 3 });
  assertEquals(Object.getPrototypeOf(root), Object.prototype);
  assertEquals([Object.hasOwn(Object.prototype, "a"), Object.hasOwn(Object, "b")], [false, false]);
});
