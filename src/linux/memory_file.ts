/**
 * Files that are memory.
 *
 * @module
 */

import { libc } from "./libc.ts";

const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SEAL = 0x1;
const F_SEAL_SHRINK = 0x2;

/**
 * Sees to it that a file cannot become shorter, where that is possible: a memfd
 * is sealed unless it is already.
 *
 * @returns Whether it cannot. Files of tmpfs, hugetlbfs and disks always can.
 */
export function sealAgainstShrinking(fd: number): boolean {
  const seals = libc.fcntl(fd, F_GET_SEALS, 0);
  if (seals < 0) return false;
  if (seals & F_SEAL_SHRINK) return true;
  return (seals & F_SEAL_SEAL) === 0 && libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) >= 0;
}
