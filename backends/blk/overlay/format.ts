/**
 * The file of an overlay.
 *
 * ```
 * 0        header, then its other copy: the newer one that is whole counts
 * 8192     the boot that the live map is of
 * 16384    live map: a bit for each block that is in this file and not in the base
 * …        durable map: those of them whose data is durable
 * …        the disk, block n at its own place, from a multiple of 1 MiB on
 * ```
 *
 * Data goes first, then its bit in the live map, which a process that is killed leaves as it is in
 * the page cache. Without power the kernel may have written a bit and not its data. So the live map
 * counts only until the machine is started anew; then the durable map does, which gets a bit only
 * after its data was made durable.
 *
 * Numbers are little-endian.
 *
 * @module
 */

import { crc32 } from "node:zlib";

/** The unit of the map, in bytes. */
export const OVERLAY_BLOCK_BYTES = 4096;

/** The unit in which maps are written, in bytes. */
export const MAP_PAGE_BYTES = 4096;

/** Where the boot of the live map is. */
export const SESSION_OFFSET = 8192;

/** The most bytes of a disk: 2^32 blocks. */
export const MOST_DISK_BYTES = 2 ** 44;

export const HEADER_BYTES = 4096;
const LIVE_OFFSET = 16384;
const DATA_ALIGN_BYTES = 2 ** 20;

/** What the file begins with. */
export const OVERLAY_MAGIC = "vhostdov";
/** Version 1 did not say what its base is. */
const VERSION = 2;

// Places in the header.
const AT_VERSION = 8, AT_SEQUENCE = 12, AT_DISK = 16, AT_ROOM = 24, AT_BASE = 32;
const AT_STATE = 40, AT_NAME_LENGTH = 44, AT_IDENTITY_LENGTH = 46, AT_FORMAT = 48, AT_TEXT = 64;
const AT_CHECKSUM = HEADER_BYTES - 4;

/** The most bytes of the base's name and of its identity together. */
const TEXT_BYTES = AT_CHECKSUM - AT_TEXT;

/** What a base can be, as numbered in the header: 0 is none. */
const FORMATS = [undefined, "raw", "overlay"] as const;

/** What a base must be for its overlay to be used. */
export interface BaseFacts {
  /** The base as it was named, a file by its whole path. */
  readonly name: string;
  /**
   * Whether it is an overlay too. Only the person who names it decides that: a guest can write to
   * its raw disk what an overlay begins with, and name any base there.
   */
  readonly format: "raw" | "overlay";
  /** Its size. */
  readonly bytes: number;
  /** What changes when its content does; empty where nothing tells. */
  readonly identity: string;
}

/** What the header says. */
export interface OverlayHeader {
  /** Which of the two copies is the newer one. */
  readonly sequence: number;
  /** The size of the disk. */
  readonly diskBytes: number;
  /** The largest size that the maps have room for. */
  readonly roomBytes: number;
  readonly base: BaseFacts;
  /** Whether its blocks are being written to the base, which has changed by that. */
  readonly isCommitting: boolean;
}

/** Where things are in the file. */
export interface OverlayLayout {
  /** The size of a map. */
  readonly mapBytes: number;
  readonly liveOffset: number;
  readonly durableOffset: number;
  /** Where the disk begins. */
  readonly dataOffset: number;
}

/** Where things are in the file of an overlay whose maps have this much room. */
export function layoutOf(roomBytes: number): OverlayLayout {
  const pageCovers = MAP_PAGE_BYTES * 8 * OVERLAY_BLOCK_BYTES;
  const mapBytes = Math.ceil(roomBytes / pageCovers) * MAP_PAGE_BYTES;
  const durableOffset = LIVE_OFFSET + mapBytes;
  const dataOffset = Math.ceil((durableOffset + mapBytes) / DATA_ALIGN_BYTES) * DATA_ALIGN_BYTES;
  return { mapBytes, liveOffset: LIVE_OFFSET, durableOffset, dataOffset };
}

/** Writes a header. */
export function encodeHeader(header: OverlayHeader): Uint8Array<ArrayBuffer> {
  const { base } = header;
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  const encoder = new TextEncoder();
  const name = encoder.encode(base.name), identity = encoder.encode(base.identity);
  if (name.length + identity.length > TEXT_BYTES) {
    throw new RangeError(
      `Expected a base whose name and identity have at most ${TEXT_BYTES} bytes, got ` +
        (name.length + identity.length),
    );
  }
  const unreadable = [base.name, base.identity].find((text) => UNREADABLE.test(text));
  if (unreadable !== undefined) {
    throw new RangeError(
      "Expected a base whose name, and identity if any, is text without control characters, got " +
        JSON.stringify(unreadable),
    );
  }
  encoder.encodeInto(OVERLAY_MAGIC, bytes);
  view.setUint32(AT_VERSION, VERSION, true);
  view.setUint32(AT_SEQUENCE, header.sequence, true);
  view.setBigUint64(AT_DISK, BigInt(header.diskBytes), true);
  view.setBigUint64(AT_ROOM, BigInt(header.roomBytes), true);
  view.setBigUint64(AT_BASE, BigInt(base.bytes), true);
  view.setUint32(AT_STATE, Number(header.isCommitting), true);
  view.setUint16(AT_NAME_LENGTH, name.length, true);
  view.setUint16(AT_IDENTITY_LENGTH, identity.length, true);
  view.setUint32(AT_FORMAT, FORMATS.indexOf(base.format), true);
  bytes.set(name, AT_TEXT);
  bytes.set(identity, AT_TEXT + name.length);
  view.setUint32(AT_CHECKSUM, crc32(bytes.subarray(0, AT_CHECKSUM)), true);
  return bytes;
}

/**
 * Reads the newer whole one of the two copies of a header.
 *
 * @param bytes The file's first bytes.
 * @param fileBytes The size of the file.
 * @throws {Error} When there is none, or a field of it makes no sense.
 */
export function decodeHeader(bytes: Uint8Array<ArrayBuffer>, fileBytes: number): OverlayHeader {
  if (!isOverlay(bytes)) throw new Error("it is not an overlay");
  const copies = [bytes.subarray(0, HEADER_BYTES), bytes.subarray(HEADER_BYTES, 2 * HEADER_BYTES)]
    .filter(isWhole).map(decodeCopy).sort((a, b) => b.sequence - a.sequence);
  if (copies.length === 0) throw new Error("its header is damaged");
  const [header] = copies;
  const { dataOffset } = layoutOf(header.roomBytes);
  if (fileBytes < dataOffset + header.diskBytes) {
    throw new Error(
      `it is cut off: expected ${dataOffset + header.diskBytes} bytes, got ${fileBytes}`,
    );
  }
  return header;
}

/** What no name has: control characters, and bytes that are no UTF-8. */
// deno-lint-ignore no-control-regex
export const UNREADABLE = /[\0-\x1f\x7f\ufffd]/;

/** Whether a file begins as an overlay does. */
export function isOverlay(bytes: Uint8Array): boolean {
  return [...OVERLAY_MAGIC].every((letter, i) => bytes[i] === letter.charCodeAt(0));
}

function isWhole(bytes: Uint8Array<ArrayBuffer>): boolean {
  if (bytes.length < HEADER_BYTES || !isOverlay(bytes)) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  return view.getUint32(AT_CHECKSUM, true) === crc32(bytes.subarray(0, AT_CHECKSUM));
}

function decodeCopy(bytes: Uint8Array<ArrayBuffer>): OverlayHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  const version = view.getUint32(AT_VERSION, true);
  if (version !== VERSION) {
    throw new Error(
      `it is of version ${version}, and this program reads version ${VERSION}; ` +
        "commit it by the vhostd that made it, and make it again",
    );
  }
  const size = (at: number, name: string, least: number, most: number) => {
    const value = Number(view.getBigUint64(at, true));
    if (value % 512 === 0 && value >= least && value <= most) return value;
    throw new Error(`its header is damaged: it has ${value} bytes of ${name}`);
  };
  const diskBytes = size(AT_DISK, "disk", 512, MOST_DISK_BYTES);
  const roomBytes = size(AT_ROOM, "room", diskBytes, MOST_DISK_BYTES);
  const baseBytes = size(AT_BASE, "base", 0, Number.MAX_SAFE_INTEGER);
  const state = view.getUint32(AT_STATE, true);
  const nameEnd = AT_TEXT + view.getUint16(AT_NAME_LENGTH, true);
  const identityEnd = nameEnd + view.getUint16(AT_IDENTITY_LENGTH, true);
  const format = FORMATS[view.getUint32(AT_FORMAT, true)];
  if (identityEnd > AT_CHECKSUM || state > 1 || format === undefined) {
    throw new Error("its header is damaged");
  }
  const text = (from: number, to: number) => {
    const text = new TextDecoder().decode(bytes.subarray(from, to));
    if (UNREADABLE.test(text)) {
      throw new Error("its header is damaged: no name of a base");
    }
    return text;
  };
  const name = text(AT_TEXT, nameEnd);
  return {
    sequence: view.getUint32(AT_SEQUENCE, true),
    ...{ diskBytes, roomBytes, isCommitting: state === 1 },
    base: { name, format, bytes: baseBytes, identity: text(nameEnd, identityEnd) },
  };
}
