/**
 * System errors.
 *
 * @module
 */

import { errno as currentErrno, libc } from "./libc.ts";

/** The error numbers that the code names. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  ENOSPC: 28,
  EDQUOT: 122,
  EROFS: 30,
  EPIPE: 32,
  ENODATA: 61,
  EBADFD: 77,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ECONNRESET: 104,
  ENOBUFS: 105,
  ENOTCONN: 107,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EINPROGRESS: 115,
  ECANCELED: 125,
} as const;

/** Second names of numbers that have a better known one. */
const ALIASES = ["EWOULDBLOCK", "ENOTSUP"];

let names: Map<number, string> | undefined;

/** The symbolic name of an error number, such as `ENOENT`. */
export function errnoName(errno: number): string {
  names ??= errnoNames();
  return names.get(errno) ?? `E${errno}`;
}

function errnoNames(): Map<number, string> {
  // Not imported: that takes 7 ms of each start of the process and of a thread.
  const { errno } = process.getBuiltinModule("node:os").constants;
  return new Map(
    Object.entries({ ...errno, ...Errno })
      .filter(([name]) => !ALIASES.includes(name))
      .map(([name, number]) => [number, name]),
  );
}

/**
 * A system call that failed.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { LinuxError } from "./errors.ts";
 *
 * const error = new LinuxError("open", 2, "/no/such/file");
 * assertEquals(error.code, "ENOENT");
 * assertEquals(error.message, "open: No such file or directory (ENOENT): /no/such/file");
 * ```
 */
export class LinuxError extends Error {
  /** `LinuxError`. */
  override name = "LinuxError";
  /** The system call. */
  readonly syscall: string;
  /** The error number. */
  readonly errno: number;
  /** The error's symbolic name. */
  readonly code: string;

  /**
   * Describes a failed call.
   *
   * @param syscall The system call that failed.
   * @param errno The error number; by default this thread's errno.
   * @param subject What the call was about, such as a path.
   */
  constructor(
    syscall: string,
    errno: number = currentErrno(),
    subject?: string,
  ) {
    const code = errnoName(errno);
    const text = Deno.UnsafePointerView.getCString(libc.strerror(errno)!);
    super(
      `${syscall}: ${text} (${code})${subject === undefined ? "" : `: ${subject}`}`,
    );
    this.syscall = syscall;
    this.errno = errno;
    this.code = code;
  }
}

/** Returns the result of a system call, or throws when it is negative. */
export function check(
  result: number,
  syscall: string,
  subject?: string,
): number {
  if (result < 0) throw new LinuxError(syscall, currentErrno(), subject);
  return result;
}

/** Repeats a system call while a signal interrupts it; throws when it fails. */
export function retry(
  syscall: string,
  call: () => number,
  subject?: string,
): number {
  for (;;) {
    const result = call();
    if (result >= 0) return result;
    const errno = currentErrno();
    if (errno !== Errno.EINTR) throw new LinuxError(syscall, errno, subject);
  }
}

/** What an error of Deno's own calls says, without its number and the call. */
export function plainMessage(error: unknown): string {
  return (error as Error).message.replace(/ \(os error.*$/s, "");
}
