/**
 * The zones of a host-managed disk: their states, write pointers and resources (virtio 1.3, 5.2.6).
 *
 * All sizes are in sectors of 512 bytes. A request changes the zones when it is admitted, before its
 * data moves; so the first of two writes that come together is the first in its zone. All requests
 * run on one thread. The main thread only counts.
 *
 * @module
 */

import type { Parts } from "../../../mod.ts";
import { REFUSED } from "../request.ts";

/** Zone states: virtio 1.3, 5.2.6. Zones do not become read-only or offline: memory does not wear. */
const ZONE_STATE = {
  NOT_WP: 0,
  EMPTY: 1,
  IOPEN: 2,
  EOPEN: 3,
  CLOSED: 4,
  FULL: 14,
} as const;

const ZONE_TYPE_CONVENTIONAL = 1, ZONE_TYPE_SEQUENTIAL = 2;

/** What a request makes of a zone. */
export type ZoneOperation = "open" | "close" | "finish" | "reset";

/** How a disk is divided into zones. */
export interface ZoneLayout {
  /** The size of the disk. */
  readonly sectors: number;
  /** The size of a zone; the last one may be smaller. */
  readonly zoneSectors: number;
  /** How much of a zone can be written. */
  readonly capacitySectors: number;
  /** The number of zones at the beginning that can be written anywhere. */
  readonly conventional: number;
  /** The most zones that are open, and that are active; 0 for no limit. */
  readonly maxOpen: number;
  readonly maxActive: number;
  /** The largest append. */
  readonly maxAppendSectors: number;
  /** What writes to sequential zones are multiples of. */
  readonly granularitySectors: number;
}

/** Zones as they are counted for people. */
export type ZoneCounts = Record<
  "conventional" | "empty" | "implicitlyOpen" | "explicitlyOpen" | "closed" | "full",
  number
>;

/** struct virtio_blk_zone_report without zones, and struct virtio_blk_zone_descriptor. */
const REPORT_BYTES = 64, DESCRIPTOR_BYTES = 64;

/** The most zones in a report: the driver asks for the rest. */
const MAX_REPORTED_ZONES = 16_384;

/** The zones of a disk. */
export class Zones {
  /** How the disk is divided. */
  readonly layout: ZoneLayout;
  /** The memory: what another thread makes its own object from. */
  readonly memory: SharedArrayBuffer;
  /** The number of zones. */
  readonly count: number;
  /** How much of each zone is behind its write pointer. */
  readonly #written: Float64Array<SharedArrayBuffer>;
  readonly #states: Uint8Array<SharedArrayBuffer>;
  #active = 0;
  #open = 0;
  /** The zones that are implicitly open, in the order in which they became so; with a limit only. */
  readonly #implicit: number[] = [];
  readonly #descriptorBytes = new Uint8Array(DESCRIPTOR_BYTES);
  readonly #descriptor = new DataView(this.#descriptorBytes.buffer);

  /** Makes the zones of an empty disk, or opens a view of those in memory. */
  constructor(layout: ZoneLayout, memory?: SharedArrayBuffer) {
    this.layout = layout;
    const count = this.count = Math.ceil(layout.sectors / layout.zoneSectors);
    this.memory = memory ?? new SharedArrayBuffer(count * 9);
    this.#written = new Float64Array(this.memory, 0, count);
    this.#states = new Uint8Array(this.memory, count * 8, count);
    if (memory === undefined) {
      this.#states.fill(ZONE_STATE.EMPTY).fill(ZONE_STATE.NOT_WP, 0, layout.conventional);
    }
    for (let zone = 0; zone < count; zone++) this.#take(zone, this.#states[zone]);
  }

  /** Admits a read: a range may end in another zone only where both are conventional. */
  read(sector: number, sectors: number): number {
    return this.#isWithin(sector, sectors) ? 0 : REFUSED.ZONE_INVALID_CMD;
  }

  /** Admits a write: to a conventional zone, or to the write pointer of another one. */
  write(sector: number, sectors: number): number {
    if (!this.#isWithin(sector, sectors)) return REFUSED.ZONE_INVALID_CMD;
    const zone = this.#zoneOf(sector);
    if (sectors === 0 || this.#states[zone] === ZONE_STATE.NOT_WP) return 0;
    if (this.#states[zone] === ZONE_STATE.FULL) return REFUSED.ZONE_INVALID_CMD;
    return sector === this.#pointer(zone)
      ? this.#advance(zone, sectors)
      : REFUSED.ZONE_UNALIGNED_WP;
  }

  /**
   * Admits an append to the zone that begins at a sector.
   *
   * @returns Where it is written, or why it is refused.
   */
  append(sector: number, sectors: number): number {
    const zone = this.#zoneThatBegins(sector);
    if (
      zone < 0 || this.#states[zone] === ZONE_STATE.FULL ||
      sectors > this.layout.maxAppendSectors
    ) return REFUSED.ZONE_INVALID_CMD;
    const at = this.#pointer(zone);
    return sectors === 0 ? at : this.#advance(zone, sectors) || at;
  }

  /**
   * Changes the state of the zone that begins at a sector. As in the ZBC and ZNS standards, a zone
   * can be finished in each state; the transitions of virtio 1.3 leave out empty and closed ones.
   */
  manage(operation: ZoneOperation, sector: number): number {
    const zone = this.#zoneThatBegins(sector);
    if (zone < 0) return REFUSED.ZONE_INVALID_CMD;
    const state = this.#states[zone];
    switch (operation) {
      case "open":
        return state === ZONE_STATE.FULL
          ? REFUSED.ZONE_INVALID_CMD
          : this.#openZone(zone, ZONE_STATE.EOPEN);
      case "close":
        if (state === ZONE_STATE.EMPTY || state === ZONE_STATE.FULL) {
          return REFUSED.ZONE_INVALID_CMD;
        }
        this.#become(zone, this.#written[zone] === 0 ? ZONE_STATE.EMPTY : ZONE_STATE.CLOSED);
        return 0;
      case "finish": {
        const refused = state === ZONE_STATE.FULL ? 0 : this.#openZone(zone, ZONE_STATE.EOPEN);
        if (refused === 0) this.#become(zone, ZONE_STATE.FULL);
        return refused;
      }
      case "reset":
        this.#written[zone] = 0;
        this.#become(zone, ZONE_STATE.EMPTY);
        return 0;
    }
  }

  /** Empties all zones that have a write pointer. */
  resetAll(): void {
    for (let zone = this.layout.conventional; zone < this.count; zone++) {
      this.#written[zone] = 0;
      this.#become(zone, ZONE_STATE.EMPTY);
    }
  }

  /** Fills `bytes` bytes of data with a report from a sector on; returns 0, or why there is none. */
  report(data: Parts, bytes: number, sector: number): number {
    const room = Math.floor((bytes - REPORT_BYTES) / DESCRIPTOR_BYTES);
    if (room < 0 || !(sector < this.layout.sectors)) return REFUSED.ZONE_INVALID_CMD;
    const first = this.#zoneOf(sector);
    const zones = Math.min(room, MAX_REPORTED_ZONES, this.count - first);
    data.fill(0, 0, bytes);
    data.setU64(0, zones);
    for (let i = 0; i < zones; i++) {
      this.#describe(first + i);
      data.write(REPORT_BYTES + i * DESCRIPTOR_BYTES, this.#descriptorBytes);
    }
    return 0;
  }

  /** The sectors of a zone, from its first to its last. */
  range(sector: number): [first: number, sectors: number] {
    const { sectors, zoneSectors } = this.layout;
    const first = this.#zoneOf(sector) * zoneSectors;
    return [first, Math.min(zoneSectors, sectors - first)];
  }

  /** The zones by their state. */
  counts(): ZoneCounts {
    const counts = new Float64Array(ZONE_STATE.FULL + 1);
    for (const state of this.#states) counts[state]++;
    return {
      conventional: counts[ZONE_STATE.NOT_WP],
      empty: counts[ZONE_STATE.EMPTY],
      implicitlyOpen: counts[ZONE_STATE.IOPEN],
      explicitlyOpen: counts[ZONE_STATE.EOPEN],
      closed: counts[ZONE_STATE.CLOSED],
      full: counts[ZONE_STATE.FULL],
    };
  }

  #zoneOf(sector: number): number {
    return Math.floor(sector / this.layout.zoneSectors);
  }

  /** The sequential zone that begins at a sector, or -1. */
  #zoneThatBegins(sector: number): number {
    const zone = sector / this.layout.zoneSectors;
    return Number.isInteger(zone) && zone >= this.layout.conventional && zone < this.count
      ? zone
      : -1;
  }

  #pointer(zone: number): number {
    return zone * this.layout.zoneSectors + this.#written[zone];
  }

  #capacity(zone: number): number {
    const { sectors, zoneSectors, capacitySectors } = this.layout;
    return Math.min(capacitySectors, sectors - zone * zoneSectors);
  }

  /** Whether a range inside the disk is in one zone, or in conventional ones alone. */
  #isWithin(sector: number, sectors: number): boolean {
    const last = this.#zoneOf(sector + Math.max(sectors, 1) - 1);
    return last === this.#zoneOf(sector) || last < this.layout.conventional;
  }

  /** Moves the write pointer of a zone that is not full. */
  #advance(zone: number, sectors: number): number {
    if (sectors % this.layout.granularitySectors !== 0) return REFUSED.ZONE_UNALIGNED_WP;
    const left = this.#capacity(zone) - this.#written[zone];
    if (sectors > left) return REFUSED.ZONE_INVALID_CMD;
    const refused = this.#openZone(zone, ZONE_STATE.IOPEN);
    if (refused !== 0) return refused;
    this.#written[zone] += sectors;
    if (sectors === left) this.#become(zone, ZONE_STATE.FULL);
    return 0;
  }

  /** Opens a zone; an explicitly open one stays so. Returns 0, or which resource is short. */
  #openZone(zone: number, wanted: number): number {
    const { maxOpen, maxActive } = this.layout;
    switch (this.#states[zone]) {
      case ZONE_STATE.EOPEN:
        return 0;
      case ZONE_STATE.EMPTY:
        if (maxActive > 0 && this.#active === maxActive) return REFUSED.ZONE_ACTIVE_RESOURCE;
      // falls through
      case ZONE_STATE.CLOSED:
        if (maxOpen > 0 && this.#open === maxOpen) {
          if (this.#implicit.length === 0) return REFUSED.ZONE_OPEN_RESOURCE;
          this.#become(this.#implicit[0], ZONE_STATE.CLOSED);
        }
    }
    this.#become(zone, wanted);
    return 0;
  }

  #become(zone: number, state: number): void {
    const before = this.#states[zone];
    if (before === state) return;
    this.#states[zone] = state;
    this.#active -= Number(isActive(before));
    this.#open -= Number(isOpen(before));
    if (before === ZONE_STATE.IOPEN && this.layout.maxOpen > 0) {
      this.#implicit.splice(this.#implicit.indexOf(zone), 1);
    }
    this.#take(zone, state);
  }

  /** Takes the resources that a state needs. */
  #take(zone: number, state: number): void {
    this.#active += Number(isActive(state));
    this.#open += Number(isOpen(state));
    if (state === ZONE_STATE.IOPEN && this.layout.maxOpen > 0) this.#implicit.push(zone);
  }

  /** Describes a zone in `#descriptor`. A write pointer that means nothing is the zone's end. */
  #describe(zone: number): void {
    const view = this.#descriptor;
    const state = this.#states[zone];
    const [first, sectors] = this.range(zone * this.layout.zoneSectors);
    const isConventional = state === ZONE_STATE.NOT_WP;
    const hasPointer = !isConventional && state !== ZONE_STATE.FULL;
    view.setBigUint64(0, BigInt(isConventional ? sectors : this.#capacity(zone)), true);
    view.setBigUint64(8, BigInt(first), true);
    view.setBigUint64(16, BigInt(hasPointer ? this.#pointer(zone) : first + sectors), true);
    view.setUint8(24, isConventional ? ZONE_TYPE_CONVENTIONAL : ZONE_TYPE_SEQUENTIAL);
    view.setUint8(25, state);
  }
}

function isOpen(state: number): boolean {
  return state === ZONE_STATE.IOPEN || state === ZONE_STATE.EOPEN;
}

function isActive(state: number): boolean {
  return isOpen(state) || state === ZONE_STATE.CLOSED;
}
