/**
 * Files by their paths. By libc, so that a device needs no permission of Deno's
 * beside `--allow-ffi`: for `/proc`, Deno wants all permissions.
 *
 * @module
 */

import { check, Errno, LinuxError, retry } from "../errors.ts";
import { Fd } from "../fd.ts";
import { type FileKind, type FileStat, fileStat, openFile, readStat } from "./file.ts";
import { isLockedElsewhere } from "./file_lock.ts";
import { noteNewFile } from "./new_files.ts";
import { cString, errno, libc, pinnedBuffer } from "../libc.ts";

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const O_WRONLY = 1;
const O_RDWR = 2;
const O_CREAT = 0o100;
const O_EXCL = 0o200;
const O_PATH = 0o10000000;
const O_NOFOLLOW = Deno.build.arch === "x86_64" ? 0o400000 : 0o100000;
const O_CLOEXEC = 0o2000000;

/** The mode of a file that only its owner may read and write. */
const OWNERS_ALONE = 0o600;

/** chown(2): leave it as it is. */
const SAME = 0xffff_ffff;

/** Bytes per read of a kernel file, and the longest link that is read. */
const SMALL_BYTES = 4096;

const buffer = new Uint8Array(pinnedBuffer(SMALL_BYTES), 0, SMALL_BYTES);
const decoder = new TextDecoder();

/** The kind of file at a path, a link itself if it is one; undefined when there is nothing. */
export function kindAt(path: string): FileKind | undefined {
  return statAt(path)?.kind;
}

/** What tells a file from all others, by any of its paths; undefined when there is none. */
export function identityAt(path: string): string | undefined {
  try {
    return statAt(path, 0)?.identity;
  } catch (error) {
    if (error instanceof LinuxError) return undefined;
    throw error;
  }
}

function statAt(path: string, flags = AT_SYMLINK_NOFOLLOW): FileStat | undefined {
  try {
    return readStat(AT_FDCWD, path, flags);
  } catch (error) {
    if (error instanceof LinuxError && error.errno === Errno.ENOENT) return undefined;
    throw error;
  }
}

/** Removes a name, if it exists. */
export function removeName(path: string): void {
  if (libc.unlink(cString(path)) >= 0 || errno() === Errno.ENOENT) return;
  throw new LinuxError("unlink", undefined, path);
}

/** Owner and mode of a socket's file. What is not given stays as it is. */
export interface SocketAccess {
  /** Its permission bits, such as `0o660`. */
  mode?: number;
  /** The number of its user. */
  uid?: number;
  /** The number of its group. */
  gid?: number;
}

/**
 * The file of a socket. A descriptor keeps hold of it: if its path names another
 * file later, that one is not touched.
 */
export class SocketFile implements Disposable {
  /** The path by which it was found. */
  readonly path: string;
  readonly #fd: Fd;

  /**
   * Finds the socket at a path. A link is not followed.
   *
   * @throws {LinuxError} ENOENT when there is nothing.
   * @throws {TypeError} When it is another file.
   */
  constructor(path: string) {
    this.path = path;
    const flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
    using fd = new Fd(check(libc.open(cString(path), flags, 0), "open", path));
    if (fileStat(fd.number).kind !== "socket") {
      throw new TypeError(`Expected a socket at ${path}, got another file`);
    }
    this.#fd = new Fd(fd.release());
  }

  /**
   * Changes its owner and mode.
   *
   * @throws {LinuxError} EPERM when this user may not.
   */
  setAccess({ mode, uid, gid }: SocketAccess): void {
    const fd = this.#fd.number;
    if (uid !== undefined || gid !== undefined) {
      check(
        libc.fchownat(fd, cString(""), uid ?? SAME, gid ?? SAME, AT_EMPTY_PATH),
        "chown",
        this.path,
      );
    }
    if (mode !== undefined) {
      check(libc.chmod(cString(`/proc/self/fd/${fd}`), mode), "chmod", this.path);
    }
  }

  /** Removes the name at its path if it is still the socket's, and closes the descriptor. */
  remove(): void {
    if (!this.#fd.isOpen) return;
    try {
      // While the descriptor is open, no other file can have its identity.
      if (statAt(this.path)?.identity === fileStat(this.#fd.number).identity) removeName(this.path);
    } finally {
      this.#fd.close();
    }
  }

  /** Closes the descriptor, and leaves the name. */
  [Symbol.dispose](): void {
    this.#fd.close();
  }
}

/** Runs `make` under a umask, which is the whole process's. */
export function withUmask<T>(umask: number, make: () => T): T {
  const before = libc.umask(umask);
  try {
    return make();
  } finally {
    libc.umask(before);
  }
}

/**
 * Replaces a file, or creates it, with a text that only this user may read. Readers see the old or
 * the new file, whole.
 *
 * @throws {TypeError} When something other than a file is there, such as a link.
 * @throws {LinuxError} When it cannot be written; the old file is left as it was.
 */
export function replaceFile(path: string, text: string): void {
  const kind = kindAt(path);
  if (kind !== undefined && kind !== "file") {
    const what = kind === "link" ? "a symbolic link" : kind === "other" ? "a device" : `a ${kind}`;
    throw new TypeError(`Expected a file or nothing at ${path}, got ${what}`);
  }
  if (kind === "file" && isInUse(path)) {
    throw new TypeError(`Expected a file of its own, got ${path}, which is in use`);
  }
  const made = `${path}.${crypto.randomUUID().slice(0, 8)}`;
  const flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
  using fd = new Fd(check(libc.open(cString(made), flags, OWNERS_ALONE), "open", made));
  try {
    check(libc.fchmod(fd.number, OWNERS_ALONE), "fchmod", made); // whatever the umask
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length;) {
      const rest = bytes.subarray(at);
      at += retry("write", () => libc.write(fd.number, rest, rest.length), made);
    }
    check(libc.rename(cString(made), cString(path)), "rename", path);
    if (kind === undefined) noteNewFile(path, fd.number);
  } catch (error) {
    libc.unlink(cString(made));
    throw error;
  }
}

/** Whether anyone has locked a file, such as a capture or the image of a disk. */
function isInUse(path: string): boolean {
  try {
    using file = openFile(path, { nonblocking: true });
    return isLockedElsewhere(file.number, 0, 0);
  } catch (error) {
    // It may not be read, or the file system has no locks
    if (error instanceof LinuxError) return false;
    throw error;
  }
}

/**
 * Makes a file that only this user may use, where there is none: others see nothing, or the file
 * as `prepare` leaves it, which then outlives a loss of power.
 *
 * @param prepare Writes to the file's descriptor.
 * @throws {LinuxError} EEXIST when something is there; what keeps it from being made.
 */
export function createFile(path: string, prepare: (fd: number) => void): void {
  const made = `${path}.${crypto.randomUUID().slice(0, 8)}`;
  const flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
  using fd = new Fd(check(libc.open(cString(made), flags, OWNERS_ALONE), "open", path));
  try {
    prepare(fd.number);
    check(libc.fdatasync(fd.number), "fdatasync", path);
    check(libc.link(cString(made), cString(path)), "link", path);
    noteNewFile(path, fd.number);
  } finally {
    libc.unlink(cString(made));
  }
  using folder = openFile(path.includes("/") ? path.slice(0, path.lastIndexOf("/") + 1) : ".");
  check(libc.fdatasync(folder.number), "fdatasync", path);
}

/** The text of a symbolic link. */
export function readLink(path: string): string {
  const bytes = check(libc.readlink(cString(path), buffer, SMALL_BYTES), "readlink", path);
  return decoder.decode(buffer.subarray(0, bytes));
}

/** The text of a file of the kernel's, such as those in `/proc`. */
export function readKernelFile(path: string): string {
  using fd = openFile(path);
  const decoder = new TextDecoder();
  for (let text = "";;) {
    const bytes = check(libc.read(fd.number, buffer, SMALL_BYTES), "read", path);
    if (bytes === 0) return text;
    text += decoder.decode(buffer.subarray(0, bytes), { stream: true });
  }
}
