import { concat } from "@std/bytes";
import type { RequestOptions } from "./request_queue.ts";
import type { VirtioDriver } from "./virtio_driver.ts";

/** Request types: virtio 1.3, 5.2.6. */
export const blkRequests = {
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

/** Status values: virtio 1.3, 5.2.6. */
export const blkStatus = {
  OK: 0,
  IOERR: 1,
  UNSUPP: 2,
  ZONE_INVALID_CMD: 3,
  ZONE_UNALIGNED_WP: 4,
  ZONE_OPEN_RESOURCE: 5,
  ZONE_ACTIVE_RESOURCE: 6,
} as const;

const HEADER_BYTES = 16;
const SEGMENT_BYTES = 16;
const ID_BYTES = 20;
const LIFETIME_BYTES = 6;
const APPEND_SECTOR_BYTES = 8;
const ZONE_BYTES = 64; // of a descriptor, and of what comes before the first one
const UNMAP = 1;

/** The unit of sector numbers and sizes, whatever the block size: virtio 1.3, 5.2.6. */
export const SECTOR_BYTES = 512;

/** How a block request is made. */
export interface BlkOptions extends RequestOptions {
  /**
   * Index of the virtqueue.
   *
   * @default {0}
   */
  queue?: number;
  /**
   * The size in bytes of each part that the data is divided into.
   *
   * @default {one part}
   */
  parts?: readonly number[];
}

/** What became of a block request. */
export interface BlkResult {
  /** See {@linkcode blkStatus}; 255 if the device wrote none. */
  status: number;
  /** What was read, a copy; empty if nothing is to be read. */
  data: Uint8Array<ArrayBuffer>;
  /** How many bytes the device says it wrote, the status among them. */
  written: number;
}

/** A zone of a zoned disk, in sectors: virtio 1.3, 5.2.6. */
export interface BlkZone {
  /** Its first sector. */
  start: number;
  /** How much of it can be written. */
  capacity: number;
  /** The next sector to be written; of a full or conventional zone, any number. */
  writePointer: number;
  /** 1: conventional, 2: sequential writes required. */
  type: number;
  /** 0: no write pointer, 1: empty, 2: implicitly open, 3: explicitly open, 4: closed, 14: full. */
  state: number;
}

/** The header of a request: virtio 1.3, 5.2.6. */
export function blkHeader(type: number, sector: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setBigUint64(8, BigInt(sector), true);
  return bytes;
}

/**
 * Block requests over a {@linkcode VirtioDriver}: virtio 1.3, 5.2.6. A device's failure is a
 * status, not an error.
 *
 * @example
 * ```ts ignore
 * import { BlkDriver, VirtioDriver } from "@vhostd/vhostd/frontend";
 *
 * await using driver = await VirtioDriver.start("/tmp/blk.sock");
 * const blk = new BlkDriver(driver);
 * await blk.write(0, new Uint8Array(4096).fill(1));
 * const { status, data } = await blk.read(0, 4096);
 * console.log(await blk.capacitySectors(), status, data);
 * ```
 */
export class BlkDriver {
  readonly #driver: VirtioDriver;

  /**
   * Speaks to a block device.
   *
   * @param driver A started driver; stays the caller's
   */
  constructor(driver: VirtioDriver) {
    this.#driver = driver;
  }

  /** The device's size, in sectors of 512 bytes: virtio 1.3, 5.2.4. */
  async capacitySectors(): Promise<number> {
    return Number(await this.#driver.config.u64(0));
  }

  /** Reads `bytes` bytes from a sector. */
  read(sector: number, bytes: number, options: BlkOptions = {}): Promise<BlkResult> {
    return this.request(blkHeader(blkRequests.IN, sector), [], options.parts ?? [bytes], options);
  }

  /** Writes data to a sector. */
  write(sector: number, data: Uint8Array, options: BlkOptions = {}): Promise<BlkResult> {
    let at = 0;
    const parts = (options.parts ?? [data.length]).map((bytes) => data.subarray(at, at += bytes));
    return this.request(blkHeader(blkRequests.OUT, sector), parts, [], options);
  }

  /** Makes completed writes durable. */
  flush(options: BlkOptions = {}): Promise<BlkResult> {
    return this.request(blkHeader(blkRequests.FLUSH, 0), [], [], options);
  }

  /** Discards sectors: their content is not needed any more. */
  discard(sector: number, sectors: number, options: BlkOptions = {}): Promise<BlkResult> {
    return this.#range(blkRequests.DISCARD, sector, sectors, 0, options);
  }

  /** Writes zeroes to sectors; with `unmap`, their room may be given back. */
  writeZeroes(
    sector: number,
    sectors: number,
    options: BlkOptions & { unmap?: boolean } = {},
  ): Promise<BlkResult> {
    const flags = options.unmap ? UNMAP : 0;
    return this.#range(blkRequests.WRITE_ZEROES, sector, sectors, flags, options);
  }

  /** Erases sectors beyond recovery. */
  secureErase(sector: number, sectors: number, options: BlkOptions = {}): Promise<BlkResult> {
    return this.#range(blkRequests.SECURE_ERASE, sector, sectors, 0, options);
  }

  /** Appends data to the zone that begins at a sector; `sector` is where it was written. */
  async zoneAppend(
    zone: number,
    data: Uint8Array,
    options: BlkOptions = {},
  ): Promise<BlkResult & { sector: number }> {
    const header = blkHeader(blkRequests.ZONE_APPEND, zone);
    const result = await this.request(header, [data], [APPEND_SECTOR_BYTES], options);
    return { ...result, sector: Number(viewOf(result.data).getBigUint64(0, true)) };
  }

  /** Opens, closes, finishes or resets the zone that begins at a sector, or resets all zones. */
  manageZone(
    operation: "OPEN" | "CLOSE" | "FINISH" | "RESET" | "RESET_ALL",
    zone: number = 0,
    options: BlkOptions = {},
  ): Promise<BlkResult> {
    return this.request(blkHeader(blkRequests[`ZONE_${operation}`], zone), [], [], options);
  }

  /** Reports up to `most` zones from the one with a sector on. */
  async reportZones(
    sector: number,
    most: number,
    options: BlkOptions = {},
  ): Promise<BlkResult & { zones: BlkZone[] }> {
    const header = blkHeader(blkRequests.ZONE_REPORT, sector);
    const result = await this.request(header, [], [ZONE_BYTES * (most + 1)], options);
    const view = viewOf(result.data);
    const count = result.data.length < ZONE_BYTES ? 0 : Number(view.getBigUint64(0, true));
    const zones = Array.from({ length: Math.min(count, most) }, (_, i) => {
      const at = ZONE_BYTES * (i + 1);
      const u64 = (offset: number) => Number(view.getBigUint64(at + offset, true));
      const [type, state] = [view.getUint8(at + 24), view.getUint8(at + 25)];
      return { capacity: u64(0), start: u64(8), writePointer: u64(16), type, state };
    });
    return { ...result, zones };
  }

  #range(
    type: number,
    sector: number,
    sectors: number,
    flags: number,
    options: BlkOptions,
  ): Promise<BlkResult> {
    const segment = new Uint8Array(SEGMENT_BYTES);
    const view = new DataView(segment.buffer);
    view.setBigUint64(0, BigInt(sector), true);
    view.setUint32(8, sectors, true);
    view.setUint32(12, flags, true);
    return this.request(blkHeader(type, 0), [segment], [], options);
  }

  /** The device's serial number, up to its first zero byte, at most 20 bytes. */
  async getId(options: BlkOptions = {}): Promise<BlkResult & { id: string }> {
    const result = await this.request(blkHeader(blkRequests.GET_ID, 0), [], [ID_BYTES], options);
    const end = result.data.indexOf(0);
    const id = result.data.subarray(0, end < 0 ? ID_BYTES : end);
    return { ...result, id: new TextDecoder().decode(id) };
  }

  /** How worn the device's storage is: `pre_eol_info`, and the estimates of types A and B. */
  async getLifetime(options: BlkOptions = {}): Promise<BlkResult & { lifetime: number[] }> {
    const header = blkHeader(blkRequests.GET_LIFETIME, 0);
    const result = await this.request(header, [], [LIFETIME_BYTES], options);
    const view = viewOf(result.data);
    return { ...result, lifetime: [0, 2, 4].map((at) => view.getUint16(at, true)) };
  }

  /**
   * Makes any request.
   *
   * @param header Its header
   * @param readable What follows it that the device reads
   * @param writableBytes The size of each part that the device writes before the status
   */
  async request(
    header: Uint8Array,
    readable: readonly Uint8Array[],
    writableBytes: readonly number[],
    options: BlkOptions = {},
  ): Promise<BlkResult> {
    const { queue = 0 } = options;
    const { written, data } = await this.#driver.request(
      queue,
      [header, ...readable],
      [...writableBytes, 1],
      options,
    );
    const [status] = data.pop()!;
    return { status, data: concat(data), written };
  }
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
