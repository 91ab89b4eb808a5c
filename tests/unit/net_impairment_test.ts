import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  CLEAN,
  impairmentFrom,
  impairmentJson,
  isClean,
  parseImpairBody,
  parseLinkBody,
} from "../../backends/net/impairment/impairment.ts";
import { OptionError } from "../../mod.ts";

const NONE = {
  delay: undefined,
  jitter: undefined,
  loss: undefined,
  duplicate: undefined,
  reorder: undefined,
  rate: undefined,
  seed: undefined,
};

const CLEAR = { tx: CLEAN, rx: CLEAN, seed: 0, isLinkUp: true };

Deno.test("impairments count for both directions, or for those that are named", () => {
  const given = { delay: "20ms", jitter: "tx:500us", loss: "rx:0.1%", rate: "tx:10mbit,rx:64kbit" };
  assertEquals(impairmentFrom({ ...NONE, ...given, seed: 7 }), {
    tx: { ...CLEAN, delayMs: 20, jitterMs: 0.5, rate: 1e7 },
    rx: { ...CLEAN, delayMs: 20, loss: 0.001, rate: 64_000 },
    seed: 7,
    isLinkUp: true,
  });
});

Deno.test("without impairments packets pass as they are", () => {
  assert(isClean(impairmentFrom(NONE)));
  assert(isClean(parseImpairBody({ delay: "0", loss: "tx:0%,rx:0" }, CLEAR)));
  assert(!isClean({ ...CLEAR, isLinkUp: false }));
});

Deno.test("POST /impair replaces what is in force, and keeps the link", () => {
  const before = { ...CLEAR, isLinkUp: false };
  const parsed = parseImpairBody({ duplicate: "50%", seed: 3 }, before);
  assertEquals(parsed.isLinkUp, false);
  assertEquals(impairmentJson(parsed), {
    tx: { duplicate: 0.5 },
    rx: { duplicate: 0.5 },
    seed: 3,
  });
});

Deno.test("impairments that are wrong are refused with what is expected", () => {
  const cases: [Record<string, unknown>, string][] = [
    [{ delay: "20" }, '0 to 60s such as 20ms, or tx:…,rx:…; got "20"'],
    [{ delay: "61s" }, "0 to 60s"],
    [{ delay: "-1ms" }, 'got "-1ms"'],
    [{ delay: "1..5ms" }, 'got "1..5ms"'],
    [{ delay: "tx:1ms,2ms" }, "got"],
    [{ delay: "tx:1ms,tx:2ms" }, "got"],
    [{ delay: "1ms,2ms" }, "got"],
    [{ delay: "ty:1ms" }, "got"],
    [{ delay: "" }, "got"],
    [{ loss: "101%" }, "0 to 100% such as 0.1%"],
    [{ loss: "0.5" }, "0 to 100%"],
    [{ rate: "999bit" }, "0 or 1000bit to 1000gbit such as 10mbit"],
    [{ rate: "NaNmbit" }, "got"],
    [{ delay: "1ms", jitter: "2ms" }, "jitter may be at most delay, got 2 ms and 1 ms for tx"],
    [{ reorder: "1%" }, "reorder has no effect without delay for tx"],
    [{ delay: "rx:1ms", reorder: "1%" }, "reorder has no effect without delay for tx"],
    [{ constructor: "1" }, 'got "constructor"'],
    [{ delay: 20 }, "got 20"],
    [{ delay: null }, "got null"],
    [{ seed: -1 }, "seed takes 0 to 4294967295, got -1"],
    [{ seed: "1" }, "seed takes"],
  ];
  for (const [body, message] of cases) {
    assertThrows(() => parseImpairBody(body, CLEAR), TypeError, message);
  }
  for (const body of [null, 1, "x", []]) {
    assertThrows(() => parseImpairBody(body, CLEAR), TypeError, "Expected an object such as");
  }
  assertThrows(
    () => impairmentFrom({ ...NONE, loss: "2" }),
    OptionError,
    "--loss takes 0 to 100% such as 0.1%",
  );
});

Deno.test("POST /link takes the state, and nothing else", () => {
  assertEquals(parseLinkBody({ up: false }), false);
  for (const body of [undefined, null, {}, { up: 1 }, { up: true, down: false }, "up"]) {
    assertThrows(() => parseLinkBody(body), TypeError, '{"up":true}');
  }
});
