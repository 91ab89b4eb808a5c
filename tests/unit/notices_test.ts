import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  brokenNotice,
  MAX_NOTICE_KINDS,
  NOTICE_PERIOD_MS,
  Notices,
  NoticeSender,
  refusedNotice,
} from "../../src/runtime/notices.ts";

Deno.test("Notices print the first of each kind at once, and the number of further ones at the end", () => {
  const told: string[] = [];
  {
    using notices = new Notices((line) => told.push(line));
    for (let i = 0; i < 1000; i++) notices.add({ what: "queue 0", why: `w${i}`, remedy: "reset" });
    notices.add({ what: "queue 1", why: "other" });
    assertEquals(told, ["queue 0: w0; reset", "queue 1: other"]);
  }
  assertEquals(told.slice(2), ["queue 0: 999 more since; the record has the latest"]);
});

Deno.test("Notices print the number of further ones after a period, and restart the count", async () => {
  const counted = Promise.withResolvers<string>();
  const told: string[] = [];
  using notices = new Notices((line) => {
    told.push(line);
    if (line.includes("more")) counted.resolve(line);
  }, 5);
  for (let i = 0; i < 3; i++) notices.add({ what: "a", why: "b" });
  // The timer does not keep the process alive.
  const keep = setTimeout(() => counted.reject(new Error("No count came")), 10_000);
  assertEquals(await counted.promise, "a: 2 more since; the record has the latest");
  clearTimeout(keep);
  notices[Symbol.dispose]();
  assertEquals(told.length, 2);
  assert(NOTICE_PERIOD_MS >= 1000, "Counts must not fill a log");
});

Deno.test("Notices keep a limited number of kinds, whatever is sent", () => {
  const told: string[] = [];
  {
    using notices = new Notices((line) => told.push(line));
    for (let i = 0; i < 10_000; i++) notices.add({ what: `kind ${i}`, why: "x" });
  }
  assertEquals(told.length, MAX_NOTICE_KINDS + 2);
  assertEquals(told[MAX_NOTICE_KINDS], `faults of other kinds: kind ${MAX_NOTICE_KINDS}: x`);
});

Deno.test("Notices pass a stack on", () => {
  const told: unknown[] = [];
  using notices = new Notices((line, stack) => told.push([line, stack]));
  notices.add(brokenNotice({ index: 1, name: "q" }, "device", null, "No luck", "Error: No luck\n"));
  const [[line, stack]] = told as [[string, string]];
  assertStringIncludes(line, "queue 1 (q) is broken, by the device: No luck; a reset ");
  assertStringIncludes(line, "VHOSTD_TRACE=1");
  assertEquals(stack, "Error: No luck\n");
});

Deno.test("brokenNotice() and refusedNotice() name the remedy", () => {
  const queue = { index: 0, name: "requestq" };
  const ring = brokenNotice(
    queue,
    "descriptor-loop",
    "virtio 1.3, 2.7.5.3",
    "Descriptor 7 comes again",
  );
  assertEquals(ring.what, "queue 0 (requestq) is broken, descriptor-loop (virtio 1.3, 2.7.5.3)");
  assertStringIncludes(ring.remedy!, "a reset by the guest's driver");
  assertStringIncludes(brokenNotice(queue, "memory", null, "x").remedy!, "share=on");
  assertStringIncludes(refusedNotice("SET_VRING_ADDR", "x").remedy!, "share=on");
  assertEquals(refusedNotice("SET_LOG_BASE", "not offered").remedy, undefined);
  assertEquals(refusedNotice("request 77", "x"), {
    what: "an unknown request is refused",
    why: "request 77: x",
    remedy: undefined,
  });
});

Deno.test("NoticeSender sends the first at once, and the number of further ones once a second", () => {
  const sent: [string, number][] = [];
  const sender = new NoticeSender(({ what }, count) => sent.push([what, count]));
  const notice = { what: "a", why: "b" };
  for (let now = 0; now <= 2500; now++) sender.add(notice, now);
  sender.add({ what: "c", why: "d" }, 2501);
  assertEquals(sent, [["a", 1], ["a", 1000], ["a", 1000], ["c", 1]]);
  for (let i = 0; i < 1000; i++) sender.add({ what: `kind ${i}`, why: "" }, 3000);
  assert(sent.length <= MAX_NOTICE_KINDS + 2);
});

Deno.test("Notices add counts that they receive", () => {
  const told: string[] = [];
  {
    using notices = new Notices((line) => told.push(line));
    notices.add({ what: "a", why: "b" });
    notices.add({ what: "a", why: "b" }, 1000);
  }
  assertEquals(told, ["a: b", "a: 1000 more since; the record has the latest"]);
});
