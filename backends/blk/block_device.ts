/**
 * Block devices of the host: their limits, whether they can be written, and what is behind them.
 *
 * Source: `linux/fs.h`.
 *
 * @module
 */

import {
  check,
  errno,
  type Fd,
  fileBytes,
  fileStat,
  ioctl,
  LinuxError,
  pinnedBuffer,
  punchHole,
  readKernelFile,
  reopenFile,
} from "../../src/linux/mod.ts";

// _IO(0x12, number)
const BLKROGET = 0x125e;
const BLKSSZGET = 0x1268;
const BLKDISCARD = 0x1277;
const BLKIOMIN = 0x1278;
const BLKIOOPT = 0x1279;
const BLKPBSZGET = 0x127b;
const BLKSECDISCARD = 0x127d;

/** How a block device wants to be used; sizes in bytes. */
export interface BlockLimits {
  /** Its logical block size. */
  logicalBlockBytes: number;
  /** Its physical block size. */
  physicalBlockBytes: number;
  /** The smallest request that costs it nothing extra. */
  minIoBytes: number;
  /** The size of request that it likes best; 0 if it does not say. */
  optimalIoBytes: number;
}

const answer = new Int32Array(pinnedBuffer(4), 0, 1);

function ask(fd: number, request: number, name: string): number {
  check(ioctl(fd, request, answer), "ioctl", name);
  return answer[0];
}

/** The limits of a block device. */
export function blockLimits(fd: number): BlockLimits {
  return {
    logicalBlockBytes: ask(fd, BLKSSZGET, "BLKSSZGET"),
    physicalBlockBytes: ask(fd, BLKPBSZGET, "BLKPBSZGET"),
    minIoBytes: ask(fd, BLKIOMIN, "BLKIOMIN"),
    optimalIoBytes: ask(fd, BLKIOOPT, "BLKIOOPT"),
  };
}

/** Whether a block device can only be read, however it was opened. */
export function isReadOnlyDevice(fd: number): boolean {
  return ask(fd, BLKROGET, "BLKROGET") !== 0;
}

const range = new BigUint64Array(pinnedBuffer(16), 0, 2);

/** Discards a part of a block device. Negative on failure. */
export function blockDiscard(fd: number, offset: number, bytes: number): number {
  range[0] = BigInt(offset);
  range[1] = BigInt(bytes);
  return ioctl(fd, BLKDISCARD, range);
}

/** Erases a part of a block device beyond recovery. Negative on failure. */
export function blockSecureErase(fd: number, offset: number, bytes: number): number {
  range[0] = BigInt(offset);
  range[1] = BigInt(bytes);
  return ioctl(fd, BLKSECDISCARD, range);
}

/** Whether a block device, open for writing, can erase beyond recovery; erases nothing. */
export function canSecureErase(fd: number): boolean {
  return blockSecureErase(fd, 0, 0) >= 0;
}

/**
 * Tests whether a file or block device, open for writing, can give space back, and gives none back.
 *
 * @returns 0, or the errno: EOPNOTSUPP where it cannot; EPERM, ETXTBSY and others where nothing can
 * be written.
 */
export function tryPunchHole(fd: number, isBlockDevice: boolean): number {
  // Neither call touches data: one is about what is behind the end, the other about no bytes at
  // all, which is refused only after the ability was checked.
  const result = isBlockDevice ? blockDiscard(fd, 0, 0) : punchHole(fd, fileBytes(fd), 4096);
  return result >= 0 ? 0 : errno();
}

/**
 * Claims a block device while what is returned is open: by whatever node it is named, no other
 * program can claim it, and it cannot be mounted (open(2), `O_EXCL`).
 *
 * @throws {LinuxError} EBUSY when another program has it, or it is mounted.
 */
export function claimDevice(fd: number): Fd {
  return reopenFile(fd, { exclusive: true, nonblocking: true });
}

/**
 * The path of the file behind a loop device, or behind the loop device that it is a partition of;
 * undefined where there is none.
 */
export function loopFile(fd: number): string | undefined {
  return attribute(fd, "loop/backing_file");
}

/** Whether a block device has zones that have to be written in order. */
export function isHostManaged(fd: number): boolean {
  return attribute(fd, "queue/zoned") === "host-managed";
}

/** What the kernel says of a block device, or of the one that it is a partition of. */
function attribute(fd: number, name: string): string | undefined {
  const { deviceNumber } = fileStat(fd);
  for (const place of ["", "../"]) {
    try {
      return readKernelFile(`/sys/dev/block/${deviceNumber}/${place}${name}`).trimEnd();
    } catch (error) {
      if (!(error instanceof LinuxError)) throw error;
    }
  }
  return undefined;
}
