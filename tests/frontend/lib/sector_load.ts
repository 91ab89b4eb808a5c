/**
 * A load of reads, writes, write zeroes and discards at random sectors of a disk, which verifies
 * what it reads. Neighbouring sectors belong to different lanes, so that several lanes change one
 * block at a time, each its own part.
 *
 * @module
 */

import { equals } from "@std/bytes";
import type { Random } from "../../../tools/lib/random.ts";

const SECTOR_BYTES = 512;
const BLOCK_SECTORS = 8;

/** The version of a sector that is zeroes. */
const ZEROES = -1;

/** What a load needs of a disk; each method rejects when the request fails. */
export interface SectorDisk {
  read(sector: number, count: number): Promise<Uint8Array>;
  write(sector: number, data: Uint8Array<ArrayBuffer>): Promise<void>;
  writeZeroes(sector: number, count: number, unmap: boolean): Promise<void>;
  discard(sector: number, count: number): Promise<void>;
  flush(): Promise<void>;
}

/** The content of a sector after a number of writes; of a disk that nobody wrote, version 0. */
export function sectorOf(sector: number, version: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(SECTOR_BYTES / 4);
  if (version === ZEROES) return new Uint8Array(words.buffer);
  let x = Math.imul(sector + 1, 0x9e37_79b1) ^ Math.imul(version, 0x85eb_ca6b) | 1;
  for (let i = 2; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  words[0] = sector;
  words[1] = version;
  return new Uint8Array(words.buffer);
}

/** The content of sectors that nobody wrote. */
export function untouched(sectors: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(sectors * SECTOR_BYTES);
  for (let i = 0; i < sectors; i++) bytes.set(sectorOf(i, 0), i * SECTOR_BYTES);
  return bytes;
}

/** Lanes with sectors of their own and one request at a time each. */
export class SectorLoad {
  /** For each sector the version that was flushed, and those since then; the last one is read. */
  readonly #versions: number[][];
  /** Runs of sectors, `[first, count]`, by lane. */
  readonly #runs: [number, number][][];
  readonly #random: Random;
  #latest = 0;
  #isStopping = false;
  #isOpen = Promise.resolve();
  #lanes: Promise<void> = Promise.resolve();
  /** Called after each request. */
  onRequest: () => void = () => {};

  constructor(random: Random, { sectors, lanes }: { sectors: number; lanes: number }) {
    this.#random = random;
    this.#versions = Array.from({ length: sectors }, () => [0]);
    this.#runs = Array.from({ length: lanes }, () => []);
    for (let at = 0; at < sectors;) {
      const most = random.chance(1, 8) ? 64 : 9;
      const count = Math.min(random.between(1, most), sectors - at);
      random.pick(this.#runs).push([at, count]);
      at += count;
    }
  }

  /** Starts lanes on disks, in turn. */
  start(disks: readonly SectorDisk[]): void {
    this.#isStopping = false;
    this.#lanes = Promise.all(
      this.#runs.map((runs, i) => this.#run(disks[i % disks.length], runs)),
    ).then(() => {});
    this.#lanes.catch(() => {});
  }

  /** Makes no request until the returned function is called. */
  pause(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#isOpen = promise;
    return resolve;
  }

  /** Resolves after this number of requests; rejects when a lane fails. */
  async requests(count: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.onRequest = () => {
      if (--count === 0) resolve();
    };
    await Promise.race([promise, this.#lanes.then(() => promise)]);
  }

  /** Stops, when each lane has ended its request. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#lanes;
  }

  /** Forgets the lanes: their requests never end. */
  abandon(): void {
    this.#isStopping = true;
  }

  async #run(disk: SectorDisk, runs: readonly [number, number][]): Promise<void> {
    const random = this.#random;
    while (!this.#isStopping && runs.length > 0) {
      await this.#isOpen;
      const [start, length] = random.pick(runs);
      const first = start + random.below(length);
      const count = random.between(1, start + length - first);
      await this.#request(disk, first, count);
      this.onRequest();
    }
  }

  async #request(disk: SectorDisk, first: number, count: number): Promise<void> {
    const what = this.#random.below(20);
    if (what < 8) {
      const version = ++this.#latest;
      this.#note(first, count, version);
      const data = new Uint8Array(count * SECTOR_BYTES);
      for (let i = 0; i < count; i++) data.set(sectorOf(first + i, version), i * SECTOR_BYTES);
      await disk.write(first, data);
    } else if (what < 10) {
      this.#note(first, count, ZEROES);
      await disk.writeZeroes(first, count, what === 8);
    } else if (what === 10) {
      // The overlay's promise: whole blocks are zeroes, the rest stays
      const from = Math.ceil(first / BLOCK_SECTORS) * BLOCK_SECTORS;
      const to = Math.floor((first + count) / BLOCK_SECTORS) * BLOCK_SECTORS;
      if (from < to) this.#note(from, to - from, ZEROES);
      await disk.discard(first, count);
    } else if (what === 11) {
      await this.flush(disk);
    } else {
      await this.#expect(disk, first, count);
    }
  }

  #note(first: number, count: number, version: number): void {
    for (let i = first; i < first + count; i++) this.#versions[i].push(version);
  }

  /** Flushes, after which older versions must not come back. */
  async flush(disk: SectorDisk): Promise<void> {
    // Of a request that is under way, the version before may still be the durable one
    const known = this.#versions.map((versions) => Math.max(0, versions.length - 2));
    await disk.flush();
    for (const [i, count] of known.entries()) this.#forget(this.#versions[i], count);
  }

  /** Notes that everything is flushed, with no request under way. */
  settle(): void {
    for (const versions of this.#versions) this.#forget(versions, versions.length - 1);
  }

  #forget(versions: number[], count: number): void {
    versions.splice(0, Math.min(count, versions.length - 1));
  }

  async #expect(disk: SectorDisk, first: number, count: number): Promise<void> {
    const data = await disk.read(first, count);
    for (let i = 0; i < count; i++) {
      const sector = data.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES);
      const version = this.#versions[first + i].at(-1)!;
      if (equals(sector, sectorOf(first + i, version))) continue;
      throw new Error(`Expected version ${version} of sector ${first + i}, got ${shown(sector)}`);
    }
  }

  /** Reads every sector: each has the latest version. */
  async verify(disk: SectorDisk): Promise<void> {
    const { length } = this.#versions;
    for (let at = 0; at < length; at += 64) {
      await this.#expect(disk, at, Math.min(64, length - at));
    }
  }

  /**
   * Reads every sector after a loss of power: each has the version that was flushed or a later one,
   * which is the one that it has from now on.
   */
  async verifyFlushed(disk: SectorDisk): Promise<void> {
    for (const [i, versions] of this.#versions.entries()) {
      const sector = await disk.read(i, 1);
      const found = versions.findLast((version) => equals(sector, sectorOf(i, version)));
      if (found === undefined) {
        throw new Error(
          `Expected one of the versions ${versions} of sector ${i}, got ${shown(sector)}`,
        );
      }
      this.#versions[i] = [found];
    }
  }
}

function shown(sector: Uint8Array): string {
  if (sector.every((byte) => byte === 0)) return "zeroes";
  const [number, version] = new Uint32Array(sector.slice(0, 8).buffer);
  return `what looks like version ${version} of sector ${number}`;
}
