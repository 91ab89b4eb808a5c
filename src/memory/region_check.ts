/**
 * What a front-end says of a region of memory, checked.
 *
 * @module
 */

import { PAGE_BYTES } from "../linux/mod.ts";
import {
  inspectMemoryFile,
  isLocalFile,
  isSealedAgainstShrinking,
} from "../linux/file/memory_file.ts";
import { MAX_REGIONS, type Region } from "./regions.ts";

/** A region as the front-end announces it. */
export interface RegionRequest {
  /** Its first guest physical address. */
  guestAddress: bigint;
  /** Its size in bytes. */
  size: bigint;
  /** Its first address in the front-end's own address space. */
  userAddress: bigint;
  /** Where it starts in the file that came with it. */
  mmapOffset: bigint;
}

/** A region that cannot be mapped or removed as asked. */
export class RegionError extends Error {
  override name = "RegionError";
}

/** A region that can be mapped. */
export interface CheckedRegion {
  /** The region, whose index is not known yet. */
  region: Omit<Region, "index">;
  /** Where in the file the first page of the mapping begins. */
  fileOffset: number;
  /** How far into that page the region begins. */
  slack: number;
  /** The size of the mapping: the region rounded out to pages. */
  mappedBytes: number;
  /** The unit in which its file is mapped. */
  pageBytes: number;
  /** Its pages cannot go away. */
  isSealed: boolean;
}

/**
 * Checks a region and its file, beside the other regions.
 *
 * @throws {RegionError} When it is empty, overlaps another one, is one too many, or its file cannot
 * be guest memory or is too short.
 */
export function checkRegion(
  request: RegionRequest,
  fd: number,
  others: readonly Omit<Region, "index">[],
): CheckedRegion {
  const guestAddress = toNumber(request.guestAddress, "guest address");
  const bytes = toNumber(request.size, "size");
  const userAddress = toNumber(request.userAddress, "user address");
  const start = toNumber(request.mmapOffset, "mmap offset");
  const name = nameOf({ guestAddress, bytes });
  if (bytes === 0) throw new RegionError(`Expected a region with a size, got ${name}`);
  if (others.length >= MAX_REGIONS) {
    throw new RegionError(`Expected at most ${MAX_REGIONS} memory regions, got one more: ${name}`);
  }
  for (const other of others) {
    if (
      overlaps(guestAddress, bytes, other.guestAddress, other.bytes) ||
      overlaps(userAddress, bytes, other.userAddress, other.bytes)
    ) {
      throw new RegionError(`Expected regions apart, got ${name} over ${nameOf(other)}`);
    }
  }
  if (!isLocalFile(fd)) {
    throw new RegionError(
      `Expected the file of region ${name} in memory or on a disk, got one of another process`,
    );
  }
  // Looked at before the size: a sealed file keeps the size that is read below.
  const isSealed = isSealedMemory(fd);
  const file = inspectMemoryFile(fd);
  if (file.kind !== "file") {
    throw new RegionError(`Expected a memory file for region ${name}, got another kind of file`);
  }
  if (file.bytes < start + bytes) {
    throw new RegionError(
      `Expected a memory file of at least ${
        start + bytes
      } bytes for region ${name}, got ${file.bytes}`,
    );
  }
  // A huge page file (its block size is the page size) maps in huge pages only.
  const pageBytes = Math.max(PAGE_BYTES, file.blockBytes);
  const slack = start % pageBytes;
  const mappedBytes = Math.ceil((slack + bytes) / pageBytes) * pageBytes;
  const region = { guestAddress, bytes, userAddress };
  return { region, fileOffset: start - slack, slack, mappedBytes, pageBytes, isSealed };
}

/**
 * Whether the pages of a file are there to stay: it is sealed, and is no huge
 * page file, which can be out of pages where the front-end gave some back.
 */
export function isSealedMemory(fd: number): boolean {
  return isSealedAgainstShrinking(fd) && inspectMemoryFile(fd).blockBytes <= PAGE_BYTES;
}

/** A region's name in messages. */
export function nameOf({ guestAddress, bytes }: Pick<Region, "guestAddress" | "bytes">): string {
  return `${hex(guestAddress)}+${hex(bytes)}`;
}

/** Whether two ranges have bytes in common. */
export function overlaps(a: number, aBytes: number, b: number, bBytes: number): boolean {
  return a < b + bBytes && b < a + aBytes;
}

function toNumber(value: bigint, what: string): number {
  if (value > 0x1f_ffff_ffff_ffffn / 2n) {
    throw new RegionError(`Expected a region's ${what} below 2^52, got ${hex(value)}`);
  }
  return Number(value);
}

/** A number in messages. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}
