/** A disk as the standard describes it, in a few lines and without a device: virtio 1.3, 5.2.6. */

const SECTOR_BYTES = 512, SEGMENT_BYTES = 16, HEADER_BYTES = 16, ID_BYTES = 20;

export const IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13;
export const GET_LIFETIME = 10, SECURE_ERASE = 14;

const OK = 0, IOERR = 1, UNSUPP = 2;

const MAX_SEGMENTS = 64;

/** What a disk is. */
export interface DiskTraits {
  readOnly: boolean;
  discard: boolean;
  /** Discards make zeroes of whole blocks of so many bytes, and leave parts of others. */
  discardBytes: number;
  writeZeroes: boolean;
  secureErase: boolean;
  /** What struct virtio_blk_lifetime holds, if it has that. */
  lifetime?: readonly number[];
  serial: string;
  maxDiscardSectors: number;
  maxWriteZeroesSectors: number;
  /** It has zones: what it answers is not known here. */
  zoned: boolean;
  /** Reads give back what was written; else what they give is not looked at. */
  remembers: boolean;
}

/** What has to come back. */
export interface DiskAnswer {
  /** Undefined where it may be any. */
  status: number | undefined;
  /** The bytes before the status; undefined where they may be anything. */
  data: Uint8Array | undefined;
}

export class DiskModel {
  content: Uint8Array<ArrayBuffer>;

  constructor(bytes: number, readonly traits: DiskTraits) {
    this.content = new Uint8Array(bytes);
  }

  get sectors(): number {
    return this.content.length / SECTOR_BYTES;
  }

  /** What was there stays, as far as there is room. */
  resize(bytes: number): void {
    const old = this.content;
    this.content = new Uint8Array(bytes);
    this.content.set(old.subarray(0, bytes));
  }

  /** Carries a request out: its readable bytes, and room for so many before the status. */
  answer(readable: Uint8Array, room: number): DiskAnswer {
    // What a failed request could have filled is zero.
    if (this.traits.zoned) return { status: undefined, data: undefined };
    const failed = (status: number) => ({ status, data: new Uint8Array(room) });
    if (readable.length < HEADER_BYTES) return failed(IOERR);
    const view = new DataView(readable.buffer, readable.byteOffset, readable.length);
    const type = view.getUint32(0, true);
    const sector = view.getBigUint64(8, true);
    const payload = readable.subarray(HEADER_BYTES);
    const { traits } = this;
    switch (type) {
      case IN: {
        const range = this.#range(sector, room);
        if (range === undefined) return failed(IOERR);
        return { status: OK, data: traits.remembers ? range.slice() : undefined };
      }
      case OUT: {
        const range = this.#range(sector, payload.length);
        if (traits.readOnly || range === undefined) return failed(IOERR);
        range.set(payload);
        return failed(OK);
      }
      case FLUSH:
        return failed(OK);
      case GET_ID: {
        const data = new Uint8Array(room);
        const id = new TextEncoder().encode(traits.serial);
        data.set(id.subarray(0, Math.min(room, ID_BYTES)));
        return { status: OK, data };
      }
      case DISCARD:
        if (!traits.discard) return failed(UNSUPP);
        return failed(this.#clear(payload, traits.maxDiscardSectors, 0, traits.discardBytes));
      case WRITE_ZEROES:
        if (!traits.writeZeroes) return failed(UNSUPP);
        return failed(this.#clear(payload, traits.maxWriteZeroesSectors, 1));
      case SECURE_ERASE:
        if (!traits.secureErase) return failed(UNSUPP);
        return failed(this.#clear(payload, traits.maxDiscardSectors, 0));
      case GET_LIFETIME: {
        if (traits.lifetime === undefined) return failed(UNSUPP);
        if (room < 6) return failed(IOERR);
        const data = new Uint8Array(room);
        traits.lifetime.forEach((value, i) => data[2 * i] = value);
        return { status: OK, data };
      }
      default:
        return failed(UNSUPP);
    }
  }

  #range(sector: bigint, bytes: number): Uint8Array | undefined {
    if (bytes % SECTOR_BYTES !== 0) return undefined;
    const end = sector + BigInt(bytes / SECTOR_BYTES);
    if (end > BigInt(this.sectors)) return undefined;
    return this.content.subarray(Number(sector) * SECTOR_BYTES, Number(end) * SECTOR_BYTES);
  }

  /** Makes segments zero, all of them or none. */
  #clear(payload: Uint8Array, maxSectors: number, knownFlags: number, unit = 1): number {
    const count = payload.length / SEGMENT_BYTES;
    if (!Number.isInteger(count) || count === 0 || count > MAX_SEGMENTS) return IOERR;
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    const segments = Array.from({ length: count }, (_, i) => ({
      sector: view.getBigUint64(i * SEGMENT_BYTES, true),
      sectors: view.getUint32(i * SEGMENT_BYTES + 8, true),
      flags: view.getUint32(i * SEGMENT_BYTES + 12, true),
    }));
    if (segments.some(({ flags }) => (flags & ~knownFlags) !== 0)) return UNSUPP;
    const ranges = segments.map(({ sector, sectors }) =>
      sectors > maxSectors ? undefined : this.#range(sector, sectors * SECTOR_BYTES)
    );
    if (ranges.includes(undefined)) return IOERR;
    for (const range of ranges) {
      const { byteOffset, length } = range!;
      const first = Math.ceil(byteOffset / unit) * unit;
      this.content.fill(0, first, Math.floor((byteOffset + length) / unit) * unit);
    }
    return OK;
  }
}
