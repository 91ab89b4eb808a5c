/**
 * FIFOs that another process writes to: fifo(7), pipe(7), pidfd_getfd(2).
 *
 * @module
 */

import { check, LinuxError } from "../errors.ts";
import { Fd, setNonblocking } from "../fd.ts";
import { cString, libc } from "../libc.ts";
import { openFile } from "./file.ts";
import { readLink } from "./path.ts";

const O_WRONLY = 1;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const F_SETPIPE_SZ = 1031;
const F_GETPIPE_SZ = 1032;
const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;

/** The most that a pipe of an ordinary user may hold by default: /proc/sys/fs/pipe-max-size. */
export const FIFO_BYTES: number = 2 ** 20;

/**
 * Makes a FIFO that only its owner may use, with room for {@linkcode FIFO_BYTES} if the kernel
 * allows that.
 *
 * @returns A descriptor for both directions, and how much it holds. While it is open, other
 * opens of the FIFO do not wait.
 * @throws {LinuxError} When it cannot be made.
 */
export function makeFifo(path: string): { fd: Fd; bytes: number } {
  check(libc.mkfifo(cString(path), 0o600), "mkfifo", path);
  const fd = openFile(path, { write: true });
  libc.fcntl(fd.number, F_SETPIPE_SZ, FIFO_BYTES); // The usual 64 KiB if refused
  return { fd, bytes: check(libc.fcntl(fd.number, F_GETPIPE_SZ, 0), "fcntl") };
}

/** Whether anybody has a FIFO open for reading. */
export function hasReader(path: string): boolean {
  const fd = libc.open(cString(path), O_WRONLY | O_NONBLOCK | O_CLOEXEC, 0);
  if (fd >= 0) new Fd(fd).close();
  return fd >= 0;
}

/**
 * Makes the writes of a process to a FIFO fail rather than wait when it is full.
 *
 * @throws {LinuxError} When this process may not reach into the other one: that takes the right to
 * trace it, ptrace(2).
 * @throws {Error} When the process does not have the FIFO open.
 */
export function neverBlockWriter(pid: number, path: string): void {
  const process = new Fd(check(libc.syscall_pidfd_open(SYS_PIDFD_OPEN, pid, 0), "pidfd_open"));
  using _ = process;
  const numbers = [...Deno.readDirSync(`/proc/${pid}/fd`)].map(({ name }) => name).filter((name) =>
    isLinkTo(`/proc/${pid}/fd/${name}`, path)
  );
  if (numbers.length === 0) throw new Error(`process ${pid} does not have ${path} open`);
  for (const number of numbers) {
    const call = libc.syscall_pidfd_getfd(SYS_PIDFD_GETFD, process.number, Number(number), 0);
    using fd = new Fd(check(call, "pidfd_getfd"));
    setNonblocking(fd.number, true);
  }
}

function isLinkTo(link: string, path: string): boolean {
  try {
    return readLink(link) === path;
  } catch (error) {
    if (error instanceof LinuxError) return false; // It was closed meanwhile
    throw error;
  }
}
