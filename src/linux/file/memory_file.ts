/**
 * Files that are memory: memfds, and files of tmpfs, hugetlbfs and disks.
 *
 * @module
 */

import { check, Errno, LinuxError } from "../errors.ts";
import { type FileStat, readStat } from "./file.ts";
import { errno, libc } from "../libc.ts";
import { readKernelFile } from "./path.ts";

const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SEAL = 0x1;
const F_SEAL_SHRINK = 0x2;

const AT_EMPTY_PATH = 0x1000;
/** Asks for what the kernel knows, not for what another process says about its file. */
const AT_STATX_DONT_SYNC = 0x4000;

/** What the kernel knows of a file, without asking another process. */
export function inspectMemoryFile(fd: number): FileStat {
  return readStat(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC);
}

/** Whether a file is a memory file: those of tmpfs (memfds among them) and hugetlbfs know seals. */
export function knowsSeals(fd: number): boolean {
  return libc.fcntl(fd, F_GET_SEALS, 0) >= 0;
}

/** Whether a file is sealed against becoming shorter. */
export function isSealedAgainstShrinking(fd: number): boolean {
  const seals = libc.fcntl(fd, F_GET_SEALS, 0);
  return seals >= 0 && (seals & F_SEAL_SHRINK) !== 0;
}

/** Whether a file can be sealed against becoming shorter, and is not: a memfd that allows seals. */
export function canBeSealed(fd: number): boolean {
  const seals = libc.fcntl(fd, F_GET_SEALS, 0);
  return seals >= 0 && (seals & (F_SEAL_SEAL | F_SEAL_SHRINK)) === 0;
}

/** Seals a memfd of another process against becoming shorter, on another thread: it may wait. */
export function sealForeign(fd: number): Promise<number> {
  return libc.fcntl_async(fd, F_ADD_SEALS, F_SEAL_SHRINK);
}

/** Seals a memfd, which no other process has yet, against shrinking. */
export function sealOwn(fd: number): void {
  check(libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), "fcntl");
}

/** File systems of the kernel's own: reading waits for a disk, never for another process. */
const LOCAL_FILE_SYSTEMS = new Set(
  ["bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "xfs", "zfs"],
);

/**
 * Whether the kernel alone keeps a file. The pages and the size of any other (FUSE, NFS, 9p) come
 * from another process, for which a thread that touches them may wait for ever. The file itself
 * is not asked: the kernel's lists of descriptors and mounts tell. A mount of another namespace
 * is in none, and counts as another process's.
 */
export function isLocalFile(fd: number): boolean {
  if (knowsSeals(fd)) return true;
  if (errno() !== Errno.EINVAL) throw new LinuxError("fcntl", errno(), `file descriptor ${fd}`);
  const id = readKernelFile(`/proc/self/fdinfo/${fd}`).match(/^mnt_id:\s*(\d+)/m)?.[1];
  const mount = readKernelFile("/proc/self/mountinfo").split("\n")
    .find((line) => line.startsWith(`${id} `));
  // proc_pid_mountinfo(5): optional fields, " - ", the file system's type.
  const type = mount?.split(" - ")[1]?.split(" ")[0] ?? "";
  return LOCAL_FILE_SYSTEMS.has(type);
}
