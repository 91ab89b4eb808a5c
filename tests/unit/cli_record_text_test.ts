import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { isColoured, makeInk } from "../../src/cli/ink.ts";
import { recordText } from "../../src/cli/record_text.ts";
import type { RecordJson } from "../../src/runtime/record.ts";
import { formatCount, formatDuration, formatRatio } from "../../src/cli/units.ts";
import { formatBytes } from "../../src/virtio/format_bytes.ts";
import { observation, sampleRecord, SINCE } from "./lib/sample_record.ts";

Deno.test("recordText() has every section, aligned, with times from the beginning", () => {
  assertEquals(
    recordText(sampleRecord()),
    `blk  A disk (virtio device 2)
record of 2m05s, since 2026-01-02 03:04:05 UTC

Connections  2
  #1  unknown process            +0.010s  0.020s long  0 messages      the front-end closed the connection
  #2  qemu-system-x86  pid 4711  +0.035s  connected    1 041 messages
  protocol      MQ  REPLY_ACK  CONFIG

Features  reported
  acknowledged  device     FLUSH(9)
                transport  INDIRECT_DESC(28)  VERSION_1(32)
  left          device     DISCARD(13)
  not offered   device     RO(5)
  vhost         PROTOCOL_FEATURES(30)  with the front-end only

Config space  packed, 12 bytes
  reads         inferred: QEMU answers the driver from its copy
  writes        reported: QEMU passes on a change of the writeback byte
  field                reads  first    last    writes  changes  first    refused  feature
  capacity                 2  +0.040s  +1m01s       –        –
  writeback                1  +0.040s               1        1  +2.000s           FLUSH
  max_discard_sectors      –                        –        –                 3  DISCARD (left)

Status  inferred: QEMU sends the status at feature negotiation
  +1.200s                0x0b  ACKNOWLEDGE DRIVER FEATURES_OK            reported
  +1.250s  after 0.050s  0x0f  ACKNOWLEDGE DRIVER FEATURES_OK DRIVER_OK

Queues  reported
  #  queue     size  state              requests  in flight  to device  to driver  kicks  /req  notified  /req  faults
  0  requestq   128  running (start 2)    12 345          3    3.0 MiB    8.0 KiB  6 172  0.50     1 234  0.10       0
  1  requestq   128  broken                    0          0        0 B        0 B      0     –         0     –       1
  2–3  requestq  never started
  +1m30s  queue 1  descriptor-loop (virtio 1.3, 2.7.5.3): Descriptor 7 comes again

Errors  1 refused
  +0.050s  SET_LOG_BASE is not offered

Device
  store     disk.img
  failures  read 0, write 2
  reads     select 1, subsel 0
            select 17, subsel 1
`,
  );
});

Deno.test("recordText() is short for an unused device", () => {
  const record = sampleRecord();
  record.features = record.features.map((feature) => ({ ...feature, acknowledged: null }));
  Object.assign(record, {
    config: { ...record.config, layout: null },
    queues: record.queues.slice(2),
    connections: { total: 0, latest: [] },
    errors: { total: 0, latest: [] },
    report: {},
  });
  record.status.timeline = [];
  const text = recordText(record);
  for (
    const line of [
      "Connections  none yet",
      "Features  not negotiated yet",
      "  offered       device     FLUSH(9)  DISCARD(13)",
      "Config space  none",
      "  2–3  requestq  never started",
      "Status  none yet",
      "Errors  none",
    ]
  ) assert(text.split("\n").includes(line), `${line} in\n${text}`);
});

Deno.test("recordText() omits what the front-end hides", () => {
  const record = sampleRecord();
  record.config.fields = [observation("capacity")];
  record.config.reads = { source: "not observable", note: "QEMU makes it" };
  const text = recordText(record);
  assertStringIncludes(text, "not observable: QEMU makes it");
  assert(/\n {2}untouched {5}capacity\n/.test(text), text);
  assert(!text.includes("reads  first"), text);
});

Deno.test("recordText() joins members of a group with the same values", () => {
  const record = sampleRecord();
  const read = { reads: 1, firstRead: SINCE + 1, lastRead: SINCE + 1 };
  const more = { reads: 2, firstRead: SINCE + 1, lastRead: SINCE + 2 };
  record.config.fields = [
    observation("geometry", read),
    observation("geometry.heads", read),
    observation("geometry.sectors", read),
    observation("geometry.cylinders", more),
    observation("sensors[0].limit", read),
    observation("sensors[1].limit", read),
    observation("topology.alignment", read),
  ];
  const text = recordText(record);
  const names = [...text.matchAll(/^ {2}(\S+) +[12] {2}\+0/gm)].map(([, name]) => name);
  assertEquals(names, [
    "geometry",
    "geometry.*",
    "geometry.cylinders",
    "sensors.*",
    "topology.alignment",
  ]);
});

Deno.test("recordText() shows used marks and acknowledged bits", () => {
  const record = sampleRecord();
  record.config.fields = [
    observation("limit", { used: true, firstUsed: SINCE + 5, lastUsed: SINCE + 5 }),
    observation("modes", { used: false, acknowledged: ["ALARM"], left: ["QUIET", "FAST"] }),
  ];
  const text = recordText(record);
  assert(/limit .* used +\+0\.005s/.test(text), text);
  assert(/modes .* not used .* ALARM; left: QUIET FAST/.test(text), text);
});

Deno.test("recordText() lists the driver's steps in a self-describing space", () => {
  const record = sampleRecord();
  record.config.steps = {
    source: "reported",
    total: 70,
    latest: [
      { at: SINCE + 5, field: "status", step: "set", bits: ["ACKNOWLEDGE", "DRIVER"] },
      { at: SINCE + 9, field: "reading0", step: "marked", bits: [] },
      { at: SINCE + 1200, field: null, step: "reset", bits: [] },
    ],
  };
  assertStringIncludes(
    recordText(record),
    `
Driver's steps  reported, the latest of 70:
  +0.005s  status    set     ACKNOWLEDGE DRIVER
  +0.009s  reading0  marked
  +1.200s            reset
`,
  );
  // Records of older versions have none
  Object.assign(record.config, { steps: undefined });
  assert(!recordText(record).includes("steps"));
});

Deno.test("recordText() says what happens to requests when the back-end dies", () => {
  const record = sampleRecord();
  for (const index of [0, 1]) Object.assign(record.queues[index], { tracked: true, resumed: true });
  const both = recordText(record).split("\n").find((line) => line.startsWith("  0–1"));
  assertEquals(
    both,
    "  0–1  in-flight requests are recorded for another back-end; resumed a ring that was in use before",
  );
  Object.assign(record.queues[1], { tracked: false, resubmitted: 1234 });
  const lines = recordText(record).split("\n").filter((line) =>
    / {2}[01] {2}(in-|resumed)/.test(line)
  );
  assertEquals(lines.map((line) => line.slice(0, 14)), ["  0  in-flight", "  1  resumed a"]);
  assertStringIncludes(lines[1], "; 1 234 requests submitted again");
});

Deno.test("recordText() shows rates when it has an earlier state", () => {
  const record = sampleRecord();
  const previous = structuredClone(record);
  previous.at -= 2000;
  previous.queues[0].requests -= 1000;
  const text = recordText(record, { previous });
  assert(/requests +per s/.test(text), text);
  assert(/12 345 +500 /.test(text), text);
});

Deno.test("recordText() has the same text with colours, and escape sequences only then", () => {
  const record = sampleRecord();
  const plain = recordText(record);
  const coloured = recordText(record, { coloured: true });
  // deno-lint-ignore no-control-regex
  assertEquals(coloured.replace(/\x1b\[\d+m/g, "").replace(/ +$/gm, ""), plain);
  assert(!plain.includes("\x1b"));
  assert(coloured.includes("\x1b[31m"));
});

/** A record in which every text ends in a control sequence. */
function hostile(value: unknown): unknown {
  if (typeof value === "string") return `${value}\x1b[2J\x9b1m\u202e\n`;
  if (Array.isArray(value)) return value.map(hostile);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [name, hostile(inner)]),
  );
}

Deno.test("recordText() shows no control characters from any text of a record", () => {
  const record = hostile(sampleRecord()) as RecordJson;
  record.report = { ...record.report, "a\x07": "b\x1bc\nd" };
  const text = recordText(record);
  assert(!/(?!\n)[\p{C}\p{Zl}\p{Zp}]/u.test(text), text);
  assertStringIncludes(text, "qemu-system-x86\\x1b[2J");
});

Deno.test("the driver's traced accesses are shown with their fields, features and status", () => {
  const record = sampleRecord();
  const entry = { source: "traced", index: null, offset: 0, bytes: 4, count: 1 } as const;
  const at = SINCE + 40;
  record.traced = {
    ...{ source: "traced", since: SINCE + 1, until: SINCE + 60, lost: 2 },
    ...{ isWhole: true, isComplete: false },
    config: [{
      ...{ access: "read", offset: 0, bytes: 4, fields: ["capacity"], count: 3 },
      ...{ first: at, last: at + 9 },
    }],
    others: 5,
    timeline: {
      total: 7,
      latest: [
        { ...entry, at, access: "read", register: "device_feature", index: 0, value: "0x200" },
        { ...entry, at, access: "write", register: "device_status", value: "0x3" },
        { ...entry, at, access: "read", register: "config", offset: 16, value: "0x1", count: 3 },
        {
          ...{ ...entry, source: "reported", at: at + 1, access: "event", index: 1 },
          ...{ register: "ring start", value: "0x80" },
        },
      ],
    },
  };
  assertEquals(
    recordText(record, { sections: ["traced"] }),
    `Driver's accesses  traced from +0.001s to +0.060s
  at least 2 were lost
  access  offset  bytes  times  first    last     fields
  read      0x00      4      3  +0.040s  +0.049s  capacity
  5 more at other places
  1 earlier ones are not shown
  +0.040s  read   device_feature 0  0x200 FLUSH
  +0.040s  write  device_status     0x3 ACKNOWLEDGE DRIVER
  +0.040s  read   config 0x10/4     0x1                     3 times
  +0.041s  event  ring start 1      0x80                             reported
`,
  );
});

Deno.test("isColoured() requires a terminal, and no NO_COLOR", () => {
  const stream = (terminal: boolean) => ({ isTerminal: () => terminal });
  assertEquals(isColoured(stream(true), false), true);
  assertEquals(isColoured(stream(false), false), false);
  assertEquals(isColoured(stream(true), true), false);
  assertEquals(makeInk(true)("red", ""), "");
  assertEquals(makeInk(false)("red", "text"), "text");
});

Deno.test("units are readable", () => {
  assertEquals([0, 1023, 1024, 1536, 2 ** 20 - 1, 2 ** 40].map(formatBytes), [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 KiB",
    "1.0 MiB",
    "1.0 TiB",
  ]);
  assertEquals([0, 999, 1000, 1234567].map(formatCount), ["0", "999", "1 000", "1 234 567"]);
  assertEquals([-1, 250, 59_999, 60_000, 7_380_000, 90_000_000].map(formatDuration), [
    "0.000s",
    "0.250s",
    "59.999s",
    "1m00s",
    "2h03m",
    "1d01h",
  ]);
  assertEquals([[1, 0], [1, 3], [50, 2], [500, 2]].map(([a, b]) => formatRatio(a, b)), [
    "–",
    "0.33",
    "25.0",
    "250",
  ]);
});
