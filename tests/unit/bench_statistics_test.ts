import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { Histogram } from "../../tools/bench/histogram.ts";
import { ratioSummary, summary } from "../../tools/bench/statistics.ts";

function assertClose(got: number, exact: number): void {
  assert(Math.abs(got - exact) <= exact * 0.032, `Expected about ${exact}, got ${got}`);
}

Deno.test("summary() has the median, the least and the most", () => {
  assertEquals(summary([3, 1, 2]), { median: 2, least: 1, most: 3 });
  assertEquals(summary([4, 1, 3, 2]), { median: 2.5, least: 1, most: 4 });
  assertEquals(summary([10, 9]), { median: 9.5, least: 9, most: 10 });
});

Deno.test("summary() leaves out what was not measured", () => {
  assertEquals(summary([NaN, 5, Infinity]), { median: 5, least: 5, most: 5 });
  assertEquals(summary([NaN]), undefined);
});

Deno.test("ratioSummary() compares pairs, not medians", () => {
  // The machine was ten times slower in the second pair.
  assertEquals(ratioSummary([200, 10, 300], [100, 10, 100]), { median: 2, least: 1, most: 3 });
  assertThrows(() => ratioSummary([1], [1, 2]), RangeError, "pairs");
});

Deno.test("Histogram counts small numbers exactly", () => {
  const histogram = new Histogram();
  for (let i = 0; i < 32; i++) histogram.add(i);
  assertEquals(histogram.quantile(0), 0);
  assertEquals(histogram.quantile(0.5), 15);
  assertEquals(histogram.quantile(1), 31);
});

Deno.test("Histogram knows any number to 3 %", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), (value) => {
    const histogram = new Histogram();
    histogram.add(value);
    assertEquals(histogram.count, 1);
    assertClose(histogram.quantile(0.5), value);
  }));
});

Deno.test("Histogram's quantiles are those of the sorted numbers", () => {
  const values = fc.array(fc.integer({ min: 0, max: 1e9 }), { minLength: 1, maxLength: 200 });
  fc.assert(fc.property(values, fc.double({ min: 0.01, max: 1, noNaN: true }), (values, part) => {
    const histogram = new Histogram();
    for (const value of values) histogram.add(value);
    const sorted = values.toSorted((a, b) => a - b);
    const exact = sorted[Math.ceil(values.length * part) - 1];
    assertClose(histogram.quantile(part), exact);
  }));
});

Deno.test("Histogram.merge() adds up, clear() forgets", () => {
  const [a, b] = [new Histogram(), new Histogram()];
  a.add(1);
  b.add(1_000_000);
  b.add(2_000_000);
  a.merge(b);
  assertEquals([a.count, a.quantile(0.01)], [3, 1]);
  a.clear();
  assertEquals([a.count, a.quantile(0.5)], [0, NaN]);
});
