/** Disks that fail on purpose. */
import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { runCli } from "./lib/cli_process.ts";

const { OK, IOERR } = blkStatus;
const BYTES = 2 ** 20;

interface Faults {
  inForce: string;
  seed: number;
  injected: Record<string, number>;
  held: number;
}

interface Faulty {
  readonly server: DeviceServer;
  readonly driver: VirtioDriver;
  readonly disk: BlkDriver;
  /** `POST /faults`. */
  put(faults?: string): Promise<Faults>;
}

/** Runs a test with each kind of store: one that answers at once, later, and by promises. */
function withDisks(
  name: string,
  faults: string,
  test: (faulty: Faulty) => Promise<void>,
  stores: readonly string[] = Object.keys(STORES),
): void {
  for (const store of stores) {
    Deno.test(`${name} (${store})`, async () => {
      const directory = Deno.makeTempDirSync();
      const socketPath = `${directory}/blk.sock`;
      try {
        const options = { faults, numQueues: 1, ...STORES[store](directory) };
        await using server = await serve(blk, { socketPath, options, log() {} });
        await using driver = await VirtioDriver.start(socketPath, { queues: 1 });
        const { run } = server.host.control.commands!.faults;
        const put = (faults?: string) => Promise.resolve(run({ faults })) as Promise<Faults>;
        await test({ server, driver, disk: new BlkDriver(driver), put });
      } finally {
        await watchesEnded();
        Deno.removeSync(directory, { recursive: true });
      }
    });
  }
}

const STORES: Record<string, (directory: string) => Record<string, unknown>> = {
  memory: () => ({ size: BYTES }),
  "a file by io_uring"(directory) {
    const blkFile = `${directory}/disk.img`;
    Deno.writeFileSync(blkFile, new Uint8Array(BYTES));
    return { blkFile, io: "uring", lock: "off" };
  },
  "TypeScript by promises": () => ({
    blkFile: new URL("lib/answering_store.ts", import.meta.url).pathname,
    storeOptions: "manner=promise",
  }),
};

function filled(bytes: number, value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes).fill(value);
}

withDisks(
  "Errors come for the requests and the range that they are asked for, until others are",
  "error=write:64K-128K:ENOSPC,error=read:128K-129K",
  async ({ disk, server, put }) => {
    const writes = [0, 120, 128, 255, 256].map((sector) => disk.write(sector, filled(4096, 1)));
    const statuses = (await Promise.all(writes)).map(({ status }) => status);
    assertEquals(statuses, [OK, OK, IOERR, IOERR, OK]);
    assertEquals((await disk.write(124, filled(4096, 1))).status, IOERR);
    assertEquals((await disk.read(257, 512)).status, IOERR);
    assertEquals((await disk.read(258, 512)).status, OK);
    const { failures, faults } = server.record().report as {
      failures: { error: string }[];
      faults: Faults;
    };
    assertEquals(failures.map(({ error }) => error), ["ENOSPC", "ENOSPC", "ENOSPC", "EIO"]);
    assertEquals(faults.injected, { error: 4, delay: 0, short: 0, torn: 0, stuck: 0 });
    assertEquals((await put()).inForce, "none");
    assertEquals((await disk.write(128, filled(4096, 1))).status, OK);
    assertEquals((await disk.read(257, 512)).data, filled(512, 1));
  },
);

withDisks(
  "A delayed request is carried out after its time, and others are not delayed",
  "delay=write:40ms-60ms",
  async ({ disk, server }) => {
    const begin = performance.now();
    const write = disk.write(8, filled(512, 7));
    assertEquals((await disk.read(8, 512)).data, filled(512, 0));
    assertEquals((await write).status, OK);
    assertGreater(performance.now() - begin, 39);
    assertEquals((await disk.read(8, 512)).data, filled(512, 7));
    const { faults } = server.record().report as { faults: Faults };
    assertEquals([faults.injected.delay, faults.held], [1, 0]);
  },
);

withDisks(
  "A short or torn write stores only its first blocks, and fails or looks done",
  "short=write:0-512K:ENOSPC,torn=512K-,seed=3",
  async ({ disk, put }) => {
    const bytes = 65_536, sectors = bytes / 512;
    for (const [from, expected] of [[0, IOERR], [1024, OK]]) {
      for (let i = 0; i < 4; i++) {
        assertEquals((await disk.write(from + i * sectors, filled(bytes, 9))).status, expected);
      }
    }
    assertEquals((await put()).injected, { error: 0, delay: 0, short: 4, torn: 4, stuck: 0 });
    const lengths = new Set<number>();
    for (const from of [0, 1024]) {
      for (let i = 0; i < 4; i++) {
        const data = (await disk.read(from + i * sectors, bytes)).data;
        const length = data.indexOf(0);
        assertEquals(length % 512, 0);
        assert(data.subarray(length).every((byte) => byte === 0));
        lengths.add(length);
      }
    }
    assertGreater(lengths.size, 4);
  },
);

withDisks(
  "Stuck requests wait until the faults change, then the store carries them out",
  "stuck=write",
  async ({ disk, driver, put }) => {
    const writes = [0, 8, 16].map((sector) => disk.write(sector, filled(512, 5)));
    assertEquals((await disk.read(8, 512)).data, filled(512, 0));
    assertEquals((await put("stuck=8K-:write")).injected.stuck, 3);
    for (const { status } of await Promise.all(writes)) assertEquals(status, OK);
    assertEquals((await disk.read(8, 512)).data, filled(512, 5));
    await driver.reset();
  },
);

withDisks(
  "A disk with a stuck request ends in bounded time",
  "stuck=read",
  async ({ disk, server }) => {
    disk.read(0, 512).catch(() => {});
    while ((server.record().report as { faults: Faults }).faults.held === 0) {
      await disk.write(0, filled(512, 1));
    }
    const begin = performance.now();
    await server.close();
    // Below the limit of any other stop
    assert(performance.now() - begin < 25_000);
  },
  ["memory"],
);

withDisks(
  "The same seed makes the same requests fail",
  "error=50%,seed=99",
  async ({ disk, put }) => {
    const run = async () => {
      const statuses: number[] = [];
      for (let i = 0; i < 64; i++) statuses.push((await disk.read(i, 512)).status);
      return statuses;
    };
    const first = await run();
    const failed = first.filter((status) => status === IOERR).length;
    assert(failed > 12 && failed < 52, `${failed}`);
    await put("error=50%,seed=99");
    assertEquals(await run(), first);
    await assertRejects(async () => await put("error=2%,what"), TypeError, "faults takes error=");
  },
  ["memory"],
);

Deno.test("POST /faults needs --faults, and vhostd blk says what is wrong with it", async () => {
  const socketPath = Deno.makeTempFileSync();
  Deno.removeSync(socketPath);
  {
    await using server = await serve(blk, { socketPath, options: { size: BYTES } });
    const { run } = server.host.control.commands!.faults;
    await assertRejects(async () => await run({}), TypeError, "start vhostd with --faults=none");
  }
  {
    const options = { size: BYTES, faults: "none" };
    await using server = await serve(blk, { socketPath, options });
    const { run } = server.host.control.commands!.faults;
    for (const body of [null, [], "none", { faults: 7 }, { fault: "none" }]) {
      await assertRejects(async () => await run(body), TypeError, "Expected {");
    }
  }
  await watchesEnded();
  const flags = ["--size=1M", "--faults=error=often", `--socket-path=${socketPath}`];
  const { status, stderr } = await runCli(["blk", ...flags]);
  assertEquals([status, stderr.trimEnd().split("\n").length], [2, 1], stderr);
  assert(stderr.includes("--faults: error takes requests"), stderr);
});
