/**
 * A block request as it lies in a descriptor chain: virtio 1.3, 5.2.6.
 *
 * ```c
 * struct virtio_blk_req {
 *         le32 type;
 *         le32 reserved;
 *         le64 sector;
 *         u8 data[];
 *         u8 status;
 * };
 * ```
 *
 * @module
 */

import type { Chain, HandlerResult, Parts, QueueHandle } from "../../mod.ts";
import type { StoreRequest } from "./store.ts";

/** The unit of sectors, whatever the block size: virtio 1.3, 5.2.4. */
export const SECTOR_BYTES = 512;

// virtio 1.3, 5.2.6 Device Operation
/** Request types. */
export const VIRTIO_BLK_T = {
  IN: 0,
  OUT: 1,
  FLUSH: 4,
  GET_ID: 8,
  GET_LIFETIME: 10,
  DISCARD: 11,
  WRITE_ZEROES: 13,
  SECURE_ERASE: 14,
  ZONE_APPEND: 15,
  ZONE_REPORT: 16,
  ZONE_OPEN: 18,
  ZONE_CLOSE: 20,
  ZONE_FINISH: 22,
  ZONE_RESET: 24,
  ZONE_RESET_ALL: 26,
} as const;

/** Status values. */
export const VIRTIO_BLK_S = {
  OK: 0,
  IOERR: 1,
  UNSUPP: 2,
  ZONE_INVALID_CMD: 3,
  ZONE_UNALIGNED_WP: 4,
  ZONE_OPEN_RESOURCE: 5,
  ZONE_ACTIVE_RESOURCE: 6,
} as const;

/** The device ID string: NUL-padded, not necessarily NUL-terminated. */
export const VIRTIO_BLK_ID_BYTES = 20;

const HEADER_BYTES = 16; // type, reserved, sector
const SEGMENT_BYTES = 16; // struct virtio_blk_discard_write_zeroes
const FLAG_UNMAP = 1;
const APPEND_SECTOR_BYTES = 8; // append_sector of struct virtio_blk_req_za

/** The most segments of a discard or write zeroes request that the device takes. */
export const MAX_SEGMENTS = 64;

/**
 * Why the device itself refuses a request. The outcome of a request is one of these, or what its
 * store answered: 0 or an errno.
 */
export const REFUSED = {
  /** The type, or a flag of a segment, is not supported. */
  UNSUPPORTED: -2,
  /** The chain is too short for a header. */
  SHORT_HEADER: -3,
  /** The data is not a multiple of 512 bytes, or of the size of a segment. */
  NOT_ALIGNED: -4,
  /** It goes beyond the capacity. */
  OUT_OF_RANGE: -5,
  /** It writes, and the device is read-only. */
  READ_ONLY: -6,
  /** It has no segments, too many, or too large ones. */
  SEGMENTS: -7,
  /** It has no room for what it asks for. */
  SHORT_DATA: -8,
  /** The disk is zoned, and the driver does not know that. */
  NOT_ZONED: -9,
  /** A zone does not permit it. */
  ZONE_INVALID_CMD: -10,
  ZONE_UNALIGNED_WP: -11,
  ZONE_OPEN_RESOURCE: -12,
  ZONE_ACTIVE_RESOURCE: -13,
} as const;

/** What the status byte says about an outcome. */
export function statusOf(outcome: number): number {
  if (outcome === 0) return VIRTIO_BLK_S.OK;
  if (outcome <= REFUSED.ZONE_INVALID_CMD) {
    return VIRTIO_BLK_S.ZONE_INVALID_CMD + REFUSED.ZONE_INVALID_CMD - outcome;
  }
  return outcome === REFUSED.UNSUPPORTED ? VIRTIO_BLK_S.UNSUPP : VIRTIO_BLK_S.IOERR;
}

/** Whether the data of a request of a rare type is where the device writes. */
function hasDataInWritable(type: number, readableBytes: number): boolean {
  switch (type) {
    case VIRTIO_BLK_T.GET_ID:
    case VIRTIO_BLK_T.GET_LIFETIME:
    case VIRTIO_BLK_T.ZONE_REPORT:
      return true;
    // Linux puts the segments there: the type is even, as those of reads are
    case VIRTIO_BLK_T.SECURE_ERASE:
      return readableBytes === HEADER_BYTES;
    default:
      return false;
  }
}

/**
 * The request that a chain holds. There is one for each slot of a queue, used again and again: no
 * memory is taken per request.
 */
export class Request implements StoreRequest {
  /** The chain that it came with. */
  readonly chain: Chain;
  /** The queue that it came from. */
  readonly queue: QueueHandle;
  /** The type; -1 when there was no header. */
  type = -1;
  /** The first sector. Inexact beyond 2^53, where no disk reaches: it has fewer bytes than that. */
  sector = 0;
  /** The parts with the data, and where in them it begins: without header and status. */
  data: Parts;
  dataOffset = 0;
  #dataBytes = 0;
  /** The range of the store that the current step is about. */
  offset = 0;
  bytes = 0;
  /** The current segment's flag. */
  unmap = false;
  /** How many segments there are, and how many bytes they have together. */
  segments = 0;
  segmentBytes = 0;
  /** How many bytes it has while the store does it later. */
  laterBytes = 0;
  /** Takes the result of what the store does later, of a request that is done by pieces. */
  onDone: ((result: number) => void) | undefined;
  /** Continue it after a promise of the store, made at the first one. */
  settled: ((result: number) => HandlerResult) | undefined;
  rejected: ((error: unknown) => HandlerResult) | undefined;
  /** The number of store operations needed. */
  steps = 0;
  /** The number of those that have begun. */
  step = 0;
  /** The last step makes writes durable. */
  endsWithFlush = false;
  /** Where an append is written. */
  appendedSector = 0;
  /** A copy of the segments: checked first, used later. */
  #table: DataView<ArrayBuffer> | undefined;

  /** Makes the request of a slot. */
  constructor(chain: Chain, queue: QueueHandle) {
    this.chain = chain;
    this.queue = queue;
    this.data = chain.readable;
  }

  /**
   * Reads the header, each field once, and leaves the data. The framing is the driver's choice:
   * virtio 1.3, 2.6.4.
   *
   * @returns 0, or why the request is refused.
   * @throws {Error} When the chain has no room for the status: nothing can be said about the
   * request then.
   */
  begin(): number {
    const { readable, writable } = this.chain;
    if (writable.byteLength === 0) {
      throw new Error(
        "Expected room for the status byte at the end of a block request, got no device-writable bytes (virtio 1.3, 5.2.6)",
      );
    }
    this.type = -1;
    this.sector =
      this.bytes =
      this.segments =
      this.segmentBytes =
      this.steps =
      this.step =
        0;
    this.endsWithFlush = false;
    if (readable.byteLength < HEADER_BYTES) return REFUSED.SHORT_HEADER;
    this.type = readable.u32(0);
    this.sector = readable.u64(8);
    const isRead = this.type === VIRTIO_BLK_T.IN ||
      this.type !== VIRTIO_BLK_T.OUT && hasDataInWritable(this.type, readable.byteLength);
    this.data = isRead ? writable : readable;
    this.dataOffset = isRead ? 0 : HEADER_BYTES;
    this.#dataBytes = isRead ? writable.byteLength - 1 : readable.byteLength - HEADER_BYTES;
    return 0;
  }

  /** Makes the whole data the current range; returns 0, or why it is refused. */
  takeData(leastBytes: number): number {
    this.bytes = this.#dataBytes;
    return this.bytes < leastBytes ? REFUSED.SHORT_DATA : 0;
  }

  /** Takes the data of an append; returns 0, or why it is refused. */
  takeAppend(): number {
    this.bytes = this.#dataBytes;
    if (this.bytes % SECTOR_BYTES !== 0) return REFUSED.NOT_ALIGNED;
    return this.chain.writable.byteLength > APPEND_SECTOR_BYTES ? 0 : REFUSED.SHORT_DATA;
  }

  /** Takes the range of a read or write. Returns 0, or why it is refused. */
  takeRange(capacitySectors: number): number {
    const bytes = this.#dataBytes;
    if (bytes % SECTOR_BYTES !== 0) return REFUSED.NOT_ALIGNED;
    if (this.sector > capacitySectors - bytes / SECTOR_BYTES) return REFUSED.OUT_OF_RANGE;
    this.offset = this.sector * SECTOR_BYTES;
    this.bytes = bytes;
    return 0;
  }

  /**
   * Copies and checks the segments of a discard or write zeroes request:
   *
   * ```c
   * struct virtio_blk_discard_write_zeroes {
   *        le64 sector;
   *        le32 num_sectors;
   *        struct {
   *                le32 unmap:1;
   *                le32 reserved:31;
   *        } flags;
   * };
   * ```
   *
   * @returns 0 with a step for each segment, or why the request is refused.
   */
  takeSegments(capacitySectors: number, maxSectors: number): number {
    const bytes = this.#dataBytes;
    if (bytes % SEGMENT_BYTES !== 0) return REFUSED.NOT_ALIGNED;
    const count = bytes / SEGMENT_BYTES;
    if (count === 0 || count > MAX_SEGMENTS) return REFUSED.SEGMENTS;
    const table = this.#table ??= new DataView(new ArrayBuffer(MAX_SEGMENTS * SEGMENT_BYTES));
    this.data.read(this.dataOffset, new Uint8Array(table.buffer, 0, bytes));

    // Unknown flags come first, and discards have none: virtio 1.3, 5.2.6.2
    const known = this.type === VIRTIO_BLK_T.WRITE_ZEROES ? FLAG_UNMAP : 0;
    for (let i = 0; i < count; i++) {
      if (table.getUint32(i * SEGMENT_BYTES + 12, true) & ~known) return REFUSED.UNSUPPORTED;
    }
    for (let i = 0; i < count; i++) {
      this.useSegment(i);
      const sectors = this.bytes / SECTOR_BYTES;
      if (sectors > maxSectors) return REFUSED.SEGMENTS;
      if (this.offset / SECTOR_BYTES > capacitySectors - sectors) return REFUSED.OUT_OF_RANGE;
      this.segmentBytes += this.bytes;
    }
    this.steps = this.segments = count;
    return 0;
  }

  /** Makes a segment the current range. */
  useSegment(i: number): void {
    const table = this.#table!;
    const at = i * SEGMENT_BYTES;
    const sector = table.getUint32(at, true) + table.getUint32(at + 4, true) * 2 ** 32;
    this.offset = sector * SECTOR_BYTES;
    this.bytes = table.getUint32(at + 8, true) * SECTOR_BYTES;
    this.unmap = (table.getUint32(at + 12, true) & FLAG_UNMAP) !== 0;
  }

  /** Writes the status; returns how many bytes of the chain were written. */
  end(status: number): number {
    const { writable, writableBytes } = this.chain;
    const last = writable.byteLength - 1;
    // A chain that was given up is empty.
    if (last < 0) return writableBytes;
    // The used length has to cover the status, and what it covers has to be written (virtio 1.3,
    // 2.7.8.2): room for data that got none is filled with zeroes.
    const isFilled = status === VIRTIO_BLK_S.OK && this.data === writable;
    if (!isFilled && last > 0) writable.fill(0, 0, last);
    if (this.type === VIRTIO_BLK_T.ZONE_APPEND && status === VIRTIO_BLK_S.OK) {
      writable.setU64(last - APPEND_SECTOR_BYTES, this.appendedSector);
    }
    writable.setU8(last, status);
    return writableBytes;
  }
}
