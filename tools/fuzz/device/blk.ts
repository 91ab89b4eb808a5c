/** Block devices under any requests, beside a model. */
import { concat } from "@std/bytes";
import blk from "../../../backends/blk/mod.ts";
import { MAX_DISCARD_SECTORS, MAX_WRITE_ZEROES_SECTORS } from "../../../backends/blk/operation.ts";
import { OVERLAY_BLOCK_BYTES } from "../../../backends/blk/overlay/format.ts";
import type { Random } from "../../lib/random.ts";
import type { Tally } from "../frame.ts";
import {
  DISCARD,
  DiskModel,
  FLUSH,
  GET_ID,
  GET_LIFETIME,
  IN,
  OUT,
  SECURE_ERASE,
  WRITE_ZEROES,
} from "./disk_model.ts";
import { accessConfig, divide, divided, expectBroken, type Life, withLife } from "./life.ts";

const SECTOR_BYTES = 512;

/** Requests that are in flight together: each has a part of the disk for itself. */
const STRIPES = 32;

/** The sectors of a stripe, at the beginning. */
const STRIPE_SECTORS = 16;

const DISK_BYTES = STRIPES * STRIPE_SECTORS * SECTOR_BYTES;

/** Where `writeback` is: virtio 1.3, 5.2.4. */
const WRITEBACK_OFFSET = 32;

const SERIAL = "fuzzed";

/** Request types in the table. */
const NAMES: Record<number, string> = {
  [-1]: "requests without a header",
  [IN]: "IN",
  [OUT]: "OUT",
  [FLUSH]: "FLUSH",
  [GET_ID]: "GET_ID",
  [DISCARD]: "DISCARD",
  [WRITE_ZEROES]: "WRITE_ZEROES",
  [SECURE_ERASE]: "SECURE_ERASE",
  [GET_LIFETIME]: "GET_LIFETIME",
};

/** Requests about zones: virtio 1.3, 5.2.6. */
const ZONE_APPEND = 15, ZONE_REPORT = 16;
const ZONE_TYPES = [ZONE_APPEND, ZONE_APPEND, ZONE_REPORT, 18, 20, 22, 24, 26];

/** The largest status. */
const MAX_STATUS = 6;

const USUAL_TYPES = [
  ...[IN, IN, IN, OUT, OUT, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES],
  ...[SECURE_ERASE, GET_LIFETIME],
];

/** Where files are: on a disk, and in memory, where they are mapped. */
const DISK = "/var/tmp", MEMORY = "/dev/shm";

const MEMORY_STORE = {
  blkFile: new URL("memory_store.ts", import.meta.url).pathname,
  storeOptions: `size=${DISK_BYTES}`,
};

const DISKS: {
  name: string;
  /** Where its file is. */
  directory?: string;
  /** Where the file of an overlay on it is. */
  overlayIn?: string;
  options: Record<string, unknown>;
}[] = [
  { name: "memory", options: {} },
  { name: "memory, read-only", options: { readOnly: true } },
  { name: "memory, discards ignored", options: { discard: "ignore" } },
  { name: "null", options: { null: true } },
  { name: "file, auto", directory: DISK, options: { io: "auto" } },
  { name: "file, io_uring", directory: DISK, options: { io: "uring" } },
  { name: "file, system calls", directory: DISK, options: { io: "sync" } },
  { name: "file, O_DIRECT", directory: DISK, options: { io: "uring", cache: "none" } },
  { name: "file in memory", directory: MEMORY, options: { io: "auto" } },
  { name: "file in memory, io_uring", directory: MEMORY, options: { io: "uring" } },
  {
    name: "memory, zoned",
    options: {
      zoned: `host-managed,size=${STRIPE_SECTORS * SECTOR_BYTES},conventional=3,open=4,active=6`,
    },
  },
  { name: "store in TypeScript", options: MEMORY_STORE },
  { name: "overlay on a file", directory: DISK, overlayIn: DISK, options: { io: "auto" } },
  { name: "overlay on a store", overlayIn: DISK, options: { ...MEMORY_STORE, io: "uring" } },
  { name: "overlay in memory", overlayIn: MEMORY, options: { ...MEMORY_STORE, io: "auto" } },
  { name: "file, read-only", directory: DISK, options: { io: "auto", readOnly: true } },
];

/** Lives through one disk with at most `cases` requests and accesses; returns how many there were. */
export async function liveAsDisk(random: Random, cases: number, tally: Tally): Promise<number> {
  const disk = random.pick(DISKS);
  const path = disk.directory && Deno.makeTempFileSync({ dir: disk.directory });
  const folder = disk.overlayIn && Deno.makeTempDirSync({ dir: disk.overlayIn });
  const overlay = folder && `${folder}/overlay.img`;
  try {
    if (path !== undefined) Deno.truncateSync(path, DISK_BYTES);
    const options = {
      ...path === undefined ? { size: DISK_BYTES } : { blkFile: path },
      ...disk.options,
      ...disk.options.blkFile !== undefined && { size: undefined },
      overlay,
      numQueues: 2,
      serial: SERIAL,
    };
    const setup = {
      name: `blk (${disk.name})`,
      random,
      tally,
      device: blk,
      options,
      driver: { queues: 2 },
    };
    const done = await withLife(setup, (life) =>
      new DiskLife(life, disk.name, {
        // A base stays as it is
        path: overlay === undefined ? path : undefined,
        isOverlay: overlay !== undefined,
      }).run(cases));
    tally.add(`blk: lives as ${disk.name}`);
    return done;
  } finally {
    if (path !== undefined) Deno.removeSync(path);
    if (folder !== undefined) Deno.removeSync(folder, { recursive: true });
  }
}

interface Request {
  readable: Uint8Array<ArrayBuffer>;
  room: number;
}

class DiskLife {
  readonly #model: DiskModel;

  constructor(
    readonly life: Life,
    name: string,
    readonly place: { readonly path: string | undefined; readonly isOverlay: boolean },
  ) {
    const has = (feature: string) =>
      life.server.record().features.some((one) => one.name === feature && one.acknowledged);
    this.#model = new DiskModel(DISK_BYTES, {
      readOnly: has("RO"),
      discard: has("DISCARD"),
      discardBytes: place.isOverlay ? OVERLAY_BLOCK_BYTES : 1,
      writeZeroes: has("WRITE_ZEROES"),
      secureErase: has("SECURE_ERASE"),
      lifetime: has("LIFETIME") ? [1, 2, 3] : undefined,
      serial: SERIAL,
      maxDiscardSectors: MAX_DISCARD_SECTORS,
      maxWriteZeroesSectors: MAX_WRITE_ZEROES_SECTORS,
      zoned: has("ZONED"),
      remembers: name !== "null",
    });
  }

  async run(cases: number): Promise<number> {
    const { random, tally, driver } = this.life;
    let done = 0;
    while (done < cases) {
      switch (random.below(24)) {
        case 0:
          done++;
          await accessConfig(this.life, new Set([WRITEBACK_OFFSET]));
          break;
        case 1:
          if (this.#model.traits.zoned) break;
          done++;
          await this.#resize();
          break;
        case 2:
          if (!random.chance(1, 4)) break;
          done++;
          // No room for a status: nothing can be said.
          await expectBroken(this.life, random.below(2), divided(random, this.#header(IN, 0n)), []);
          break;
        case 3:
          await driver.stop();
          await driver.restart();
          tally.add("blk: stopped and started");
          break;
        default: {
          const count = Math.min(random.between(1, STRIPES), cases - done);
          await Promise.all(Array.from({ length: count }, (_, stripe) => this.#ask(stripe)));
          done += count;
        }
      }
    }
    await this.#checkFile();
    return done;
  }

  async #ask(stripe: number): Promise<void> {
    const { random, tally, driver } = this.life;
    const { readable, room } = this.#request(stripe);
    const expected = this.#model.answer(readable, room);
    const writable = divide(random, room + 1);
    const type = readable.length < 16 ? -1 : new DataView(readable.buffer).getUint32(0, true);
    const { written, data } = await driver.request(
      random.below(2),
      divided(random, readable),
      writable,
      { indirect: random.chance(1, 2) },
    );
    const answer = concat(data);
    const status = answer[room];
    tally.add(`blk: ${NAMES[type] ?? "requests of no known type"}, status ${status}`);
    const what = `a request of type ${type} (${
      [...readable.subarray(0, 48)].map((byte) => byte.toString(16)).join(" ")
    }), ${readable.length} bytes to read and ${room} to write`;
    if (status > MAX_STATUS) throw new Error(`Expected a status of ${what}, got ${status}`);
    if (expected.status !== undefined && status !== expected.status) {
      throw new Error(`Expected status ${expected.status} of ${what}, got ${status}`);
    }
    if (written !== room + 1) {
      throw new Error(`Expected ${room + 1} bytes written by ${what}, got ${written}`);
    }
    const at = expected.data?.findIndex((byte, i) => answer[i] !== byte) ?? -1;
    if (at >= 0) {
      throw new Error(
        `Expected byte ${at} of ${what} to be ${expected.data![at]}, got ${answer[at]}`,
      );
    }
  }

  #header(type: number, sector: bigint): Uint8Array<ArrayBuffer> {
    const header = new Uint8Array(16);
    const view = new DataView(header.buffer);
    view.setUint32(0, type, true);
    view.setUint32(4, this.life.random.u32(), true);
    view.setBigUint64(8, sector, true);
    return header;
  }

  /** A request about one stripe: right, nearly right, or of no sense. */
  #request(stripe: number): Request {
    const { random } = this.life;
    const any = (bytes: number) => new Uint8Array(bytes).map(() => random.u32());
    const zoneTypes = this.#model.traits.zoned ? ZONE_TYPES : [];
    const type = random.pick([...USUAL_TYPES, ...zoneTypes, this.#oddType()]);
    if (random.chance(1, 64)) return { readable: any(random.below(16)), room: random.below(600) };
    const [sector, sectors] = this.#range(stripe);
    const bytes = random.chance(1, 16)
      ? random.below(4 * SECTOR_BYTES)
      : Math.min(sectors, 2 * STRIPE_SECTORS) * SECTOR_BYTES;
    switch (type) {
      case IN:
        return {
          readable: concat([
            this.#header(type, sector),
            any(random.chance(1, 8) ? random.below(40) : 0),
          ]),
          room: bytes,
        };
      case OUT:
        return {
          readable: concat([this.#header(type, sector), any(this.#within(stripe, sector, bytes))]),
          room: random.chance(1, 8) ? random.below(40) : 0,
        };
      case DISCARD:
      case WRITE_ZEROES:
      case SECURE_ERASE: {
        const segments = this.#segments(stripe, type);
        // Without any, those of a secure erase are looked for where the device writes
        const isElsewhere = type === SECURE_ERASE && segments.length === 0;
        return {
          readable: concat([this.#header(type, 0n), segments]),
          room: random.chance(1, 8) && !isElsewhere ? random.below(40) : 0,
        };
      }
      case ZONE_APPEND: {
        const zone = BigInt(stripe * STRIPE_SECTORS + (random.chance(1, 16) ? 1 : 0));
        return {
          readable: concat([this.#header(type, zone), any(bytes)]),
          room: random.chance(1, 8) ? random.below(40) : 8,
        };
      }
      default:
        return {
          readable: concat([
            this.#header(type, random.chance(1, 2) ? sector : BigInt(stripe * STRIPE_SECTORS)),
            any(random.below(30)),
          ]),
          room: random.pick([0, 1, 19, 20, 21, 512, random.below(100)]),
        };
    }
  }

  #oddType(): number {
    const { random } = this.life;
    return random.chance(1, 2) ? random.below(32) : random.u32();
  }

  /** The first sector of a stripe, and how many it has. The last one goes on to the disk's end. */
  #stripe(stripe: number): [first: number, sectors: number] {
    const first = stripe * STRIPE_SECTORS;
    const isLast = stripe === STRIPES - 1;
    return [first, isLast ? this.#model.sectors - first : STRIPE_SECTORS];
  }

  /** A range: inside of a stripe, or beyond the disk. */
  #range(stripe: number): [sector: bigint, sectors: number] {
    const { random } = this.life;
    const [first, count] = this.#stripe(stripe);
    const end = BigInt(this.#model.sectors);
    const sectors = random.below(4);
    if (random.chance(1, 12)) {
      const powers = [31n, 32n, 53n, 55n, 63n].map((power) => 2n ** power);
      const wild = [end, end + 1n, ...powers, 2n ** 64n - 1n];
      return [random.pick(wild), random.chance(1, 2) ? sectors : random.u32()];
    }
    // At the disk's end, and over it.
    if (stripe === STRIPES - 1 && random.chance(1, 2)) {
      const most = Math.min(count, STRIPE_SECTORS);
      const back = random.below(most + 1);
      return [end - BigInt(back), Math.max(back + random.between(-1, 1), 0)];
    }
    const start = random.below(count + 1);
    return [BigInt(first + start), Math.min(sectors, count - start)];
  }

  /** How many bytes may be written from a sector on without leaving the stripe. */
  #within(stripe: number, sector: bigint, bytes: number): number {
    const [first, count] = this.#stripe(stripe);
    if (stripe === STRIPES - 1 || sector >= BigInt(first + count)) return bytes;
    return Math.min(bytes, (first + count - Number(sector)) * SECTOR_BYTES);
  }

  #segments(stripe: number, type: number): Uint8Array<ArrayBuffer> {
    const { random } = this.life;
    const count = random.pick([0, 1, 1, 1, 2, 3, 63, 64, 65]);
    const isWild = random.chance(1, 4);
    const bytes = new Uint8Array(count * 16 + (random.chance(1, 16) ? random.below(16) : 0));
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < count; i++) {
      let [sector, sectors] = this.#range(stripe);
      // Those that are wrong make the others harmless, so most requests have none.
      while (!isWild && sector + BigInt(sectors) > BigInt(this.#model.sectors)) {
        [sector, sectors] = this.#range(stripe);
      }
      view.setBigUint64(i * 16, sector, true);
      view.setUint32(i * 16 + 8, sectors, true);
      const unmap = type === WRITE_ZEROES ? random.below(2) : 0;
      view.setUint32(i * 16 + 12, isWild && random.chance(1, 8) ? random.u32() : unmap, true);
    }
    return bytes;
  }

  /** The disk gets another size, while nothing is in flight. */
  async #resize(): Promise<void> {
    const { random, tally, server } = this.life;
    // Every stripe stays.
    const any = DISK_BYTES + random.below(64) * SECTOR_BYTES;
    const bytes = this.place.isOverlay ? Math.max(any, this.#model.sectors * SECTOR_BYTES) : any;
    const { resize } = server.host.control.commands!;
    if (this.place.path === undefined) {
      await resize.run({ size: bytes });
    } else {
      // Opening a mapped file waits until the device has released it, and the device runs here.
      await Deno.truncate(this.place.path, bytes);
      await resize.run(undefined);
    }
    this.#model.resize(bytes);
    tally.add("blk: resized");
  }

  async #checkFile(): Promise<void> {
    if (this.place.path === undefined) return;
    const content = await Deno.readFile(this.place.path);
    const at = this.#model.content.findIndex((byte, i) => content[i] !== byte);
    if (at >= 0 || content.length !== this.#model.content.length) {
      throw new Error(`Expected the file to be what was written, got something else at ${at}`);
    }
  }
}
