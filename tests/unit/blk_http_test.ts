import { assertEquals, assertThrows } from "@std/assert";
import {
  conditionsOf,
  expectRange,
  HttpFault,
  MAX_DISK_BYTES,
  versionOf,
} from "../../backends/blk/http/answer.ts";
import { Progress, ProgressLines } from "../../backends/blk/http/progress.ts";

function answer(fields: HeadersInit, status = 206): Response {
  return new Response(null, { status, headers: fields });
}

const first = { "content-range": "bytes 0-99/1000", etag: '"a"' };
const lastModified = "Fri, 27 Nov 2026 09:42:07 GMT";

Deno.test("versionOf() takes a strong ETag, else Last-Modified", () => {
  assertEquals(versionOf(answer(first)), { bytes: 1000, etag: '"a"' });
  assertEquals(
    versionOf(answer({ ...first, "last-modified": lastModified })),
    { bytes: 1000, etag: '"a"' },
  );
  for (const etag of ['W/"a"', "a", '"a']) {
    const version = versionOf(answer({ ...first, etag, "last-modified": lastModified }));
    assertEquals(version, { bytes: 1000, lastModified });
    assertEquals(conditionsOf(version), { "if-unmodified-since": lastModified });
  }
  assertEquals(conditionsOf({ bytes: 1, etag: '"a"' }), { "if-match": '"a"' });
});

Deno.test("versionOf() refuses what cannot be served, with the reason", () => {
  const cases: [response: Response, message: string][] = [
    [answer({}, 200), "ignores Range"],
    [answer({ "content-range": "bytes */0" }, 416), "the file is empty"],
    [answer({}, 401), "Expected 206, got 401"],
    [answer({ ...first, "content-range": "bytes 0-99/*" }), 'got "bytes 0-99/*"'],
    [answer({ ...first, "content-range": "bytes 1-99/1000" }), "those from 1 on"],
    [answer({ ...first, "content-range": `bytes 0-99/${MAX_DISK_BYTES + 1}` }), "at most"],
    [answer({ ...first, "content-encoding": "gzip" }), 'no Content-Encoding, got "gzip"'],
    [answer({ ...first, etag: 'W/"a"' }), "neither a strong ETag nor Last-Modified"],
  ];
  for (const [response, message] of cases) {
    assertThrows(() => versionOf(response), HttpFault, message);
  }
});

Deno.test("expectRange() takes that part of that version alone", () => {
  const version = { bytes: 1000, etag: '"a"' };
  const range = (fields: HeadersInit, status?: number, by: typeof version | object = version) =>
    expectRange(answer(fields, status), by as typeof version, 100, 200);
  const part = { "content-range": "bytes 100-199/1000", etag: '"a"' };
  range(part);
  range({ ...part, "content-encoding": "identity" });
  const changed = "has changed on the server";
  const cases: [fields: HeadersInit, message: string, status?: number][] = [
    [{}, changed, 412],
    [{}, changed, 200],
    [{ ...part, etag: '"b"' }, `etag was "a", now it is "b"`],
    [{ "content-range": part["content-range"] }, `etag was "a", now it is null`],
    [{ ...part, "content-range": "bytes 100-199/1001" }, "size was 1000, now it is 1001"],
    [{ ...part, "content-range": "bytes 101-199/1000" }, "Expected bytes 100-199, got 101-199"],
    [{ ...part, "content-range": "bytes 100-198/1000" }, "Expected bytes 100-199, got 100-198"],
    [{ ...part, "content-range": "bytes=100-199/1000" }, "Expected a Content-Range"],
    [{ ...part, "content-encoding": "br" }, "Expected no Content-Encoding"],
    [{}, "Expected a Content-Range"],
  ];
  for (const [fields, message, status] of cases) {
    assertThrows(() => range(fields, status), HttpFault, message);
  }
  const dated = { bytes: 1000, lastModified };
  range({ ...part, "last-modified": lastModified }, 206, dated);
  assertThrows(() => range(part, 206, dated), HttpFault, "last-modified was");
  for (const [status, isFinal] of [[404, true], [401, true], [429, false], [503, false]] as const) {
    const fault = assertThrows(() => range({}, status), HttpFault);
    assertEquals(fault.isFinal, isFinal, `${status}`);
  }
});

Deno.test("ProgressLines tells after 64 MiB, twice as much or a tenth more, and at the end", () => {
  const lines: string[] = [];
  const progress = new Progress();
  const MIB = 2 ** 20;
  const told = new ProgressLines(1000 * MIB, 0, (line) => lines.push(line));
  const at = (mebibytes: number, seconds: number, isEnd = false) => {
    lines.length = 0;
    progress.fetched = mebibytes * MIB;
    progress.requests = mebibytes * 2;
    told.look(progress, seconds * 1000, isEnd);
    return lines[0];
  };
  assertEquals(at(0, 100, true), undefined);
  assertEquals(at(63, 100), undefined);
  assertEquals(at(64, 100), "Fetched 64.0 MiB of 1000.0 MiB in 128 requests, now 655.4 KiB/s");
  assertEquals(at(128, 109), undefined);
  assertEquals(at(128, 110), "Fetched 128.0 MiB of 1000.0 MiB in 256 requests, now 6.4 MiB/s");
  assertEquals(at(227, 200), undefined);
  progress.retries = 3;
  assertEquals(
    at(230, 200),
    "Fetched 230.0 MiB of 1000.0 MiB in 460 requests, 3 repeated, now 1.1 MiB/s",
  );
  assertEquals(
    at(231, 201, true),
    "Fetched 231.0 MiB of 1000.0 MiB in 462 requests, 3 repeated",
  );
  assertEquals(at(231, 202, true), undefined);
});
