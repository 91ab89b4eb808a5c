/**
 * A disk that a real guest writes: what the guest was told is done is compared in the guest and in
 * the disk's file.
 */
import { readFully } from "../lib/process.ts";
import type { Random } from "../lib/random.ts";
import type { LastingBackend } from "./backend.ts";
import { ToolError } from "../lib/tool_error.ts";

/** The unit of what a guest writes, and how many requests that are. */
export const REGION_BYTES = 2 ** 18;
const REQUEST_BYTES = 2 ** 13;
export const REQUESTS_PER_REGION = REGION_BYTES / REQUEST_BYTES;

/** What a torn write leaves is a mix of these units. */
const SECTOR_BYTES = 512;

/** What a region is full of: a line again and again, which `yes` writes. */
function lineOf(seed: number, disk: string, region: number, generation: number): string {
  return `soak ${seed} ${disk} region ${region} generation ${generation}`;
}

/** A region's bytes; of generation 0, zeroes. */
export function regionBytes(
  seed: number,
  disk: string,
  region: number,
  generation: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(REGION_BYTES);
  if (generation === 0) return bytes;
  const line = new TextEncoder().encode(lineOf(seed, disk, region, generation) + "\n");
  for (let at = 0; at < bytes.length; at += line.length) {
    bytes.set(line.subarray(0, Math.min(line.length, bytes.length - at)), at);
  }
  return bytes;
}

/** The first sector that is as none of the alternatives has it, or -1. */
export function firstWrongSector(bytes: Uint8Array, alternatives: readonly Uint8Array[]): number {
  for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
    const sector = bytes.subarray(at, at + SECTOR_BYTES);
    const isRight = alternatives.some((other) => sector.every((byte, i) => byte === other[at + i]));
    if (!isRight) return at / SECTOR_BYTES;
  }
  return -1;
}

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
  /** How often each region was written. */
  readonly #generations = new Array<number>(REGIONS).fill(0);

  constructor(
    readonly device: string,
    readonly backend: LastingBackend,
    readonly path: string,
    readonly seed: number,
    readonly random: Random,
  ) {}

  choose(count: number): RegionWrite[] {
    const regions = new Set<number>();
    while (regions.size < count) regions.add(this.random.below(REGIONS));
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
      `--randseed=${this.random.u32()} >${said} 2>&1 || { cat ${said}; false; }; }`;
  }

  #line(region: number, generation: number): string {
    return lineOf(this.seed, this.device, region, generation);
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
      generations.map((generation) => regionBytes(this.seed, this.device, region, generation)),
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
