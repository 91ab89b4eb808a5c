/**
 * File descriptors with one owner.
 *
 * @module
 */

import { check, Errno, LinuxError } from "./errors.ts";
import { errno, libc } from "./libc.ts";

const O_CLOEXEC = 0o2000000;
const F_DUPFD_CLOEXEC = 1030;
const F_GETFD = 1;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const RLIMIT_NOFILE = 7;

/**
 * A file descriptor that belongs to this object: it is closed exactly once,
 * by {@linkcode Fd.close} or at the end of a `using` block, unless
 * {@linkcode Fd.release} gave it away.
 */
export class Fd implements Disposable {
  #number: number;

  /** Takes ownership of a descriptor. */
  constructor(number: number) {
    this.#number = number;
  }

  /** The descriptor's number; it stays this object's. */
  get number(): number {
    if (this.#number < 0) {
      throw new TypeError("Expected an open file descriptor, got a closed one");
    }
    return this.#number;
  }

  /** Whether it is still open here. */
  get isOpen(): boolean {
    return this.#number >= 0;
  }

  /** Gives the descriptor away: the caller closes it. */
  release(): number {
    const number = this.number;
    this.#number = -1;
    return number;
  }

  /** A second descriptor of the same open file. */
  duplicate(): Fd {
    return duplicateFd(this.number);
  }

  /** Becomes a second descriptor of another open file, with the same number, and closes its own. */
  become({ number }: Fd): void {
    check(libc.dup3(number, this.number, O_CLOEXEC), "dup3");
  }

  /** Closes it; closing again does nothing. */
  close(): void {
    if (this.#number < 0) return;
    // Linux frees the number even when close reports an error (close(2)).
    libc.close(this.#number);
    this.#number = -1;
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** A second descriptor of the open file that a number stands for. */
export function duplicateFd(fd: number): Fd {
  return new Fd(check(libc.fcntl(fd, F_DUPFD_CLOEXEC, 3), "fcntl"));
}

/** Descriptors that a Worker needs to start, at most: its modules are read at the same time. */
export const WORKER_DESCRIPTORS = 64;

/**
 * Checks that the process has room for `count` more descriptors: Deno ends the
 * process when a Worker finds none for its event loop. It opens none to check, as
 * a thread that is starting may need it.
 *
 * @throws {LinuxError} EMFILE when there is no room
 */
export function expectDescriptors(count: number): void {
  const limits = new BigUint64Array(2); // struct rlimit: soft, hard
  check(libc.getrlimit(RLIMIT_NOFILE, limits), "getrlimit");
  let free = 0;
  for (let fd = 0; fd < limits[0] && free < count; fd++) {
    if (libc.fcntl(fd, F_GETFD, 0) < 0) free++;
  }
  if (free < count) {
    throw new LinuxError("eventfd", Errno.EMFILE, "no room for more file descriptors");
  }
}

/** Closes descriptors. */
export function closeAll(fds: readonly Fd[]): void {
  for (const fd of fds) fd.close();
}

/** Keeps child processes from inheriting a descriptor, or lets them. */
export function setCloseOnExec(fd: number, isClosed = true): void {
  check(libc.fcntl(fd, F_SETFD, isClosed ? FD_CLOEXEC : 0), "fcntl");
}

/** Sets or clears O_NONBLOCK of a descriptor's open file. */
export function setNonblocking(fd: number, nonblocking: boolean): void {
  const flags = check(libc.fcntl(fd, F_GETFL, 0), "fcntl");
  const wanted = nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  if (wanted !== flags) check(libc.fcntl(fd, F_SETFL, wanted), "fcntl");
}

/**
 * Makes a request of a device: ioctl(2).
 *
 * @param memory What the request points at; null where it takes no memory.
 * @returns The result, negative with errno set when the request failed.
 */
export function ioctl(fd: number, request: number, memory: BufferSource | null): number {
  return libc.ioctl(fd, request, memory);
}

/**
 * Reads the available bytes from a non-blocking descriptor.
 *
 * @returns How many bytes; 0 at the end, -1 when there is nothing yet.
 */
export function readNow(fd: number, into: Uint8Array<ArrayBuffer>): number {
  return transfer("read", () => libc.read(fd, into, into.length));
}

/**
 * Writes to a non-blocking descriptor as much as it takes now.
 *
 * @returns How many bytes; -1 when there is no room.
 */
export function writeNow(fd: number, bytes: Uint8Array<ArrayBuffer>): number {
  return transfer("write", () => libc.write(fd, bytes, bytes.length));
}

function transfer(syscall: string, call: () => number): number {
  for (;;) {
    const count = call();
    if (count >= 0) return count;
    const code = errno();
    if (code === Errno.EAGAIN) return -1;
    if (code !== Errno.EINTR) throw new LinuxError(syscall, code);
  }
}
