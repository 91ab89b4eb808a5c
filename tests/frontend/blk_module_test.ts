import { assertEquals, assertStringIncludes } from "@std/assert";
import { equals } from "@std/bytes";
import blk from "../../backends/blk/mod.ts";
import { serve } from "../../mod.ts";
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { runCli } from "./lib/cli_process.ts";
import { IS_GOOD } from "./lib/garbage_store.ts";

const { OK, IOERR, UNSUPP } = blkStatus;

/** Feature bits: virtio 1.3, 5.2.3. */
const LIFETIME = 1n << 15n, SECURE_ERASE = 1n << 16n;
const RO = 1n << 5n, CONFIG_WCE = 1n << 11n, DISCARD = 1n << 13n, WRITE_ZEROES = 1n << 14n;

function store(name: string): string {
  return new URL(`lib/${name}_store.ts`, import.meta.url).pathname;
}

/** Serves the store of a module, and runs a test with a driver for it. */
async function withStore(
  options: Record<string, unknown>,
  test: (
    disk: BlkDriver,
    driver: VirtioDriver,
    log: Promise<string>,
    lines: string[],
    said: (text: string) => Promise<void>,
  ) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const socketPath = `${directory}/blk.sock`;
  const first = Promise.withResolvers<string>();
  const lines: string[] = [];
  let onLine = () => {};
  const log = (line: string) => {
    lines.push(line);
    first.resolve(line);
    onLine();
  };
  const said = async (text: string) => {
    while (!lines.some((line) => line.includes(text))) {
      await new Promise<void>((resolve) => onLine = resolve);
    }
  };
  try {
    await using _server = await serve(blk, { socketPath, options, log });
    await using driver = await VirtioDriver.start(socketPath, { queues: [64, 64] });
    await test(new BlkDriver(driver), driver, first.promise, lines, said);
  } finally {
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  }
}

for (const manner of ["now", "promise", "later"]) {
  Deno.test(`a store in TypeScript answers ${manner}, on one thread for all queues`, () =>
    withStore(
      { blkFile: store("answering"), storeOptions: `manner=${manner}`, numQueues: 2 },
      async (disk) => {
        const data = new Uint8Array(8192).map((_, i) => i * 7);
        await Promise.all([0, 1].map(async (queue) => {
          for (let i = 0; i < 20; i++) {
            const sector = (2 * i + queue) * 16;
            const { status } = await disk.write(sector, data, { queue, parts: [1000, 7192] });
            assertEquals(status, OK);
            const read = await disk.read(sector, 8192, { queue: 1 - queue });
            assertEquals([read.status, read.data], [OK, data]);
          }
        }));
        assertEquals((await disk.flush()).status, OK);
        assertEquals((await disk.secureErase(16, 16)).status, OK);
        assertEquals((await disk.read(16, 8192)).data, new Uint8Array(8192).fill(0xee));
        assertEquals((await disk.getLifetime()).lifetime, [2, 9, 0]);
      },
    ));
}

for (const manner of ["throw", "reject"]) {
  Deno.test(`a store in TypeScript that fails (${manner}) is an I/O error, and told of`, () =>
    withStore(
      { blkFile: store("answering"), storeOptions: `manner=${manner}`, numQueues: 2 },
      async (disk, _driver, log) => {
        assertEquals((await disk.read(0, 512)).status, IOERR);
        assertEquals((await disk.read(0, 512)).status, IOERR);
        assertStringIncludes(await log, "The store failed on a request");
      },
    ));
}

for (const promises of ["write", "flush"]) {
  const storeOptions = `promises=${promises}`, cache = "writethrough";
  const options = { blkFile: store("batching"), storeOptions, cache, numQueues: 2 };
  Deno.test(`a store in TypeScript answers in submit(), and each ${promises} by a promise`, () =>
    withStore(options, async (disk) => {
      // The larger one is done by pieces
      for (const bytes of [4096, 20 * 2 ** 20]) {
        const data = new Uint8Array(bytes).map((_, i) => i * 7 + (i >> 9));
        assertEquals((await disk.write(8, data)).status, OK);
        // The buffer may be where the data was
        const nothing = new Uint8Array(bytes);
        assertEquals((await disk.write(8 + bytes / 512, nothing)).status, OK);
        const read = await disk.read(8, bytes, { queue: 1 });
        assertEquals([read.status, equals(read.data, data)], [OK, true]);
      }
      assertEquals((await disk.flush()).status, OK);
    }));
}

Deno.test("a store in TypeScript that breaks the contract fails its requests, and nothing else", () =>
  withStore(
    { blkFile: store("garbage"), numQueues: 2 },
    async (disk, _driver, _log, lines, said) => {
      for (const [sector, isGood] of IS_GOOD.entries()) {
        const { status, data } = await disk.read(sector, 512);
        assertEquals([sector, status], [sector, isGood ? OK : IOERR]);
        if (isGood) assertEquals(data, new Uint8Array(512).fill(7));
      }
      assertEquals((await disk.getLifetime()).status, IOERR);
      await said("Expected 0, an errno up to 133, LATER or a promise, got NaN");
      await said("The store failed in submit(): Error: It cannot submit");
      await said("outside of its functions: Error: Nobody ");
      await said("done() for a request that is not pending");
      assertEquals(lines.filter((line) => line.includes("broken")), []);
    },
  ));

Deno.test("what a disk can do follows from the functions of its store", async () => {
  await withStore({ blkFile: store("answering"), numQueues: 2 }, async (_disk, driver) => {
    const offered = driver.features;
    const has = (bit: bigint) => (offered & bit) !== 0n;
    assertEquals([RO, CONFIG_WCE, DISCARD, WRITE_ZEROES].map(has), [false, true, true, false]);
    assertEquals([LIFETIME, SECURE_ERASE].map(has), [true, true]);
    // The limits of a secure erase: virtio 1.3, 5.2.4
    assertEquals(await driver.config.u32(60), 2 ** 22);
    assertEquals([await driver.config.u32(64), await driver.config.u32(68)], [64, 8]);
  });
  await withStore({ blkFile: store("read_only"), numQueues: 2 }, async (disk, driver) => {
    const has = (bit: bigint) => (driver.features & bit) !== 0n;
    assertEquals([RO, CONFIG_WCE, DISCARD, WRITE_ZEROES].map(has), [true, false, false, false]);
    assertEquals([LIFETIME, SECURE_ERASE].map(has), [false, false]);
    assertEquals((await disk.secureErase(0, 8)).status, UNSUPP);
    assertEquals((await disk.getLifetime()).status, UNSUPP);
    assertEquals((await disk.read(8, 4096)).data, new Uint8Array(4096).fill(7));
    // No whole block, whatever a driver makes of blk_size
    for (const sector of [0, 1]) assertEquals((await disk.read(sector, 512)).status, IOERR);
    assertEquals((await disk.read(1, 4096)).status, IOERR);
    assertEquals((await disk.write(0, new Uint8Array(512))).status, IOERR);
    assertEquals(await driver.config.u32(20), 4096); // blk_size
    const { status } = await disk.discard(0, 8);
    assertEquals(status, UNSUPP);
  });
});

Deno.test("vhostd blk explains what is wrong with a module", async () => {
  const directory = await Deno.makeTempDir();
  const socketPath = `${directory}/blk.sock`;
  const module = async (code: string) => {
    const path = `${directory}/${crypto.randomUUID()}.ts`;
    await Deno.writeTextFile(path, code);
    return path;
  };
  const cases: [operands: string[], message: string, status?: number][] = [
    [[`${directory}/none.ts`], "Cannot load the store"],
    [[await module("export default {};")], "Expected a store as the default export"],
    [
      [
        await module(
          'import { defineStore } from "@vhostd/vhostd/store";' +
            "export default defineStore({ open: () => ({ bytes: 512 }), read() {}, flsuh() {} });",
        ),
      ],
      "got flsuh; did you mean flush?",
    ],
    [
      [await module("export default { open: () => ({}), read() {} };")],
      "to return the size of the disk as bytes",
    ],
    [
      [
        await module(
          "export default { open: () => ({ bytes: 512, blockBytes: 2 ** 40 }), read() {} };",
        ),
      ],
      "as blockBytes a power of 2 from 512 to 65536; got { bytes: 512,",
    ],
    [
      [await module("export default { open: () => ({ bytes: 512, identity: 5 }), read() {} };")],
      "to return, if any, identity as text and without as a list; got { bytes: 512, identity: 5 }",
    ],
    [
      [await module("export default { open: () => ({ bytes: 512, without: 5 }), read() {} };")],
      "to return, if any, identity as text and without as a list; got { bytes: 512, without: 5 }",
    ],
    [
      [await module("export default { open() { throw new Error('no disk') }, read() {} };")],
      "no disk",
    ],
    [[store("answering"), "--store-options=speed=3"], "has no option speed; it has manner", 2],
    [[store("answering"), "--store-options=manner=never"], "manner takes now, promise", 2],
    [["a.img", "b.img"], "Expected one PATH, got a.img and b.img", 2],
    [["a.img", "--blk-file=b.img"], "Expected one PATH, got a.img and b.img", 2],
    [
      [await module("export default { open: () => ({ bytes: 1000 }), read() {} };")],
      "got 1000; the next larger one is 1024",
    ],
    [["ndb://host/disk"], "Expected nbd, nbds, nbd+unix, nbds+unix, http, https or rbd before", 2],
    [["rbd:disk"], "vhostd: Expected rbd:POOL/[NAMESPACE/]IMAGE", 2],
    [[`${directory}`, "--store-options=a=b"], "--store-options are for a store in TypeScript", 2],
    [["nbd:///disk"], "vhostd: Expected a host", 2],
  ];
  for (const [operands, message, expected = 1] of cases) {
    const { status, stderr } = await runCli(["blk", ...operands, `--socket-path=${socketPath}`]);
    assertStringIncludes(stderr, message);
    assertEquals([status, stderr.trimEnd().split("\n").length], [expected, 1], stderr);
  }
  await Deno.remove(directory, { recursive: true });
});
