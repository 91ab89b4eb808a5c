import { assert, assertEquals } from "@std/assert";
import { recordScreen } from "../../src/cli/record_screen.ts";
import { queue, sampleRecord } from "./lib/sample_record.ts";

/** A disk with many queues under load, with a long record. */
function busyRecord() {
  const record = sampleRecord();
  record.queues = Array.from({ length: 64 }, (_, i) =>
    queue(i, "requestq", {
      size: 256,
      enabled: true,
      running: true,
      starts: 2,
      requests: 1_000_000 * i,
      inFlight: 32,
      bytesRead: 2 ** 40,
      bytesWritten: 2 ** 41,
      kicks: 123_456,
      notifications: 123_456,
    }));
  record.status.timeline = Array(40).fill(record.status.timeline[0]);
  record.errors.latest = Array(30).fill(record.errors.latest[0]);
  return record;
}

for (const [columns, rows] of [[80, 23], [100, 40], [60, 15]] as const) {
  Deno.test(`recordScreen() shows the queues first and fits ${columns} by ${rows}`, () => {
    const record = busyRecord();
    const previous = structuredClone(record);
    previous.at -= 1000;
    for (const queue of previous.queues) queue.requests -= queue.index;
    const lines = recordScreen(record, { columns, rows, previous });
    assert(lines.length <= rows, `${lines.length} lines`);
    assert(lines.findIndex((line) => line.startsWith("Queues")) < 5, lines.join("\n"));
    const table = lines.filter((line) => /requestq/.test(line));
    assert(table.length >= 4);
    for (const line of table) assert(line.length <= columns, line);
    assert(lines.some((line) => /requests +per s/.test(line)), lines.join("\n"));
    // The busiest queues since the earlier state.
    assert(table.at(-1)!.trim().startsWith("63 "), table.join("\n"));
  });
}

Deno.test("recordScreen() shows a broken queue, however idle it is", () => {
  const record = busyRecord();
  record.queues[3].broken = true;
  record.queues[3].requests = 0;
  const lines = recordScreen(record, { columns: 80, rows: 23 });
  assert(lines.some((line) => /^ +3 +requestq +broken/.test(line)), lines.join("\n"));
});

Deno.test("recordScreen() shows the whole record if it fits", () => {
  const lines = recordScreen(sampleRecord(), { columns: 200, rows: 100 });
  for (const title of ["Queues", "Errors", "Status", "Connections", "Features", "Config space"]) {
    assertEquals(lines.filter((line) => line.startsWith(title)).length, 1, title);
  }
});
