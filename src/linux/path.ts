/**
 * What is at a path. By libc like all else here, so that a device needs no
 * permission of Deno's beside `--allow-ffi`, and none for `/proc`, which Deno
 * shows only to who may do everything.
 *
 * @module
 */

import { check, Errno, LinuxError } from "./errors.ts";
import { Fd } from "./fd.ts";
import { type FileKind, fileStat, openFile, readStat } from "./file.ts";
import { cString, errno, libc, pinnedBuffer } from "./libc.ts";

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const O_PATH = 0o10000000;
const O_NOFOLLOW = Deno.build.arch === "x86_64" ? 0o400000 : 0o100000;
const O_CLOEXEC = 0o2000000;

/** chown(2): leave it as it is. */
const SAME = 0xffff_ffff;

/** The most that is read of a file in one call, and of a link. */
const SMALL_BYTES = 4096;

const buffer = new Uint8Array(pinnedBuffer(SMALL_BYTES), 0, SMALL_BYTES);
const decoder = new TextDecoder();

/** What is at a path, without following a link there. */
export function kindAt(path: string): FileKind {
  return readStat(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW).kind;
}

/** Removes a name; that there is none is no error. */
export function removeName(path: string): void {
  if (libc.unlink(cString(path)) >= 0 || errno() === Errno.ENOENT) return;
  throw new LinuxError("unlink", undefined, path);
}

/** Who may use a file. */
export interface SocketAccess {
  /** Its permission bits, such as `0o660`; as they are if not given. */
  mode?: number;
  /** The number of its user; as it is if not given. */
  uid?: number;
  /** The number of its group; as it is if not given. */
  gid?: number;
}

/**
 * Changes who may use the socket at a path. What is no socket is left alone,
 * also if it takes the socket's place at this moment.
 *
 * @throws {LinuxError} EPERM when this user may not.
 */
export function setSocketAccess(path: string, { mode, uid, gid }: SocketAccess): void {
  // Found once, and from then on by its descriptor: the path may come to mean something else.
  using fd = new Fd(
    check(libc.open(cString(path), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0), "open", path),
  );
  const { kind } = fileStat(fd.number);
  if (kind !== "socket") throw new TypeError(`Expected a socket at ${path}, got another file`);
  if (uid !== undefined || gid !== undefined) {
    check(
      libc.fchownat(fd.number, cString(""), uid ?? SAME, gid ?? SAME, AT_EMPTY_PATH),
      "chown",
      path,
    );
  }
  if (mode !== undefined) {
    check(libc.chmod(cString(`/proc/self/fd/${fd.number}`), mode), "chmod", path);
  }
}

/**
 * Does something while the files that this process makes lack some permissions;
 * what they lack anyway they lack still.
 */
export function withUmask<T>(lacking: number, make: () => T): T {
  const before = libc.umask(lacking);
  try {
    libc.umask(before | lacking);
    return make();
  } finally {
    libc.umask(before);
  }
}

/** Where a symbolic link leads, as it is written. */
export function readLink(path: string): string {
  const bytes = check(libc.readlink(cString(path), buffer, SMALL_BYTES), "readlink", path);
  return decoder.decode(buffer.subarray(0, bytes));
}

/** The text of a file that the kernel makes up, such as those of `/proc`. */
export function readKernelFile(path: string): string {
  using fd = openFile(path);
  const decoder = new TextDecoder();
  for (let text = "";;) {
    const bytes = check(libc.read(fd.number, buffer, SMALL_BYTES), "read", path);
    if (bytes === 0) return text;
    text += decoder.decode(buffer.subarray(0, bytes), { stream: true });
  }
}
