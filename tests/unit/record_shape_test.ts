import { assert, assertEquals, assertThrows } from "@std/assert";
import { factsOf } from "../../src/cli/record_facts.ts";
import { recordText } from "../../src/cli/record_text.ts";
import { topText } from "../../src/cli/top_text.ts";
import { metricsText } from "../../src/runtime/metrics.ts";
import type { RecordJson } from "../../src/runtime/record.ts";
import { checkRecord } from "../../src/runtime/record_shape.ts";
import { sampleRecord } from "./lib/sample_record.ts";

type Path = (string | number)[];
type Compound = Record<string | number, unknown>;

/** The sample with what it has none of. */
function wholeRecord(): RecordJson {
  const record = sampleRecord();
  record.queues[0].latencies = [{
    ...{ kind: "read", samples: 1, totalUs: 5, maxUs: 5, buckets: [[8, 1]] },
    ...{ p50Us: 5, p90Us: 5, p99Us: 5, p999Us: 5 },
  }];
  record.config.steps = {
    ...{ total: 1, source: "reported" },
    latest: [{ at: record.since, field: null, step: "set", bits: ["DRIVER"] }],
  };
  const place = { offset: 0, bytes: 4, count: 1 };
  record.traced = {
    ...{ source: "traced", since: record.since, until: null, isWhole: true, isComplete: false },
    ...{ lost: 0, others: 0 },
    config: [{
      ...{ access: "read", ...place, fields: ["a"], first: record.since, last: record.since },
    }],
    timeline: {
      total: 1,
      latest: [{
        ...{ at: record.since, access: "read", register: "device_status", ...place },
        ...{ index: null, value: "0x1", source: "traced" },
      }],
    },
  };
  return JSON.parse(JSON.stringify(record));
}

/** The paths of all values in a value. */
function pathsIn(value: unknown, path: Path = []): Path[] {
  if (typeof value !== "object" || value === null) return [path];
  return [
    path,
    ...Object.keys(value).flatMap((name) => pathsIn((value as Compound)[name], [...path, name])),
  ];
}

/** Puts a value at a path, or removes what is there. */
function put(record: RecordJson, path: Path, value: unknown): void {
  let at = record as unknown as Compound;
  for (const name of path.slice(0, -1)) at = at[name] as Compound;
  const name = path.at(-1)!;
  if (value === undefined) delete at[name];
  else at[name] = value;
}

Deno.test("a record is refused, or shown without what a terminal obeys, wherever it lies", () => {
  checkRecord(wholeRecord(), "");
  const lies = [undefined, null, -1, 0.5, 1e15, 1e300, "", "\x1b[2J\u202e\n", {}, [], [null], true];
  let refused = 0, shown = 0;
  for (const path of pathsIn(wholeRecord()).filter(({ length }) => length > 0)) {
    for (const lie of lies) {
      const record = wholeRecord();
      put(record, path, lie);
      try {
        checkRecord(record, "");
      } catch (error) {
        assert(error instanceof RangeError, `${path}: ${lie}: ${error}`);
        refused++;
        continue;
      }
      const before = { ...wholeRecord(), at: record.at - 1000 };
      const texts = [
        recordText(record, { previous: before }),
        metricsText([{ record }]),
        ...topText({ records: [{ socket: "a", record }], silent: [] }, {
          ...{ records: [{ socket: "a", record: before }], silent: [] },
        }),
      ];
      factsOf(record, true);
      // deno-lint-ignore no-control-regex
      for (const text of texts) assert(!/[\x1b\u202e]/.test(text), `${path}: ${text}`);
      shown++;
    }
  }
  assert(refused > 2000 && shown > 500, `${refused}, ${shown}`);
});

Deno.test("checkRecord() names what is wrong, and limits how deep a report may be", () => {
  const message = (path: Path, value: unknown) => {
    const record = wholeRecord();
    put(record, path, value);
    return assertThrows(() => checkRecord(record, ""), RangeError).message;
  };
  assertEquals(
    message(["queues", 1, "size"], "x"),
    "Expected a number up to 8640000000000000 as queues[1].size, got a string",
  );
  assertEquals(message(["device"], undefined), "Expected an object as device, got nothing");
  assertEquals(message(["report"], []), "Expected an object as report, got a list");
  const deep = JSON.parse(`${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}`);
  assertEquals(message(["report"], deep), "Expected at most 32 levels in report");
});
