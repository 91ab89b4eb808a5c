/**
 * Counts of reads and writes by their place on the disk.
 *
 * @module
 */

import { VIRTIO_BLK_T } from "./request.ts";

/** Number of places: equal parts of the disk. */
export const PLACES = 512;

/** Numbers of reads and writes, by place. */
export interface Heat {
  reads: number[];
  writes: number[];
}

/** The memory of a queue's counts. */
export const HEAT_BYTES: number = 2 * PLACES * 4;

/** The counts of a queue, whose thread is their one writer. */
export class HeatMap {
  readonly #counts: Uint32Array<SharedArrayBuffer>;

  /** Opens a view of {@linkcode HEAT_BYTES} of memory. */
  constructor(memory: SharedArrayBuffer, offset: number) {
    this.#counts = new Uint32Array(memory, offset, 2 * PLACES);
  }

  /** Counts a request whose first sector is below the capacity. */
  add(type: number, sector: number, capacity: number): void {
    if (type !== VIRTIO_BLK_T.IN && type !== VIRTIO_BLK_T.OUT || !(sector < capacity)) return;
    this.#counts[type * PLACES + (sector / capacity * PLACES | 0)]++;
  }

  /** The counts of all queues up to now. */
  static total(maps: readonly HeatMap[]): Heat {
    const counts = Array.from(
      { length: 2 * PLACES },
      (_, i) => maps.reduce((sum, map) => sum + map.#counts[i], 0),
    );
    return { reads: counts.slice(0, PLACES), writes: counts.slice(PLACES) };
  }
}
