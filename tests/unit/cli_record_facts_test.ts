import { assertEquals } from "@std/assert";
import { differencesOf, factsOf } from "../../src/cli/record_facts.ts";
import type { RecordJson } from "../../src/runtime/record.ts";
import { observation, queue, sampleRecord, SINCE } from "./lib/sample_record.ts";

const lastReported = sampleRecord().status.timeline
  .filter(({ source }) => source === "reported").at(-1)!.names.join(" ");

/** The differences between the sample and one that was changed, as lines. */
function changed(change: (record: RecordJson) => void, counts = false): string[] {
  const other = structuredClone(sampleRecord());
  change(other);
  return differencesOf(factsOf(sampleRecord(), counts), factsOf(other, counts))
    .map(({ subject, a, b }) => `${subject}: ${a} | ${b}`);
}

Deno.test("what differs from run to run is no difference", () => {
  const differences = changed((record) => {
    record.since += 1000;
    record.at += 5000;
    record.report = { anything: 1 };
    for (const connection of record.connections.latest) {
      connection.connectedAt += 7;
      connection.messages++;
      connection.frontend = { pid: 1, command: "other" };
    }
    record.connections.total++;
    record.status.timeline.push(...record.status.timeline);
    for (const entry of record.status.timeline) entry.at++;
    for (const queue of record.queues) {
      queue.kicks *= 2;
      queue.requests *= 3;
      queue.inFlight++;
      for (const fault of queue.faults) fault.message += " at 0x1234";
    }
    for (const field of record.config.fields) field.reads *= 2;
  });
  assertEquals(differences, []);
});

Deno.test("features, fields, status, queues and faults that differ are named", () => {
  assertEquals(
    changed((record) => {
      record.features.find(({ name }) => name === "DISCARD")!.acknowledged = true;
      record.features.find(({ name }) => name === "RO")!.offered = true;
      record.config.fields.push(observation("extra", { writes: 1, refused: 1, used: true }));
      record.status.timeline.push({
        ...{ at: SINCE, status: 0x80, names: ["FAILED"], source: "reported" },
      });
      record.queues[0].size = 7;
      record.queues.push(queue(9, "eventq", { requests: 2 }));
      record.errors.latest.push({
        ...{ at: SINCE, queue: null, rule: "SET_VRING_NUM", section: null, message: "no" },
      });
    }),
    [
      "feature RO(5): not offered | left",
      "feature DISCARD(13): left | acknowledged",
      "queue 0 (requestq) size: 128 | 7",
      "field extra: null | written refused marked",
      `status FAILED (reported): null | after ${lastReported}`,
      "queue 9 (eventq) size: null | 0",
      "queue 9 (eventq) starts: null | none",
      "queue 9 (eventq) requests: null | yes",
      "queue 9 (eventq) data to the device: null | none",
      "queue 9 (eventq) data to the driver: null | none",
      "queue 9 (eventq) kicks: null | none",
      "queue 9 (eventq) notifications: null | none",
      "refused SET_VRING_NUM: null | yes",
    ],
  );
});

Deno.test("counters differ on demand only", () => {
  const change = (record: RecordJson) => void (record.queues[0].requests += 5);
  assertEquals(changed(change), []);
  const { requests } = sampleRecord().queues[0];
  assertEquals(changed(change, true), [
    `number of requests of queue 0: ${requests} | ${requests + 5}`,
  ]);
});

Deno.test("traced accesses are compared by place, and registers while the timeline has all", () => {
  const access = { access: "read", offset: 8, bytes: 4, count: 1 } as const;
  const traced: NonNullable<RecordJson["traced"]> = {
    ...{
      source: "traced",
      since: SINCE,
      until: null,
      isWhole: true,
      isComplete: true,
      lost: 0,
      others: 0,
    },
    config: [{ ...access, fields: ["size_max"], first: SINCE, last: SINCE }],
    timeline: {
      total: 3,
      latest: [
        {
          ...access,
          count: 2,
          at: SINCE,
          register: "config_generation",
          index: null,
          value: "0x0",
          source: "traced",
        },
        {
          ...access,
          at: SINCE,
          register: "device_feature",
          index: 1,
          value: "0x0",
          source: "traced",
        },
      ],
    },
  };
  assertEquals(changed((record) => record.traced = traced), [
    "trace: none | attached",
    "config read at 8, 4 bytes (size_max): null | yes",
    "register read config_generation, 4 bytes: null | yes",
    "register read device_feature 1, 4 bytes: null | yes",
  ]);
  const longer = { ...traced, timeline: { ...traced.timeline, total: 1000 } };
  assertEquals(changed((record) => record.traced = longer).length, 2);
});
