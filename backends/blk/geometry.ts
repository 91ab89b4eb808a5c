/**
 * The disk's geometry, for drivers that still address by cylinder, head and sector. Guessed as QEMU
 * guesses it, so that a system that was installed on one boots on the other.
 *
 * @module
 */

/** A disk-style geometry: virtio 1.3, 5.2.4. */
export interface Geometry {
  cylinders: number;
  heads: number;
  sectors: number;
}

// The partition table of a master boot record
const SIGNATURE = 510, TABLE = 446, ENTRY_BYTES = 16, ENTRIES = 4;
const END_HEAD = 5, END_SECTOR = 6, SECTOR_COUNT = 12;

/** The largest geometry of an ATA disk: 8 GB, whatever the disk has beyond. */
const MAX_CYLINDERS = 16_383, MAX_HEADS = 16, MAX_TRACK_SECTORS = 63;

/**
 * Guesses the geometry of a disk: its partition table's, else that of an ATA disk of its size.
 *
 * @param sectors The size, in sectors of 512 bytes.
 * @param blockSectors The sectors of a logical block: tracks hold whole blocks.
 * @param first The disk's first bytes, where they can be had.
 * @returns Nothing where a track cannot hold a block.
 */
export function guessGeometry(
  sectors: number,
  blockSectors: number,
  first?: Uint8Array,
): Geometry | undefined {
  const { heads, sectors: track } = partitionGeometry(sectors, first) ??
    { heads: MAX_HEADS, sectors: MAX_TRACK_SECTORS };
  const cylinders = Math.floor(sectors / (heads * track));
  const wholeBlocks = track - track % blockSectors;
  if (wholeBlocks === 0) return undefined;
  return {
    cylinders: Math.min(Math.max(cylinders, 2), MAX_CYLINDERS),
    heads,
    sectors: wholeBlocks,
  };
}

/** The geometry with which a partition ends at the end of a cylinder. */
function partitionGeometry(
  diskSectors: number,
  first?: Uint8Array,
): Omit<Geometry, "cylinders"> | undefined {
  if (first === undefined || first.length < SIGNATURE + 2) return undefined;
  const view = new DataView(first.buffer, first.byteOffset, first.byteLength);
  if (view.getUint16(SIGNATURE, true) !== 0xaa55) return undefined;
  for (let i = 0; i < ENTRIES; i++) {
    const at = TABLE + i * ENTRY_BYTES;
    const heads = view.getUint8(at + END_HEAD) + 1;
    const sectors = view.getUint8(at + END_SECTOR) & 63;
    const cylinders = diskSectors / (heads * sectors);
    if (view.getUint32(at + SECTOR_COUNT, true) === 0 || heads === 1 || sectors === 0) continue;
    if (cylinders < 1 || cylinders >= MAX_CYLINDERS + 1) continue;
    // More heads are a BIOS's translation: the disk itself has a common geometry
    return heads <= MAX_HEADS ? { heads, sectors } : undefined;
  }
  return undefined;
}
