/**
 * How worn a disk's storage is: virtio 1.3, 5.2.6, VIRTIO_BLK_T_GET_LIFETIME.
 *
 * @module
 */

import type { Parts } from "../../mod.ts";
import { LinuxError, readKernelFile } from "../../src/linux/mod.ts";

/** How worn a disk's storage is, as eMMC has it (JESD84-B50). */
export interface Lifetime {
  /** The reserved blocks that are used: 0 unknown, 1 normal, 2 at least 80 %, 3 at least 90 %. */
  readonly preEolInfo: number;
  /** The life that SLC cells have behind them: 0 unknown, 1 up to 10 % … 10 up to 100 %, 11 more. */
  readonly typeA: number;
  /** The same of MLC cells. */
  readonly typeB: number;
}

/** struct virtio_blk_lifetime. */
export const LIFETIME_BYTES = 6;

const MAX_PRE_EOL_INFO = 3, MAX_TYPE = 11;

const bytes = new Uint8Array(LIFETIME_BYTES);

/** Fills a request's data: the lifetime, then zeroes. Values that are reserved become unknown. */
export function writeLifetime(data: Parts, from: Lifetime): void {
  const known = (value: number, most: number) =>
    value >= 0 && value <= most ? Math.trunc(value) : 0;
  bytes[0] = known(from.preEolInfo, MAX_PRE_EOL_INFO);
  bytes[2] = known(from.typeA, MAX_TYPE);
  bytes[4] = known(from.typeB, MAX_TYPE);
  data.fill(0);
  data.write(0, bytes);
}

/**
 * Reads it from the directory of an eMMC device: `life_time` and `pre_eol_info`.
 *
 * @throws {LinuxError} When it has none.
 */
export function readLifetime(directory: string): Lifetime {
  const numbers = (name: string) =>
    readKernelFile(`${directory}/${name}`).trim().split(/\s+/).map(Number);
  const [typeA = NaN, typeB = NaN] = numbers("life_time");
  const [preEolInfo] = numbers("pre_eol_info");
  return { preEolInfo, typeA, typeB };
}

/** The directory in which the kernel tells how worn a block device is, or the one it is a part of. */
export function lifetimeDirectory(deviceNumber: string): string | undefined {
  const places = ["device", "../device"].map((place) => `/sys/dev/block/${deviceNumber}/${place}`);
  return places.find((place) => {
    try {
      readLifetime(place);
      return true;
    } catch (error) {
      if (!(error instanceof LinuxError)) throw error;
      return false;
    }
  });
}
