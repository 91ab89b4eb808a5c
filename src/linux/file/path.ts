/**
 * What is at a path. By libc like all else here, so that a device needs no
 * permission of Deno's beside `--allow-ffi`, and none for `/proc`, which Deno
 * shows only to who may do everything.
 *
 * @module
 */

import { check, Errno, LinuxError, retry } from "../errors.ts";
import { Fd } from "../fd.ts";
import { type FileKind, type FileStat, fileStat, openFile, readStat } from "./file.ts";
import { cString, errno, libc, pinnedBuffer } from "../libc.ts";

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const O_WRONLY = 1;
const O_CREAT = 0o100;
const O_EXCL = 0o200;
const O_PATH = 0o10000000;
const O_NOFOLLOW = Deno.build.arch === "x86_64" ? 0o400000 : 0o100000;
const O_CLOEXEC = 0o2000000;

/** The permissions of a file that is its owner's alone. */
const OWNERS_ALONE = 0o600;

/** chown(2): leave it as it is. */
const SAME = 0xffff_ffff;

/** The most that is read of a file in one call, and of a link. */
const SMALL_BYTES = 4096;

const buffer = new Uint8Array(pinnedBuffer(SMALL_BYTES), 0, SMALL_BYTES);
const decoder = new TextDecoder();

/** What is at a path, without following a link there; undefined when there is nothing. */
export function kindAt(path: string): FileKind | undefined {
  return statAt(path)?.kind;
}

function statAt(path: string): FileStat | undefined {
  try {
    return readStat(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW);
  } catch (error) {
    if (error instanceof LinuxError && error.errno === Errno.ENOENT) return undefined;
    throw error;
  }
}

/** Removes a name; that there is none is no error. */
function removeName(path: string): void {
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
 * The file of a socket, found once and from then on by a descriptor: its path
 * may come to mean another file, which is left alone.
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
   * Changes who may use it.
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

  /** Removes its name, if that is still the socket's, and forgets the socket. */
  remove(): void {
    if (!this.#fd.isOpen) return;
    try {
      // While the descriptor is open, no other file can have its identity.
      if (statAt(this.path)?.identity === fileStat(this.#fd.number).identity) removeName(this.path);
    } finally {
      this.#fd.close();
    }
  }

  /** Forgets the socket, and leaves its name. */
  [Symbol.dispose](): void {
    this.#fd.close();
  }
}

/** Does something while the files that this process makes lack these permissions and no others. */
export function withUmask<T>(lacking: number, make: () => T): T {
  const before = libc.umask(lacking);
  try {
    return make();
  } finally {
    libc.umask(before);
  }
}

/**
 * Puts a text into a file of this user's alone, which takes the place of the
 * one that has the path: whoever reads it sees the one or the other, whole.
 *
 * @throws {TypeError} When something other than a file is there, such as a link.
 * @throws {LinuxError} When it cannot be written; what was there is there still.
 */
export function replaceFile(path: string, text: string): void {
  const kind = kindAt(path);
  if (kind !== undefined && kind !== "file") {
    const what = kind === "link" ? "a symbolic link" : kind === "other" ? "a device" : `a ${kind}`;
    throw new TypeError(`Expected a file or nothing at ${path}, got ${what}`);
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
  } catch (error) {
    libc.unlink(cString(made));
    throw error;
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
