/**
 * Files that are memory: memfds, and files of tmpfs, hugetlbfs and disks.
 *
 * @module
 */

import { check, Errno, LinuxError } from "./errors.ts";
import { Fd } from "./fd.ts";
import { cString, errno, libc, pinnedBuffer } from "./libc.ts";

const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SEAL = 0x1;
const F_SEAL_SHRINK = 0x2;

const AT_EMPTY_PATH = 0x1000;
/** Asks for what the kernel knows, not for what another process says about its file. */
const AT_STATX_DONT_SYNC = 0x4000;
const STATX_BASIC_STATS = 0x7ff;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFIFO = 0o010000;

const O_CLOEXEC = 0o2000000;

/** What is known of a file. */
export interface MemoryFile {
  /** It is a regular file. */
  isFile: boolean;
  /** It is a pipe. */
  isPipe: boolean;
  /** Its size. */
  bytes: number;
  /** The size of a block; of a huge page file, that of its pages. */
  blockBytes: number;
  /** When it was changed last, in seconds since 1970. */
  changedAt: number;
}

/** Looks at a file without asking anybody outside of the kernel. */
export function inspectMemoryFile(fd: number): MemoryFile {
  const info = new DataView(pinnedBuffer(256));
  const flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  check(
    libc.statx(fd, cString(""), flags, STATX_BASIC_STATS, info.buffer),
    "statx",
    `file descriptor ${fd}`,
  );
  const type = info.getUint16(28, true) & S_IFMT;
  return {
    isFile: type === S_IFREG,
    isPipe: type === S_IFIFO,
    bytes: Number(info.getBigUint64(40, true)),
    blockBytes: info.getUint32(4, true),
    changedAt: Number(info.getBigInt64(96, true)) + info.getUint32(104, true) / 1e9,
  };
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
  const id = readProc(`/proc/self/fdinfo/${fd}`).match(/^mnt_id:\s*(\d+)/m)?.[1];
  const mount = readProc("/proc/self/mountinfo").split("\n")
    .find((line) => line.startsWith(`${id} `));
  // proc_pid_mountinfo(5): optional fields, " - ", the file system's type.
  const type = mount?.split(" - ")[1]?.split(" ")[0] ?? "";
  return LOCAL_FILE_SYSTEMS.has(type);
}

/** The text of a file of `/proc`, for which Deno asks every permission that there is. */
function readProc(path: string): string {
  using fd = new Fd(check(libc.open(cString(path), O_CLOEXEC, 0), "open", path));
  const decoder = new TextDecoder();
  const part = new Uint8Array(pinnedBuffer(4096));
  let text = "";
  for (;;) {
    const count = check(libc.read(fd.number, part, part.length), "read", path);
    if (count === 0) return text;
    text += decoder.decode(part.subarray(0, count), { stream: true });
  }
}
