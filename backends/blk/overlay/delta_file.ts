/**
 * The file of an overlay: how it is made, and how its header and maps are read and written.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import {
  createFile,
  dataSync,
  Errno,
  errno,
  type Fd,
  fileBytes,
  fileKind,
  LinuxError,
  openFile,
  readBytes,
  readKernelFile,
  resizeFile,
  writeBytes,
  zeroRange,
} from "../../../src/linux/mod.ts";
import {
  type BaseFacts,
  decodeHeader,
  encodeHeader,
  HEADER_BYTES,
  layoutOf,
  MOST_DISK_BYTES,
  OVERLAY_BLOCK_BYTES,
  type OverlayHeader,
  SESSION_OFFSET,
  UNREADABLE,
} from "./format.ts";
import { patiently } from "../image_lock.ts";
import type { FileHandle, OpenStore } from "../store.ts";
import { OverlayMap } from "./overlay_map.ts";

/** The least that maps have room for, so that a disk can grow. */
const LEAST_ROOM_BYTES = 2 ** 36;

/** How much of a map is read at once. */
const PIECE_BYTES = 2 ** 20;

/** The boot that a live map is of: its text, and a checksum. */
const BOOT_BYTES = 36, SESSION_BYTES = BOOT_BYTES + 4;

/**
 * Makes the file of an overlay in which nothing is written yet.
 *
 * @throws {Error} When it cannot be made.
 */
export function createDelta(path: string, base: BaseFacts): void {
  if (UNREADABLE.test(path)) {
    throw new TypeError(
      `Expected a path without control characters for an overlay, which others can be laid on, got ${
        JSON.stringify(path)
      }`,
    );
  }
  const diskBytes = base.bytes;
  if (diskBytes > MOST_DISK_BYTES) {
    throw new RangeError(
      `Expected a disk of at most ${MOST_DISK_BYTES} bytes (16 TiB) below an overlay, got ${diskBytes}`,
    );
  }
  const roomBytes = Math.min(MOST_DISK_BYTES, Math.max(LEAST_ROOM_BYTES, 2 * diskBytes));
  const { dataOffset } = layoutOf(roomBytes);
  try {
    createFile(path, (fd) => {
      resizeFile(fd, dataOffset + wholeBlocks(diskBytes));
      const header = { sequence: 1, diskBytes, roomBytes, base, isCommitting: false };
      clearMaps(fd, header);
      writeBytes(fd, 0, encodeHeader(header));
    });
  } catch (error) {
    if (!(error instanceof LinuxError)) throw error;
    if (error.errno === Errno.EEXIST) {
      throw new TypeError(`Expected a path where nothing is yet, got ${path}`, { cause: error });
    }
    throw new Error(`Cannot make overlay ${path}: ${error.message}`, { cause: error });
  }
}

/**
 * Has a disk grow.
 *
 * @returns Its header.
 * @throws {TypeError} When it cannot have that size.
 * @throws {LinuxError} When there is no room for its maps.
 */
export function growDelta(
  delta: OpenStore<FileHandle>,
  header: OverlayHeader,
  diskBytes: number,
): OverlayHeader {
  const { base, roomBytes } = header;
  if (diskBytes < header.diskBytes || diskBytes > roomBytes) {
    throw new TypeError(
      `Expected ${header.diskBytes} to ${roomBytes} bytes, as an overlay grows that far and does ` +
        `not shrink, got ${diskBytes}`,
    );
  }
  if (base.bytes > header.diskBytes) {
    throw new TypeError("Expected a base no larger than the overlay, or the rest of it would show");
  }
  const { fd } = delta.handle;
  const grown = { ...header, sequence: header.sequence + 1, diskBytes };
  void delta.resize!(wholeBlocks(diskBytes));
  clearMaps(fd, grown, header.diskBytes);
  writeHeader(fd, grown);
  return grown;
}

/**
 * Empties both maps, but for those of the first `from` bytes of the disk. Their room is taken now: a
 * full file system must not keep a flush from its map.
 *
 * @throws {LinuxError} When there is none.
 */
export function clearMaps(fd: number, { diskBytes, roomBytes }: OverlayHeader, from = 0): void {
  const { liveOffset, durableOffset } = layoutOf(roomBytes);
  const kept = layoutOf(from).mapBytes;
  const used = layoutOf(diskBytes).mapBytes;
  if (used === kept) return;
  for (const offset of [durableOffset, liveOffset]) {
    if (zeroRange(fd, offset + kept, used - kept) === 0) continue;
    if (errno() !== Errno.EOPNOTSUPP) throw new LinuxError("fallocate");
    for (let at = kept; at < used; at += PIECE_BYTES) {
      writeBytes(fd, offset + at, new Uint8Array(Math.min(PIECE_BYTES, used - at)));
    }
  }
}

/** The end of the last block of a disk. */
function wholeBlocks(bytes: number): number {
  return Math.ceil(bytes / OVERLAY_BLOCK_BYTES) * OVERLAY_BLOCK_BYTES;
}

/** Opens a file to look at it. Another process that serves it in memory first gives up its lease. */
export function openToRead(path: string): Fd {
  return patiently(() => openFile(path, { nonblocking: true }));
}

/**
 * Reads and checks the header of an overlay.
 *
 * @param fd The descriptor of its open file; opened if there is none.
 * @throws {Error} When it cannot be read or is none, with the reason.
 */
export function readHeader(path: string, fd?: number): OverlayHeader {
  try {
    if (fd !== undefined) return decodeHeader(readBytes(fd, 0, 2 * HEADER_BYTES), fileBytes(fd));
    using file = openToRead(path);
    const kind = fileKind(file.number);
    if (kind !== "file") throw new Error(`it is not a file (${kind})`);
    return readHeader(path, file.number);
  } catch (error) {
    if (fd !== undefined) throw error;
    const why = error instanceof LinuxError && error.errno === Errno.ENOENT
      ? "it does not exist"
      : (error as Error).message;
    throw new Error(`Cannot open overlay ${path}: ${why}`, { cause: error });
  }
}

/** Writes a header that is durable when it returns; until then the one before it counts. */
export function writeHeader(fd: number, header: OverlayHeader): void {
  // The copy that is not the newest.
  writeBytes(fd, header.sequence % 2 === 1 ? 0 : HEADER_BYTES, encodeHeader(header));
  if (dataSync(fd) < 0) throw new LinuxError("fdatasync");
}

/** Reads the maps; a file that is to be written gets them as they are to be used. */
export function loadMap(fd: number, header: OverlayHeader, readOnly: boolean): OverlayMap {
  const { mapBytes, liveOffset, durableOffset } = layoutOf(header.roomBytes);
  const map = new OverlayMap(mapBytes);
  const used = layoutOf(header.diskBytes).mapBytes;
  const boot = readKernelFile("/proc/sys/kernel/random/boot_id").trim();
  const isThisBoot = readSession(fd) === boot;
  for (let at = 0; at < used; at += PIECE_BYTES) {
    const bytes = Math.min(PIECE_BYTES, used - at);
    const durable = words(readBytes(fd, durableOffset + at, bytes));
    const found = words(readBytes(fd, liveOffset + at, bytes));
    const live = isThisBoot ? found.map((word, i) => word | durable[i]) : durable;
    map.durable.words.set(durable, at / 4);
    map.load(live, at / 4);
    if (!readOnly && live.some((word, i) => word !== found[i])) {
      writeBytes(fd, liveOffset + at, new Uint8Array(live.buffer, live.byteOffset, bytes));
    }
  }
  if (readOnly) return map;
  if (!isThisBoot) writeSession(fd, boot);
  map.noteDifferences();
  return map;
}

function words(bytes: Uint8Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

/** The boot that the live map is of; undefined where none is named. */
function readSession(fd: number): string | undefined {
  const bytes = readBytes(fd, SESSION_OFFSET, SESSION_BYTES);
  if (bytes.length < SESSION_BYTES) return undefined;
  const text = bytes.subarray(0, BOOT_BYTES);
  const sum = new DataView(bytes.buffer, bytes.byteOffset).getUint32(BOOT_BYTES, true);
  return crc32(text) === sum ? new TextDecoder().decode(text) : undefined;
}

function writeSession(fd: number, boot: string): void {
  const bytes = new Uint8Array(SESSION_BYTES);
  new TextEncoder().encodeInto(boot, bytes);
  new DataView(bytes.buffer).setUint32(BOOT_BYTES, crc32(bytes.subarray(0, BOOT_BYTES)), true);
  writeBytes(fd, SESSION_OFFSET, bytes);
}
