/** What a guest's shell writes to its disks, and how the host knows it again. */

/** The unit of what a guest writes, and how many requests that are. */
export const REGION_BYTES = 2 ** 18;
export const REQUEST_BYTES = 2 ** 13;
export const REQUESTS_PER_REGION = REGION_BYTES / REQUEST_BYTES;

/** What a torn write leaves is a mix of these units. */
const SECTOR_BYTES = 512;

/** What a region is full of: a line again and again, which `yes` writes. */
export function lineOf(seed: number, disk: string, region: number, generation: number): string {
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
