/** Each flag of blk with each kind of disk: it has an effect there, or is refused in one line. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import type { BlkOptions } from "../../backends/blk/options.ts";
import { serve } from "../../mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { deviceOptions } from "../../src/virtio/mod.ts";
import { DiskServer } from "./lib/disk_server.ts";

const MIB = 2 ** 20;

const store = (name: string) => new URL(`lib/${name}_store.ts`, import.meta.url).pathname;

/** The disks; `@` is a directory with an image and an overlay on it, `URL` is on a web server. */
const disks = {
  file: { blkFile: "@/base.img" },
  overlay: { overlay: "@/delta.img", blkFile: "@/base.img" },
  "overlay alone": { overlay: "@/earlier.img" },
  "overlay of a store": { overlay: "@/delta.img", blkFile: store("keeping") },
  "overlay of http": { overlay: "@/delta.img", blkFile: "URL", storeOptions: "cache=off" },
  store: { blkFile: store("keeping") },
  "read-only store": { blkFile: store("read_only") },
  http: { blkFile: "URL", storeOptions: "cache=off" },
  // Whether one of these is refused is known before it is opened
  nbd: { blkFile: "nbd://host/export" },
  rbd: { blkFile: "rbd:pool/image" },
  memory: { size: MIB },
  null: { null: true, size: MIB },
} as const satisfies Record<string, Partial<BlkOptions>>;

type Disk = keyof typeof disks;

const UNOPENED: readonly Disk[] = ["nbd", "rbd"];
const MEMORY: readonly Disk[] = ["memory", "null"];
const ELSEWHERE: readonly Disk[] = ["store", "read-only store", "http", "nbd", "rbd"];
const BELOW: readonly Disk[] = ["overlay", "overlay of a store", "overlay of http"];
const NO_FILES = [...ELSEWHERE, ...MEMORY];
const FOR_FILES = " is for a file, a block device or an --overlay, got ";
const NO_FLUSH: readonly Disk[] = ["read-only store", "http", ...MEMORY];

/** A flag with a value, and where it is refused, and how. */
interface Row {
  readonly given: Partial<BlkOptions>;
  readonly refused?: readonly (readonly [by: readonly Disk[], why: string])[];
}

const named = ["file", "overlay", "overlay of a store", "overlay of http", ...ELSEWHERE] as const;

const rows: { readonly [K in keyof BlkOptions]-?: readonly Row[] } = {
  blkFile: [{
    given: { blkFile: "@/base.img" },
    refused: [
      [["memory"], "--blk-file and --size exclude each other"],
      [["null"], "--blk-file and --null exclude each other"],
      [["overlay of http", "http"], "--store-options are for a store in TypeScript or a disk"],
    ],
  }],
  overlay: [{
    given: { overlay: "@/delta.img" },
    refused: [
      [MEMORY, "--overlay needs a disk below it, and neither --size nor --null"],
      [["overlay alone"], "it does not exist; name the disk that it is to be made on"],
    ],
  }],
  storeOptions: [{
    given: { storeOptions: "cache=off" },
    refused: [
      [["file", "overlay", "overlay alone", ...MEMORY], "--store-options are for a store in Ty"],
      [["overlay of a store", "store", "read-only store"], "has no option cache"],
    ],
  }],
  format: [
    {
      given: { format: "raw" },
      refused: [[["overlay alone", ...MEMORY], "--format has no effect without --blk-file"]],
    },
    {
      given: { format: "overlay" },
      refused: [
        [["file", ...ELSEWHERE], "--format=overlay is for a disk below an --overlay"],
        [["overlay"], "it is not an overlay"],
        [["overlay of a store", "overlay of http"], "--format=overlay is for a file, got "],
        [["overlay alone", ...MEMORY], "--format has no effect without --blk-file"],
      ],
    },
  ],
  size: [{
    given: { size: MIB },
    refused: [
      [["file", ...ELSEWHERE], "--blk-file and --size exclude each other"],
      [[...BELOW, "overlay alone"], "--overlay needs a disk below it, and neither --size"],
    ],
  }],
  null: [{
    given: { null: true },
    refused: [
      [["file", ...ELSEWHERE], "--blk-file and --null exclude each other"],
      [[...BELOW, "overlay alone"], "--overlay needs a disk below it, and neither --size"],
    ],
  }],
  zoned: [{
    given: { zoned: "host-managed,size=64K" },
    refused: [[[...named, "overlay alone"], "--zoned has no effect without --size"]],
  }],
  io: (["auto", "uring", "sync"] as const).map((io) => ({
    given: { io },
    refused: [[NO_FILES, `--io${FOR_FILES}`]],
  })),
  lock: (["on", "off"] as const).map((lock) => ({
    given: { lock },
    refused: [[NO_FILES, `--lock${FOR_FILES}`]],
  })),
  cache: [
    { given: { cache: "writeback" } },
    { given: { cache: "none" }, refused: [[NO_FILES, `--cache=none${FOR_FILES}`]] },
    {
      given: { cache: "writethrough" },
      refused: [[NO_FLUSH, "--cache=writethrough needs a store that can flush, which the "]],
    },
    {
      given: { cache: "directsync" },
      refused: [
        [NO_FILES, `--cache=directsync${FOR_FILES}`],
        [NO_FILES, "; leave it out, or give --cache=writethrough"],
      ],
    },
  ],
  readOnly: [{
    given: { readOnly: true },
    refused: [[BELOW, "it does not exist; name the disk that it is to be made on"]],
  }],
  numQueues: [{ given: { numQueues: 2 } }],
  serial: [{ given: { serial: "one" } }],
  blockSize: [{ given: { blockSize: 4096 } }],
  discard: [{ given: { discard: "ignore" } }, { given: { discard: "unmap" } }],
  iops: [{ given: { iops: "100" } }],
  bandwidth: [{ given: { bandwidth: "1M" } }],
  faults: [{ given: { faults: "none" } }],
};

/** Why a disk is not served; undefined where it is. */
async function refusalOf(disk: Disk, given: Partial<BlkOptions>): Promise<string | undefined> {
  const directory = Deno.makeTempDirSync();
  const serveIn = async (options: Record<string, unknown>) => {
    const values = JSON.parse(
      JSON.stringify(options).replaceAll("@", directory).replace("URL", server.url),
    );
    deviceOptions(blk, [values]);
    if (UNOPENED.includes(disk)) return;
    await using _server = await serve(blk, {
      ...{ socketPath: `${directory}/s.sock`, options: values, plane: "main" },
    });
  };
  await using server = new DiskServer(MIB);
  try {
    Deno.writeFileSync(`${directory}/base.img`, new Uint8Array(MIB));
    if (disk === "overlay alone") {
      await serveIn({ overlay: "@/earlier.img", blkFile: "@/base.img" });
    }
    await serveIn({ ...disks[disk], ...given });
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  }
}

for (const [flag, cases] of Object.entries(rows)) {
  for (const { given, refused = [] } of cases) {
    Deno.test(`blk takes ${JSON.stringify(given)} where it has an effect`, async () => {
      for (const disk of Object.keys(disks) as Disk[]) {
        // The flag is what makes it
        if (flag in disks[disk] && flag !== "blkFile" && flag !== "overlay") continue;
        const refusal = await refusalOf(disk, given);
        const reasons = refused.filter(([by]) => by.includes(disk)).map(([, why]) => why);
        if (reasons.length === 0) assertEquals(refusal, undefined, disk);
        for (const why of reasons) assertStringIncludes(`${disk}: ${refusal}`, why);
        assertEquals(refusal?.includes("\n") ?? false, false, refusal);
      }
    });
  }
}
