/** Limits of a disk under a load through a real socket. */
import { assert, assertEquals } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { runCli } from "./lib/cli_process.ts";

const QUEUES = 2;

interface Limited {
  readonly server: DeviceServer;
  readonly driver: VirtioDriver;
  readonly disk: BlkDriver;
  /** Runs a command of the control socket. */
  limit(body: unknown): unknown;
}

async function withDisk(
  options: Record<string, unknown>,
  threads: number,
  test: (limited: Limited) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const socketPath = `${directory}/blk.sock`;
  try {
    await using server = await serve(blk, {
      ...{ socketPath, threads, options: { null: true, size: 2 ** 30, ...options } },
    });
    await using driver = await VirtioDriver.start(socketPath, {
      queues: Array(QUEUES).fill(256),
      timeoutMs: 60_000,
    });
    const limit = (body: unknown) => server.host.control.commands!.limit.run(body);
    await test({ server, driver, disk: new BlkDriver(driver), limit });
  } finally {
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Reads with so many lanes on each queue until a time; returns reads per queue until then. */
async function load(
  disk: BlkDriver,
  { lanes, bytes, end }: { lanes: readonly number[]; bytes: number; end: number },
): Promise<number[]> {
  const reads = lanes.map(() => 0);
  await Promise.all(lanes.flatMap((count, queue) =>
    Array.from({ length: count }, async () => {
      for (;;) {
        assertEquals((await disk.read(0, bytes, { queue })).status, blkStatus.OK);
        if (performance.now() > end) return;
        reads[queue]++;
      }
    })
  ));
  return reads;
}

/**
 * Expects a measurement to be as wanted in one of several rounds: a busy machine makes the driver
 * late, so that it does not use all that it may.
 */
async function expectOnce(
  measure: () => Promise<{ isMet: boolean; shown: string }>,
): Promise<void> {
  const all: string[] = [];
  while (all.length < 10) {
    const { isMet, shown } = await measure();
    if (isMet) return;
    all.push(shown);
  }
  assert(false, all.join("; "));
}

for (const threads of [1, 2]) {
  Deno.test(`Queues of ${threads} threads with unequal load share --iops, and meet it`, () =>
    withDisk({ iops: "1000", numQueues: QUEUES }, threads, async ({ disk, limit, server }) => {
      const waits = () => (server.record().report as { limits: { waits: number } }).limits.waits;
      await expectOnce(async () => {
        const end = performance.now() + 2000;
        await limit({ iops: "1000/500" }); // from now on
        const before = waits();
        const reads = await load(disk, { lanes: [8, 64], bytes: 4096, end });
        const shown = `${reads}, ${waits() - before} waits`;
        assert(reads[0] + reads[1] < 2040, shown);
        assert(waits() > before && waits() - before < 4100, shown);
        const isMet = reads[0] + reads[1] > 1960 && Math.abs(reads[0] / reads[1] - 1) < 0.1;
        return { isMet, shown };
      });
    }));
}

Deno.test("A limit of bytes holds for requests of different sizes, and a large one passes", () =>
  withDisk({ numQueues: QUEUES }, 2, async ({ disk, limit }) => {
    await expectOnce(async () => {
      const end = performance.now() + 2000;
      await limit({ bandwidth: "8M/4M" });
      const loads = await Promise.all(
        [4096, 65_536].map((bytes, queue) =>
          load(disk, { lanes: [0, 0].with(queue, 16), bytes, end })
        ),
      );
      const bytes = loads[0][0] * 4096 + loads[1][1] * 65_536;
      assert(bytes / 2 ** 24 < 1.02, `${bytes}`);
      return { isMet: bytes / 2 ** 24 > 0.98, shown: `${bytes}` };
    });
    assertEquals((await disk.read(0, 2 ** 19)).status, blkStatus.OK);
  }));

Deno.test("A queue that waits for its limit stops, resets, and continues with other limits", () =>
  withDisk({ iops: "1", numQueues: QUEUES }, 1, async ({ driver, disk, limit }) => {
    // A minute's
    const waiting = Array.from({ length: 64 }, (_, i) => disk.read(8 * i, 4096, { queue: i % 2 }));
    await waiting[0];
    await driver.stop();
    await driver.restart();
    const begin = performance.now();
    await limit({ iops: 100_000 });
    const answers = await Promise.all([...waiting, disk.flush()]);
    assertEquals(answers.map(({ status }) => status), Array(65).fill(blkStatus.OK));
    assert(performance.now() - begin < 30_000);
    await limit({});
    await load(disk, { lanes: [1, 1], bytes: 512, end: 0 });
  }));

Deno.test("vhostd blk explains what is wrong with a limit", async () => {
  for (
    const [flag, message] of [
      ["--iops=fast", "--iops takes a whole number, got"],
      ["--bandwidth=10M/1K", "the burst of --bandwidth takes at least 104858"],
    ]
  ) {
    const socketPath = `${Deno.env.get("TMPDIR") ?? "/tmp"}/${crypto.randomUUID()}.sock`;
    const { status, stderr } = await runCli([
      "blk",
      "--size=1M",
      flag,
      `--socket-path=${socketPath}`,
    ]);
    assertEquals([status, stderr.trimEnd().split("\n").length], [2, 1], stderr);
    assert(stderr.includes(message), stderr);
  }
});
