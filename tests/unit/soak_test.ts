import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { BLOCK_BYTES, DiskContent, UNKNOWN } from "../../tools/soak/disk_content.ts";
import { NAMES, SOAK } from "../../tools/soak/options.ts";
import { parseTool } from "../../tools/lib/tool.ts";
import { draw, ticksTo } from "../../tools/soak/plot.ts";
import { findLeaks, LEAK, type Process, type Sample } from "../../tools/soak/processes.ts";
import { firstWrongSector, regionBytes } from "../../tools/soak/guest_disk.ts";
import { describe, type Report } from "../../tools/soak/report.ts";
import { Tally } from "../../tools/soak/actor.ts";
import { Trouble } from "../../tools/soak/actor.ts";

const MIB = 2 ** 20;

/** A process with a sample a second. */
function process(seconds: number, sample: (atS: number) => Partial<Sample>): Process {
  return {
    name: "disk",
    pid: 7,
    hasEnded: false,
    samples: Array.from({ length: seconds }, (_, atS) => ({
      atS,
      residentBytes: 80 * MIB,
      fds: 50,
      threads: 8,
      ...sample(atS),
    })),
  };
}

Deno.test("findLeaks() finds memory that grows all the time", () => {
  const [found, ...others] = findLeaks([
    process(100, (atS) => ({ residentBytes: (80 + atS) * MIB })),
  ]);
  assertEquals(others, []);
  assertEquals(found, "disk (pid 7) went from 142.0 MiB to 167.0 MiB of memory");
});

Deno.test("findLeaks() finds descriptors and threads that accumulate", () => {
  assertEquals(
    findLeaks([process(100, (atS) => ({ fds: 50 + (atS >> 3), threads: 8 + (atS >> 3) }))]),
    ["disk (pid 7) went from 57 to 60 descriptors", "disk (pid 7) went from 15 to 18 threads"],
  );
});

Deno.test("findLeaks() ignores temporary growth, and growth at the start", () => {
  const wave = process(100, (atS) => ({
    residentBytes: (atS < 50 ? 20 + 3 * atS : 170 + 15 * (atS % 5)) * MIB,
    fds: atS < 20 ? 20 : 50 + atS % 3,
  }));
  assertEquals(findLeaks([wave]), []);
});

Deno.test("findLeaks() says nothing of a process that lived too short", () => {
  const grows = (atS: number) => ({ residentBytes: atS * atS * MIB });
  assertEquals(findLeaks([process(LEAK.leastSamples - 1, grows)]), []);
  assertEquals(findLeaks([process(LEAK.leastSamples, grows)]).length, 1);
});

Deno.test("DiskContent finds the one word that is wrong", () => {
  const content = new DiskContent(8, 1);
  content.generations[2] = content.nextGeneration();
  content.generations[3] = content.nextGeneration();
  const bytes = new Uint8Array(3 * BLOCK_BYTES);
  bytes.set(content.bytes(2, 1, 1));
  bytes.set(content.bytes(3, 1, 2), BLOCK_BYTES);
  assertEquals(content.check(2, bytes), 3 * BLOCK_BYTES);
  bytes[BLOCK_BYTES + 40] ^= 1;
  assertThrows(() => content.check(2, bytes), Error, "Word 10 of block 3");
  content.generations[3] = UNKNOWN;
  assertEquals(content.check(2, bytes), 2 * BLOCK_BYTES);
});

Deno.test("DiskContent distinguishes blocks, generations and seeds", () => {
  const content = new DiskContent(8, 1);
  const first = content.bytes(1, 1, 1);
  for (
    const other of [
      content.bytes(2, 1, 1),
      content.bytes(1, 1, 2),
      new DiskContent(8, 2).bytes(1, 1, 1),
    ]
  ) {
    assert(other.some((byte, i) => byte !== first[i]));
  }
});

Deno.test("firstWrongSector() accepts a mix of old and new, and nothing else", () => {
  const old = regionBytes(1, "vda", 3, 1), next = regionBytes(1, "vda", 3, 2);
  const torn = old.slice();
  torn.set(next.subarray(0, 5 * 512));
  assertEquals(firstWrongSector(torn, [old, next]), -1);
  assertEquals(firstWrongSector(torn, [old]), 0);
  assertEquals(firstWrongSector(torn, [next]), 5);
  torn[9 * 512 + 17] ^= 1;
  assertEquals(firstWrongSector(torn, [old, next]), 9);
});

Deno.test("Trouble is known to requests that began before, during or after it", () => {
  const trouble = new Trouble();
  const before = trouble.now;
  assertEquals(trouble.since(before), false);
  trouble.begin();
  const during = trouble.now;
  assertEquals([trouble.since(before), trouble.since(during)], [true, true]);
  trouble.end();
  assertEquals([trouble.since(before), trouble.since(during)], [true, true]);
  assertEquals(trouble.since(trouble.now), false);
});

Deno.test("parseTool() accepts the documented options and refuses others in one line", () => {
  const options = parseTool(SOAK, ["--minutes=10", "--seed=7", "--only=guest,disk"]);
  assertEquals([options.minutes, options.seed, options.only], [10, 7, ["disk", "guest"]]);
  assertEquals(parseTool(SOAK, []).only, NAMES);
  for (
    const [arg, message] of [
      ["--minutes=", "Expected a value after --minutes"],
      ["--minutes=0", "--minutes=0: expected a number from 0.1 to 10000"],
      ["--seed=4294967296", "--seed takes 0 to 4294967295, got 4294967296"],
      ["--only=disc", "expected some of tmpfs, disk, null, rng, input, net, guest, got disc"],
      ["--fast", "Unknown flag --fast"],
      ["fast", "Unknown argument fast"],
    ]
  ) {
    assertThrows(() => parseTool(SOAK, [arg]), Error, message);
  }
});

Deno.test("ticksTo() returns round numbers from 0 to beyond the maximum", () => {
  assertEquals(ticksTo(1, 5), [0, 0.5, 1]);
  assertEquals(ticksTo(87, 5), [0, 50, 100]);
  assertEquals(ticksTo(2423, 5), [0, 1000, 2000, 3000]);
});

/** A short soak. */
function sampleReport(findings: string[]): Report {
  const tally = new Tally("disk");
  tally.requests = 1000;
  tally.checkedBytes = 5 * MIB;
  tally.fault("kill -9");
  tally.pausesMs.push(250);
  return {
    version: 1,
    date: "2026-01-02T03:04:05.000Z",
    seed: 7,
    command: "deno task soak --seed=7 --only=disk",
    seconds: 30,
    tallies: [tally],
    moments: [1, 2, 3].map((atS) => ({
      atS,
      requests: 100 * atS,
      residentBytes: 80 * MIB,
      fds: 50,
      threads: 8,
    })),
    marks: [{ atS: 1.5, kind: "kill <-9>" }],
    processes: [process(3, () => ({})), { ...process(1, () => ({})), name: "guest & co" }],
    findings,
  };
}

Deno.test("describe() names requests, faults and data, and the seed of an error", () => {
  const fine = describe(sampleReport([]));
  assertStringIncludes(
    fine,
    "seed 7: 1000 requests done, 1 faults injected, 5 MiB checked",
  );
  assertStringIncludes(fine, "Nothing wrong. Memory is flat:");
  assertStringIncludes(fine, "kill -9      1");
  const wrong = describe(sampleReport(["disk: Word 10 of block 3"]));
  assertStringIncludes(wrong, "WRONG: disk: Word 10 of block 3");
  assertStringIncludes(wrong, "repeat it by: deno task soak --seed=7 --only=disk");
});

Deno.test("draw() draws every process and fault, and escapes their names", () => {
  const svg = draw(sampleReport([]));
  assertStringIncludes(svg, "guest &amp; co");
  assertStringIncludes(svg, "kill &lt;-9&gt;");
  assertStringIncludes(svg, "prefers-color-scheme: dark");
  // Two processes in three panels, and the sum of requests.
  assertEquals(svg.match(/<path class="line /g)!.length, 2 * 3 + 1);
  assert(!/NaN|Infinity|undefined/.test(svg));
});

Deno.test("draw() draws a soak that ended before the first sample", () => {
  const svg = draw({ ...sampleReport([]), moments: [], processes: [], marks: [], seconds: 0 });
  assert(!/NaN|Infinity|undefined/.test(svg));
});
