/**
 * A disk that a real guest writes: what the guest was told is done is compared in the guest and in
 * the disk's file.
 */
import { readFully } from "../lib/process.ts";
import type { Random } from "../lib/random.ts";
import type { LastingBackend } from "./backend.ts";
import {
  firstWrongSector,
  lineOf,
  REGION_BYTES,
  regionBytes,
  REQUEST_BYTES,
  REQUESTS_PER_REGION,
} from "./regions.ts";
import { ToolError } from "../lib/tool_error.ts";

const REGIONS = 32;

/** Behind the regions fio writes and reads at random, many requests at a time. */
const FIO_BYTES = 2 ** 22;
const FIO_BLOCK_BYTES = 4096;

/** How many requests fio makes, and how many bytes it compares. */
export const FIO_REQUESTS = 2 * FIO_BYTES / FIO_BLOCK_BYTES;
export const FIO_CHECKED_BYTES = FIO_BYTES;

/** The size of a guest's disk. */
export const GUEST_DISK_BYTES = REGIONS * REGION_BYTES + FIO_BYTES;

/** Where the guest has fio. */
export const FIO_MOUNT = "/fio";
const FIO = `${FIO_MOUNT}/fio`;

export interface RegionWrite {
  region: number;
  generation: number;
}

export class GuestDisk {
  /** The guest's name of it, such as `vda`. */
  readonly device: string;
  readonly backend: LastingBackend;
  readonly path: string;
  readonly #seed: number;
  readonly #random: Random;
  /** How often each region was written. */
  readonly #generations = new Array<number>(REGIONS).fill(0);

  constructor(device: string, backend: LastingBackend, path: string, seed: number, random: Random) {
    this.device = device;
    this.backend = backend;
    this.path = path;
    this.#seed = seed;
    this.#random = random;
  }

  choose(count: number): RegionWrite[] {
    const regions = new Set<number>();
    while (regions.size < count) regions.add(this.#random.below(REGIONS));
    return [...regions].map((region) => ({ region, generation: this.#generations[region] + 1 }));
  }

  /** A shell command that writes a region past the page cache. */
  writing({ region, generation }: RegionWrite): string {
    const want = `/tmp/${this.device}-${region}`;
    return `yes "${this.#line(region, generation)}" | head -c ${REGION_BYTES} >${want}; ` +
      `dd if=${want} of=/dev/${this.device} bs=${REQUEST_BYTES} oflag=direct conv=fsync ` +
      `seek=${region * REQUESTS_PER_REGION} 2>/tmp/${this.device}.said`;
  }

  /** A shell command that writes a region, reads it and compares. */
  writingAndReading(write: RegionWrite): string {
    const want = `/tmp/${this.device}-${write.region}`;
    return `{ ${this.writing(write)} && ` +
      `dd if=/dev/${this.device} bs=${REQUEST_BYTES} iflag=direct count=${REQUESTS_PER_REGION} ` +
      `skip=${write.region * REQUESTS_PER_REGION} 2>/tmp/${this.device}.said | cmp - ${want} && ` +
      `rm ${want} || { cat /tmp/${this.device}.said; false; }; }`;
  }

  /** A shell command that has fio write and compare what is behind the regions. */
  fio(): string {
    const said = `/tmp/${this.device}.fio`;
    return `{ ${FIO} --name=v --filename=/dev/${this.device} --offset=${REGIONS * REGION_BYTES} ` +
      `--size=${FIO_BYTES} --direct=1 --rw=randwrite --bs=${FIO_BLOCK_BYTES} --ioengine=libaio ` +
      `--iodepth=32 --verify=crc32c --verify_fatal=1 --do_verify=1 ` +
      `--randseed=${this.#random.u32()} >${said} 2>&1 || { cat ${said}; false; }; }`;
  }

  #line(region: number, generation: number): string {
    return lineOf(this.#seed, this.device, region, generation);
  }

  /** The guest was told that a write is done. Returns how many bytes the file has of it. */
  async wrote({ region, generation }: RegionWrite): Promise<number> {
    this.#generations[region] = generation;
    return await this.check(region);
  }

  /** The guest was interrupted in a write: each sector is as before, or as written. */
  mayHaveWrote({ region, generation }: RegionWrite): Promise<number> {
    return this.check(region, generation);
  }

  async check(region: number, orGeneration?: number): Promise<number> {
    const bytes = new Uint8Array(REGION_BYTES);
    using file = await Deno.open(this.path);
    await file.seek(region * REGION_BYTES, Deno.SeekMode.Start);
    if (await readFully(file, bytes) < bytes.length) {
      throw new ToolError(`${this.path} ends in region ${region}`);
    }
    const generations = [this.#generations[region]];
    if (orGeneration !== undefined) generations.push(orGeneration);
    const sector = firstWrongSector(
      bytes,
      generations.map((generation) => regionBytes(this.#seed, this.device, region, generation)),
    );
    if (sector < 0) return REGION_BYTES;
    throw new ToolError(
      `Sector ${sector} of region ${region} of the guest's ${this.device} is not of generation ${
        generations.join(" or ")
      }`,
    );
  }

  async checkAll(): Promise<number> {
    let checked = 0;
    for (let region = 0; region < REGIONS; region++) checked += await this.check(region);
    return checked;
  }
}
