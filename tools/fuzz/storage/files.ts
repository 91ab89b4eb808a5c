/** Files that are full, limited, cut short, or no disks at all. */
import { Scratch } from "../../lib/scratch.ts";
import blk from "../../../backends/blk/mod.ts";
import { BlkDriver, blkHeader, blkRequests, blkStatus } from "../../../src/frontend/mod.ts";
import { Errno, LinuxError, openFile } from "../../../src/linux/mod.ts";
import type { AnyDevice } from "../../../mod.ts";
import { run } from "../../lib/process.ts";
import type { Random } from "../../lib/random.ts";
import { type Life, withLife } from "../device/life.ts";
import type { Tally } from "../frame.ts";
import {
  ask,
  askAlone,
  type DiskRequest,
  diskRequest,
  type Kind,
  KINDS,
  SECTOR_BYTES,
} from "./disk.ts";
import swapped from "./swapped_blk.ts";

const DISK_BYTES = 2 ** 20;
const DISK_SECTORS = DISK_BYTES / SECTOR_BYTES;

/** The sectors of what is written and given back. */
const BLOCK_SECTORS = 32, BLOCKS = DISK_SECTORS / BLOCK_SECTORS;

/** How requests are carried out. */
const MODES: { io: string; cache?: string }[] = [
  { io: "auto" },
  { io: "uring" },
  { io: "sync" },
  { io: "auto", cache: "none" },
  { io: "sync", cache: "none" },
];

/** The most requests of one file. */
const LIFE_CASES = 150;

const MEMORY = "/dev/shm";

/** One troublesome file, and what is done with it. */
class File {
  path: string;

  constructor(
    readonly random: Random,
    readonly cases: number,
    readonly tally: Tally,
    readonly directory: string,
    readonly mode: typeof MODES[number],
    readonly name: string,
  ) {
    this.path = `${directory}/disk.img`;
    Deno.writeFileSync(this.path, new Uint8Array(DISK_BYTES));
  }

  /** The cache that the mode wants, where the file can have it: tmpfs learned it with Linux 6.6. */
  get cache(): string {
    if (this.mode.cache === undefined) return "writeback";
    try {
      openFile(this.path, { direct: true }).close();
      return "none";
    } catch (error) {
      if (error instanceof LinuxError && error.errno === Errno.EINVAL) return "writeback";
      throw error;
    }
  }

  /** Serves the disk, or another device with other options. */
  serve(
    use: (life: Life) => Promise<void>,
    more: Record<string, unknown> = { cache: this.cache },
    device: AnyDevice = blk,
    queues = 1,
  ): Promise<void> {
    const { random, tally, name, mode: { io }, path: blkFile } = this;
    const options = { io, blkFile, numQueues: queues, ...more };
    return withLife({ name, random, tally, device, options, driver: { queues } }, use);
  }
}

interface Trouble {
  name: string;
  /** Whether it needs root. */
  needsRoot?: boolean;
  live(file: File): Promise<void>;
}

/** Lives through one troublesome file with at most `cases` requests; returns how many there were. */
export async function liveWithTrouble(
  random: Random,
  cases: number,
  tally: Tally,
): Promise<number> {
  const { name, needsRoot, live } = random.pick(TROUBLES);
  const mode = random.pick(MODES);
  if (needsRoot && Deno.uid() !== 0) {
    tally.add(`left out, because it needs root: ${name}`);
    return 1;
  }
  // Mostly in memory, which is quick, else on a disk.
  using scratch = new Scratch("fuzz-");
  const directory = scratch.directory(random.chance(3, 4) ? MEMORY : undefined);
  const most = Math.min(cases, LIFE_CASES);
  const how = `${name} (${Object.values(mode).join(", ")})`;
  await live(new File(random, most, tally, directory, mode, how));
  tally.add(`${name}: lives`);
  return most;
}

/** The kernel lets go of the files of an io_uring a while after it is closed. */
async function unmount(directory: string): Promise<void> {
  for (let left = 100;; left--) {
    try {
      return void await run("umount", [directory]);
    } catch (error) {
      if (left === 0) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** What a disk has, block by block; undefined for a block that a failed write may have changed. */
class Blocks {
  readonly #content: (Uint8Array | undefined)[] = Array.from(
    { length: BLOCKS },
    () => new Uint8Array(BLOCK_SECTORS * SECTOR_BYTES),
  );

  /** Takes note of what became of a request about one block, and checks what it read. */
  note(
    { kind, sector, data: written }: DiskRequest,
    error: string | undefined,
    data: Uint8Array,
  ): void {
    const block = sector / BLOCK_SECTORS;
    const known = this.#content[block];
    if (kind === "IN") {
      if (error !== undefined || known === undefined) return;
      if (data.some((byte, i) => byte !== known[i])) {
        throw new Error(`Block ${block} lost what was written to it`);
      }
    } else if (kind !== "FLUSH") {
      const result = kind === "OUT" ? written : new Uint8Array(BLOCK_SECTORS * SECTOR_BYTES);
      this.#content[block] = error === undefined ? result : undefined;
    }
  }
}

function blockRequest(
  random: Random,
  kind: Kind,
  block: number = random.below(BLOCKS),
): DiskRequest {
  return diskRequest(random, kind, block * BLOCK_SECTORS, BLOCK_SECTORS);
}

function expectError(error: string | undefined, ...names: string[]): void {
  if (error === undefined || names.includes(error)) return;
  throw new Error(`Expected ${names.join(" or ")}, got ${error}`);
}

/** A file system in memory that holds a part of the disk: it fills up, and has room again. */
async function full(file: File): Promise<void> {
  const { random, tally, directory } = file;
  await run("mount", ["-t", "tmpfs", "-o", `size=${DISK_BYTES / 4}`, "vhostd-fuzz", directory]);
  try {
    Deno.writeFileSync(file.path, new Uint8Array());
    Deno.truncateSync(file.path, DISK_BYTES);
    await file.serve(async (life) => {
      const blocks = new Blocks();
      let isFull = false;
      const make = async (request: DiskRequest) => {
        const { error, data } = await askAlone(life, request);
        expectError(error, "ENOSPC");
        if (error !== undefined && (request.kind === "IN" || request.kind === "DISCARD")) {
          throw new Error(`Expected no ${error} of ${request.kind}`);
        }
        blocks.note(request, error, data);
        return error;
      };
      for (let done = 0; done < file.cases; done++) {
        const kind = random.pick(["OUT", "OUT", "OUT", "IN", "FLUSH", "WRITE_ZEROES"] as const);
        isFull = (await make(blockRequest(random, kind))) !== undefined || isFull;
        if (!isFull || !random.chance(1, 8)) continue;
        // All of it is given back; then there is room for the first block again.
        for (let block = 0; block < BLOCKS; block++) {
          if (await make(blockRequest(random, "DISCARD", block)) !== undefined) {
            throw new Error("Expected a full file system to take a discard");
          }
        }
        if (await make(blockRequest(random, "OUT")) !== undefined) {
          throw new Error("Expected room after everything was discarded");
        }
        tally.add("full file systems that had room again");
        isFull = false;
      }
    });
  } finally {
    await unmount(directory);
  }
}

/** A process that may not write beyond a place in a file: RLIMIT_FSIZE. */
async function limited(file: File): Promise<void> {
  const { random, cases } = file;
  const setLimit = (limit: string) =>
    run("prlimit", [`--pid=${Deno.pid}`, `--fsize=${limit}:unlimited`]);
  // What is there of a mapped file is written without a call that could say no.
  const isMapped = file.mode.io === "auto" && file.path.startsWith(MEMORY) &&
    file.cache === "writeback";
  try {
    await file.serve(async (life) => {
      const blocks = new Blocks();
      for (let done = 0; done < cases;) {
        const limit = random.chance(1, 3) ? Infinity : random.below(DISK_BYTES);
        await setLimit(limit === Infinity ? "unlimited" : String(limit));
        for (let i = Math.min(20, cases - done); i > 0; i--, done++) {
          const request = blockRequest(random, random.pick(KINDS));
          const { error, data } = await askAlone(life, request);
          expectError(error, "EFBIG");
          const end = (request.sector + request.sectors) * SECTOR_BYTES;
          const mayFail = ["OUT", "WRITE_ZEROES", "DISCARD"].includes(request.kind);
          if (error !== undefined && (!mayFail || end <= limit)) {
            throw new Error(`Expected no ${error} of ${request.kind} up to ${end} below ${limit}`);
          }
          if (error === undefined && request.kind === "OUT" && end > limit && !isMapped) {
            throw new Error(`Expected EFBIG of a write up to ${end} over ${limit}`);
          }
          blocks.note(request, error, data);
        }
      }
    });
  } finally {
    await setLimit("unlimited");
  }
}

/** A file that another process makes shorter, and longer again. */
async function short(file: File): Promise<void> {
  const { random, path } = file;
  await file.serve(async (life) => {
    for (let done = 0; done < file.cases; done++) {
      // Opening a mapped file waits until the device has released it, and the device runs here.
      if (random.chance(1, 6)) await Deno.truncate(path, random.below(DISK_BYTES + 1));
      const request = blockRequest(random, random.pick(KINDS));
      const { size } = Deno.statSync(path);
      const { error, data } = await askAlone(life, request);
      // Reads end with the file, also those of which a part is there.
      const isBeyond = (request.sector + request.sectors) * SECTOR_BYTES > size;
      const expected = request.kind === "IN" && isBeyond ? "ENODATA" : undefined;
      if (error !== expected) {
        throw new Error(`Expected ${expected} of ${request.kind}, got ${error}`);
      }
      if (error !== undefined && data.some((byte) => byte !== 0)) {
        throw new Error("Expected nothing of a read that failed");
      }
    }
  });
}

/** The same, while many requests are in flight on two threads: what is mapped may not be touched. */
async function shortUnderLoad(file: File): Promise<void> {
  const { random, tally, cases, path } = file;
  const use = async (life: Life) => {
    for (let done = 0; done < cases;) {
      const count = Math.min(random.between(1, 32), cases - done);
      const size = random.chance(1, 2) ? DISK_BYTES : random.below(DISK_BYTES);
      const requests = Array.from({ length: count }, async () => {
        const request = blockRequest(random, random.pick(KINDS));
        const { status } = await ask(life, request, random.below(2));
        if (status > blkStatus.IOERR) throw new Error(`Expected status 0 or 1, got ${status}`);
        tally.add(`requests while the file changed: ${status === 0 ? "done" : "failed"}`);
      });
      await Promise.all([Deno.truncate(path, size), ...requests]);
      done += count;
    }
    const { queues } = life.server.record();
    if (queues.some(({ broken }) => broken)) throw new Error("Expected healthy queues");
  };
  await file.serve(use, {}, blk, 2);
}

/** Something that is no disk, or is not open for writing, in place of the file. */
async function noDisk(file: File): Promise<void> {
  const { random, directory } = file;
  const other = `${directory}/other.img`;
  Deno.copyFileSync(file.path, other);
  const fifo = `${directory}/fifo`;
  await run("mkfifo", [fifo]);
  const { path, isWritable, errors } = random.pick([
    { path: other, isWritable: false, errors: { OUT: "EBADF", IN: undefined } },
    { path: "/dev/full", isWritable: true, errors: { OUT: "ENOSPC", IN: undefined } },
    { path: directory, isWritable: false, errors: { OUT: "EBADF", IN: "EISDIR" } },
    // With io_uring, a pipe that stays empty is one that is slow.
    ...file.mode.io === "sync"
      ? [{ path: fifo, isWritable: true, errors: { OUT: "ESPIPE", IN: "ESPIPE" } }]
      : [],
  ]);
  const use = async (life: Life) => {
    for (let done = 0; done < file.cases; done++) {
      const request = blockRequest(random, random.pick(KINDS));
      const { error, data } = await askAlone(life, request);
      if (request.kind !== "IN" && request.kind !== "OUT") continue;
      const expected = errors[request.kind];
      if (error !== expected) {
        throw new Error(`Expected ${expected} of ${request.kind} on ${path}, got ${error}`);
      }
      if (data.some((byte) => byte !== 0)) throw new Error(`Expected zeroes of ${path}`);
    }
  };
  await file.serve(use, { swapPath: path, swapWritable: isWritable }, swapped);
}

/** How long a stop may take with long requests available, in milliseconds: it waits for one of them. */
const STOP_MS = 10_000;

/** Requests of many segments, and stops in the midst of them. */
async function long(file: File): Promise<void> {
  const { random, cases } = file;
  await file.serve(async ({ driver, tally }) => {
    const disk = new BlkDriver(driver);
    for (let done = 0; done < cases;) {
      const count = Math.min(random.between(1, 64), cases - done);
      const requests = Array.from({ length: count }, () => {
        const type = random.pick([blkRequests.WRITE_ZEROES, blkRequests.DISCARD]);
        const table = new DataView(new ArrayBuffer(16 * random.between(1, 64)));
        for (let at = 0; at < table.byteLength; at += 16) {
          const sector = random.below(DISK_SECTORS / 2);
          const unmap = type === blkRequests.WRITE_ZEROES && random.chance(1, 2);
          table.setUint32(at, sector, true);
          table.setUint32(at + 8, random.below(DISK_SECTORS - sector), true);
          table.setUint32(at + 12, Number(unmap), true);
        }
        return disk.request(blkHeader(type, 0), [new Uint8Array(table.buffer)], []);
      });
      const answers = Promise.all(requests);
      answers.catch(() => {});
      if (random.chance(1, 2)) {
        const begin = performance.now();
        await driver.stop();
        const ms = performance.now() - begin;
        if (ms > STOP_MS) throw new Error(`Expected a stop within ${STOP_MS} ms, took ${ms}`);
        await driver.restart();
        tally.add("stopped and started amid long requests");
      }
      for (const { status } of await answers) {
        if (status !== blkStatus.OK) throw new Error(`Expected status 0, got ${status}`);
      }
      done += count;
    }
  });
}

const TROUBLES: Trouble[] = [
  { name: "requests of many segments", live: long },
  { name: "a file system that fills up", needsRoot: true, live: full },
  { name: "a limit to the size of files", live: limited },
  { name: "a file that gets shorter", live: short },
  { name: "a file that gets shorter under load", live: shortUnderLoad },
  { name: "a file that is no disk", live: noDisk },
];
