/**
 * Block devices: whether they can be written, who has them, what is behind them.
 *
 * @module
 */

import { check, LinuxError } from "../errors.ts";
import type { Fd } from "../fd.ts";
import { reopenFile } from "./file.ts";
import { cString, libc, pinnedBuffer } from "../libc.ts";
import { readKernelFile } from "./path.ts";

const BLKROGET = 0x125en; // _IO(0x12, 94)

/** Whether a block device can only be read, however it was opened. */
export function isReadOnlyDevice(fd: number): boolean {
  const value = new Int32Array(pinnedBuffer(4), 0, 1);
  check(libc.ioctl(fd, BLKROGET, value), "ioctl", "BLKROGET");
  return value[0] !== 0;
}

/**
 * Has a block device for itself while what is returned is open: by whatever node
 * it is named, nobody else can, and it cannot be mounted (open(2), `O_EXCL`).
 *
 * @throws {LinuxError} EBUSY when somebody has it, or it is mounted.
 */
export function claimDevice(fd: number): Fd {
  return reopenFile(fd, { exclusive: true, nonblocking: true });
}

const AT_EMPTY_PATH = 0x1000;
const STATX_BASIC_STATS = 0x7ff;

/**
 * The path of the file behind a loop device, or behind the loop device that it
 * is a partition of; undefined where there is none.
 */
export function loopFile(fd: number): string | undefined {
  const stat = new DataView(pinnedBuffer(256));
  check(libc.statx(fd, cString(""), AT_EMPTY_PATH, STATX_BASIC_STATS, stat), "statx");
  // stx_rdev_major, stx_rdev_minor
  const number = `${stat.getUint32(128, true)}:${stat.getUint32(132, true)}`;
  for (const place of ["loop", "../loop"]) {
    try {
      return readKernelFile(`/sys/dev/block/${number}/${place}/backing_file`).trimEnd();
    } catch (error) {
      if (!(error instanceof LinuxError)) throw error;
    }
  }
  return undefined;
}
