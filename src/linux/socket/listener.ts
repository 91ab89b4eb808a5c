/**
 * Listening Unix sockets.
 *
 * @module
 */

import { check, Errno, LinuxError } from "../errors.ts";
import { Fd } from "../fd.ts";
import { type SocketAccess, SocketFile } from "../file/path.ts";
import { errno, libc } from "../libc.ts";
import { Quarantine } from "../quarantine.ts";
import { watch } from "../wait/reactor.ts";
import { UnixConnection } from "./connection.ts";
import { newSocket, SOCK_CLOEXEC, SOCK_NONBLOCK, socketAddress } from "./unix_socket.ts";

/** How many connections may wait to be accepted. */
const BACKLOG = 128;

/** Errors of accept4(2) that say that there is no room for a connection just now. */
const EXHAUSTED: readonly number[] = [Errno.EMFILE, Errno.ENFILE, Errno.ENOBUFS, Errno.ENOMEM];

/** Pause between attempts to accept a connection that there is no room for, in milliseconds. */
const EXHAUSTED_PAUSE_MS = 50;

/** A listening Unix socket. */
export class UnixListener implements Disposable {
  readonly #fd: Fd;
  readonly #file: SocketFile | undefined;
  #closed = false;
  /** Ends the wait of {@linkcode UnixListener.accept}. */
  #wake: (() => void) | undefined;

  /**
   * Takes ownership of a listening socket.
   *
   * @param file Its file, if that is to be removed with it.
   */
  constructor(fd: Fd, file?: SocketFile) {
    this.#fd = fd;
    this.#file = file;
  }

  /**
   * Binds and listens. The file must not exist, and is removed at the end unless
   * the path names another file by then. No process can connect before the file has
   * its access, which without `access` is that of the umask.
   *
   * @throws {LinuxError} EADDRINUSE when the path exists, EACCES or ENOENT
   * when it cannot be made, EPERM when it cannot have that access.
   */
  static listen(path: string, access: SocketAccess = {}): UnixListener {
    using made = new DisposableStack();
    const fd = made.use(newSocket());
    // Set before bind, the mode holds from the file's first moment on.
    if (access.mode !== undefined) check(libc.fchmod(fd.number, access.mode), "fchmod");
    check(libc.bind(fd.number, ...socketAddress(path)), "bind", path);
    const file = made.adopt(new SocketFile(path), (file) => file.remove());
    file.setAccess(access);
    // Only from here on does connecting succeed.
    check(libc.listen(fd.number, BACKLOG), "listen", path);
    made.move();
    return new UnixListener(fd, file);
  }

  /** The socket; it stays this listener's. */
  get fd(): Fd {
    return this.#fd;
  }

  /**
   * Waits for the next connection; undefined once the listener is closed. While
   * the process or the machine has no descriptor or memory left for one, it
   * waits in the backlog.
   */
  async accept(): Promise<UnixConnection | undefined> {
    while (!this.#closed) {
      const fd = libc.accept4(this.#fd.number, null, null, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd >= 0) return new UnixConnection(new Fd(fd));
      const code = errno();
      if (code === Errno.EAGAIN) await this.#ready();
      else if (EXHAUSTED.includes(code)) await this.#pause();
      else if (code !== Errno.EINTR && code !== Errno.ECONNRESET) {
        throw new LinuxError("accept4", code);
      }
    }
    // Connections that were not accepted may hold messages with descriptors.
    await new Quarantine().letGo([this.#fd]).catch(() => {});
    return undefined;
  }

  #ready(): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        waiting[Symbol.dispose]();
        resolve();
      };
      const waiting = watch(this.#fd.number, "readable", wake);
      this.#wake = wake;
    });
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, EXHAUSTED_PAUSE_MS);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /**
   * Makes the pending (or next) accept return undefined and close the socket. Another process that
   * has the socket, such as systemd, can go on listening on it.
   */
  stop(): void {
    this.#closed = true;
    this.#wake?.();
    this.#file?.remove();
  }

  /** Closes the socket, on which no wait may be pending. */
  [Symbol.dispose](): void {
    this.#fd.close();
    this.#file?.remove();
  }
}
