/**
 * Images of Ceph, in a real cluster.
 *
 * VHOSTD_TEST_KILLS sets how often vhostd is killed and the cluster's storage restarted.
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { CephCluster, newKey } from "../../tools/lib/ceph_cluster.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { VerifiedLoad } from "./lib/verified_load.ts";

const KILLS = Number(Deno.env.get("VHOSTD_TEST_KILLS") ?? 1);

const { OK, IOERR } = blkStatus;

/** Feature bits: virtio 1.3, 5.2.3. */
const RO = 1n << 5n;

const MIB = 2 ** 20;

/** Long enough for a busy machine. */
const TIMEOUT_MS = 60_000;

/** A test that restarts the cluster's storage: its process is another one afterwards. */
const RESTARTS = { sanitizeResources: false, sanitizeOps: false };

/** One cluster for all tests. */
let cluster: CephCluster;

Deno.test.beforeAll(async () => {
  cluster = await CephCluster.start();
});

Deno.test.afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

/** A test, at whose end nothing is watched. */
function test(name: string, run: () => Promise<void>, options: Partial<Deno.TestDefinition> = {}) {
  Deno.test({
    ...{ name, ...options },
    async fn() {
      await run();
      await watchesEnded();
    },
  });
}

interface Served {
  /** What is appended to the image's name. */
  suffix?: string;
  flags?: string[];
  queues?: number;
}

/** A disk in the cluster, as a back-end serves it. */
class Disk implements AsyncDisposable {
  static #count = 0;
  readonly socketPath: string;
  readonly #command: () => CliProcess;
  #changed = Promise.withResolvers<void>();
  backend: CliProcess;
  driver!: VirtioDriver;
  blk!: BlkDriver;

  private constructor(image: string, { suffix = "", flags = [], queues = 1 }: Served) {
    this.socketPath = cluster.path(`${Disk.#count++}.sock`);
    const name = `rbd:rbd/${image}${suffix}:conf=${cluster.conf}`;
    const all = [`--socket-path=${this.socketPath}`, `--num-queues=${queues}`, ...flags];
    this.#command = () => new CliProcess(["blk", name, ...all], { through: cluster.through });
    this.backend = this.#command();
  }

  static async open(image: string, served: Served = {}): Promise<Disk> {
    const disk = new Disk(image, served);
    await disk.backend.until("listens on");
    disk.driver = await VirtioDriver.start(disk.socketPath, {
      queues: new Array(served.queues ?? 1).fill(64),
      timeoutMs: TIMEOUT_MS,
      onMessage: () => disk.#changed.resolve(),
    });
    disk.blk = new BlkDriver(disk.driver);
    return disk;
  }

  /** Waits until the driver sees a size. */
  async sees(bytes: number): Promise<void> {
    for (;;) {
      this.#changed = Promise.withResolvers();
      if (await this.blk.capacitySectors() === bytes / 512) return;
      await this.#changed.promise;
    }
  }

  /** Kills the back-end and starts another one; the driver stays. */
  async killBackend(): Promise<void> {
    await this.backend[Symbol.asyncDispose]();
    this.backend = this.#command();
    await this.backend.until("listens on");
    await this.driver.reconnect();
  }

  /** Ends the driver, then the back-end; returns its status and what it said. */
  async end(): Promise<[status: number, stderr: string]> {
    await this.driver.close();
    const { status, stderr } = await this.backend.stop();
    return [status, stderr];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.backend[Symbol.asyncDispose]();
  }
}

test("an image in Ceph is read, written, flushed, discarded and zeroed", async () => {
  await cluster.run("rbd create disk --size 64M");
  await using disk = await Disk.open("disk", { queues: 2 });
  const { blk } = disk;
  assertEquals(await blk.capacitySectors(), 64 * MIB / 512);
  const data = new Uint8Array(65536).map((_, i) => i * 7 + (i >> 8));
  // Across two objects of 4 MiB
  const sector = 4 * MIB / 512 - 64;
  assertEquals((await blk.write(sector, data, { parts: [1000, 64536] })).status, OK);
  assertEquals((await blk.flush()).status, OK);
  const read = await blk.read(sector, data.length, { queue: 1, parts: [3, 65533] });
  assertEquals([read.status, read.data], [OK, data]);
  assertEquals((await blk.writeZeroes(sector, 8, { unmap: true })).status, OK);
  assertEquals((await blk.writeZeroes(sector + 8, 8)).status, OK);
  assertEquals((await blk.discard(sector + 64, 64)).status, OK);
  const { data: zeroed } = await blk.read(sector, 65536);
  assertEquals(zeroed.subarray(0, 8192), new Uint8Array(8192));
  assertEquals(zeroed.subarray(8192, 32768), data.subarray(8192, 32768));
  assertEquals(await disk.end(), [0, ""]);
});

test("what is wrong with an image of Ceph is told", async () => {
  await cluster.run("rbd create plain --size 1M --image-feature layering");
  const conf = `:conf=${cluster.conf}`;
  const cases: [disk: string, message: string][] = [
    [`rbd:none/disk${conf}`, "there is no pool none"],
    [`rbd:rbd/none${conf}`, "there is no such image"],
    [`rbd:rbd/plain@none${conf}`, "there is no such image or snapshot"],
    [`rbd:rbd/team/plain${conf}`, "there is no such image"],
    ["rbd:rbd/plain:conf=/none", "Ceph's configuration /none cannot be read (ENOENT)"],
    [`rbd:rbd/plain${conf}:id=nobody`, "the cluster does not take the key of client.nobody"],
    [`rbd:rbd/plain${conf}:no_such=1`, "Ceph has no setting no_such"],
    [`rbd:rbd/plain${conf}:rbd_cache=x`, `Ceph's setting rbd_cache does not take "x"`],
    ["rbd:plain", "Expected rbd:POOL/[NAMESPACE/]IMAGE"],
    [`rbd:rbd/plain${conf}:mon_host=127.0.0.9\\:1`, "the cluster did not answer within 1 s"],
    [`rbd:rbd/plain${conf}`, "it has no exclusive lock; rbd feature enable"],
  ];
  const options = (disk: string) => ({
    ...{ exclusive: true, timeout: 0, connectTimeout: disk.includes("mon_host") ? 1 : 60 },
  });
  const [program, ...args] = [...cluster.through, Deno.execPath(), "run", "-A", "--quiet"];
  const { stdout, stderr } = await new Deno.Command(program, {
    args: [
      ...args,
      new URL("lib/rbd_open.ts", import.meta.url).pathname,
      JSON.stringify(cases.map(([disk]) => [disk, options(disk)])),
    ],
  }).output();
  assertEquals(new TextDecoder().decode(stderr), "");
  const reasons: string[] = JSON.parse(new TextDecoder().decode(stdout));
  for (const [i, [, message]] of cases.entries()) assertStringIncludes(reasons[i], message);
});

test("vhostd blk says in one line that Ceph does not take a key, or is not there", async () => {
  const keyring = cluster.path("wrong_key");
  await Deno.writeTextFile(keyring, `[client.admin]\n key = ${newKey()}\n`);
  const disk = `rbd:rbd/disk:conf=${cluster.conf}:keyring=${keyring}`;
  const cases = [
    [cluster.through, `vhostd: Cannot open ${disk}: the cluster does not take the key`],
    [[], "apt install librbd1"],
  ] as const;
  await Promise.all(cases.map(async ([through, message]) => {
    const socketPath = cluster.path(`wrong${through.length}.sock`);
    const ended = await runCli(["blk", disk, `--socket-path=${socketPath}`], { through });
    assertStringIncludes(ended.stderr, message);
    assertEquals([ended.status, ended.stderr.trimEnd().split("\n").length], [1, 1], ended.stderr);
  }));
});

test("a snapshot in Ceph is read, and only read", async () => {
  await cluster.run("rbd create snapped --size 1M");
  await using disk = await Disk.open("snapped");
  const [before, after] = [1, 2].map((byte) => new Uint8Array(4096).fill(byte));
  await disk.blk.write(0, before);
  await disk.blk.flush();
  await cluster.run("rbd snap create snapped@monday");
  assertEquals((await disk.blk.write(0, after)).status, OK);
  await using snapshot = await Disk.open("snapped", { suffix: "@monday" });
  assertEquals((snapshot.driver.features & RO) !== 0n, true);
  assertEquals((await snapshot.blk.read(0, 4096)).data, before);
  assertEquals((await snapshot.blk.write(0, after)).status, IOERR);
  assertEquals((await disk.blk.read(0, 4096)).data, after);
  await snapshot.end();
  await disk.end();
});

test("an image of Ceph changes its size: by our command, and by another client", async () => {
  await cluster.run("rbd create sized --size 1M");
  const control = cluster.path("control.sock");
  await using disk = await Disk.open("sized", { flags: [`--control-path=${control}`] });
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: control } });
  const response = await fetch("http://localhost/resize", {
    ...{ method: "POST", body: '{"size": "2M"}', client },
  });
  assertEquals(await response.json(), { before: MIB, bytes: 2 * MIB });
  assertStringIncludes(await cluster.run("rbd info sized"), "size 2 MiB");

  await disk.sees(2 * MIB);
  await cluster.run("rbd resize sized --size 4M");
  await disk.sees(4 * MIB);
  const end = 4 * MIB / 512 - 8;
  assertEquals((await disk.blk.write(end, new Uint8Array(4096).fill(1))).status, OK);
  await cluster.run("rbd resize sized --size 1M --allow-shrink");
  assertEquals((await disk.blk.read(end, 4096)).status, IOERR);
  await disk.sees(MIB);
  assertEquals((await disk.blk.read(end, 4096)).status, IOERR);
  assertEquals((await disk.blk.write(end, new Uint8Array(4096))).status, IOERR);
  assertEquals((await disk.blk.write(0, new Uint8Array(4096))).status, OK);
  await disk.end();
});

test("requests wait while Ceph's storage is away, and nothing is lost", async () => {
  await cluster.run("rbd create waiting --size 8M");
  await using disk = await Disk.open("waiting", { queues: 2 });
  const load = new VerifiedLoad(disk.driver, { queues: 2, lanes: 16 });
  for (let i = 0; i < KILLS; i++) {
    await load.progress(200);
    await cluster.stopOsd();
    cluster.startOsd();
  }
  await load.progress(200);
  await load.end();
  assertEquals(await disk.end(), [0, ""]);
}, RESTARTS);

test("kill -9 under a load on an image of Ceph loses nothing", async () => {
  await cluster.run("rbd create killed --size 8M");
  await using disk = await Disk.open("killed", { queues: 2 });
  const load = new VerifiedLoad(disk.driver, { queues: 2, lanes: 16 });
  for (let i = 0; i < KILLS; i++) {
    await load.progress(200);
    const resume = load.pause();
    await disk.killBackend();
    resume();
  }
  await load.progress(200);
  await load.end();
  await disk.end();
});

test("the exclusive lock of an image goes to who asks, unless it is kept", async () => {
  await cluster.run("rbd create locked --size 1M");
  const data = new Uint8Array(4096).fill(1);
  await using first = await Disk.open("locked");
  assertEquals((await first.blk.write(0, data)).status, OK);
  {
    await using second = await Disk.open("locked");
    assertEquals((await second.blk.write(0, data)).status, OK);
    assertEquals((await first.blk.write(0, data)).status, OK);
    await second.end();
  }
  {
    await using keeper = await Disk.open("locked", { flags: ["--store-options=exclusive"] });
    assertEquals((await first.blk.write(0, data)).status, IOERR);
    assertMatch(await first.backend.until("Ceph refuses writes"), /exclusive lock/);
    assertEquals((await keeper.blk.write(0, data)).status, OK);
    const { status, stderr } = await runCli([
      ...["blk", `rbd:rbd/locked:conf=${cluster.conf}`, `--socket-path=${cluster.path("no.sock")}`],
      "--store-options=exclusive",
    ], { through: cluster.through });
    assertStringIncludes(stderr, "another client keeps its exclusive lock\n");
    assertEquals(status, 1);
    await keeper.end();
  }
  // Somebody shuts the client out
  assertEquals((await first.blk.write(0, data)).status, OK);
  const [address] = /\d+\.\d+\.\d+\.\d+:\d+\/\d+/.exec(await cluster.run("rbd lock ls locked"))!;
  await cluster.command({ prefix: "osd blocklist", blocklistop: "add", addr: address });
  assertEquals((await first.blk.write(0, data)).status, IOERR);
  await first.backend.until("Ceph shut this client out");
  await first.end();
});

test(
  "requests to Ceph fail after --store-options=timeout, and a stop waits for none",
  async () => {
    // A discard of it all is 1,024 requests to the cluster
    await cluster.run("rbd create slow --size 64M --object-size 64K --image-feature layering");
    await using limited = await Disk.open("slow", { flags: ["--store-options=timeout=1"] });
    await using patient = await Disk.open("slow");
    const data = new Uint8Array(4096);
    assertEquals((await patient.blk.write(0, data)).status, OK);
    await cluster.stopOsd();
    const sectors = 64 * MIB / 512;
    const pending = Promise.allSettled([
      ...[1, 2, 3].map(() => patient.blk.discard(0, sectors)),
      patient.blk.read(0, 4096),
    ]);
    assertEquals((await limited.blk.read(0, 4096)).status, IOERR);
    await limited.backend.until("Ceph did not answer");
    // Its queue is given up, and closing the image too
    const { status, stderr } = await patient.backend.stop();
    assertStringIncludes(stderr, "queue 0 (requestq) is broken");
    assertEquals(status, 0, stderr);
    await patient.driver.close();
    await pending;
    cluster.startOsd();
    while ((await limited.blk.read(0, 4096)).status !== OK);
    await limited.end();
  },
  RESTARTS,
);
