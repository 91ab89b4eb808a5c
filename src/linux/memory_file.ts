/**
 * Files that are memory: memfds, and files of tmpfs, hugetlbfs and disks.
 *
 * @module
 */

import { Errno, LinuxError } from "./errors.ts";
import { type FileStat, readStat } from "./file.ts";
import { errno, libc } from "./libc.ts";
import { readKernelFile } from "./path.ts";

const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SEAL = 0x1;
const F_SEAL_SHRINK = 0x2;

const AT_EMPTY_PATH = 0x1000;
/** Asks for what the kernel knows, not for what another process says about its file. */
const AT_STATX_DONT_SYNC = 0x4000;

/** Looks at a file without asking anybody outside of the kernel. */
export function inspectMemoryFile(fd: number): FileStat {
  return readStat(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC);
}

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

/** File systems of the kernel's own: reading one waits for a disk, never for another process. */
const LOCAL_FILE_SYSTEMS = new Set(
  ["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "xfs", "zfs"],
);

/**
 * Whether the kernel alone keeps a file. The pages of any other (FUSE, NFS, 9p)
 * come from another process when it likes: who touches one may wait for ever.
 */
export function isLocalFile(fd: number): boolean {
  // Only tmpfs (with memfds) and hugetlbfs know seals.
  if (libc.fcntl(fd, F_GET_SEALS, 0) >= 0) return true;
  if (errno() !== Errno.EINVAL) throw new LinuxError("fcntl", errno(), `file descriptor ${fd}`);
  const id = readKernelFile(`/proc/self/fdinfo/${fd}`).match(/^mnt_id:\s*(\d+)/m)?.[1];
  const mount = readKernelFile("/proc/self/mountinfo").split("\n")
    .find((line) => line.startsWith(`${id} `));
  // proc_pid_mountinfo(5): optional fields, " - ", the file system's type.
  const type = mount?.split(" - ")[1]?.split(" ")[0] ?? "";
  return LOCAL_FILE_SYSTEMS.has(type);
}
