/**
 * Unix stream sockets that carry file descriptors.
 *
 * @module
 */

import { check, Errno, LinuxError } from "./errors.ts";
import { closeAll, Fd } from "./fd.ts";
import { addressOf, errno, libc, pinnedBuffer } from "./libc.ts";
import { type SocketAccess, SocketFile } from "./file/path.ts";
import { Quarantine } from "./quarantine.ts";
import { ready, watch } from "./wait/reactor.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_PEERCRED = 17;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;
const SCM_RIGHTS = 1;
const MSG_PEEK = 0x2;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SHUT_RDWR = 2;

/** The longest path of a Unix socket, in bytes: sun_path less its final zero (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** The most descriptors that Linux passes in one message: SCM_MAX_FD (unix(7)). */
const SCM_MAX_FD = 253;

/** How many connections may wait to be accepted. */
const BACKLOG = 128;

const CMSG_HEADER_BYTES = 16;
const MSGHDR_BYTES = 56;

/** How many bytes one call moves at the most. */
const STAGING_BYTES = 8192;

/**
 * struct msghdr with one iovec, the bytes it points at, and room for
 * descriptors, laid out once where V8 does not move it.
 */
class MessageHeader {
  readonly data = new Uint8Array(pinnedBuffer(STAGING_BYTES));
  readonly bytes = new Uint8Array(pinnedBuffer(MSGHDR_BYTES), 0, MSGHDR_BYTES);
  readonly #head = new DataView(this.bytes.buffer);
  readonly #vector = new DataView(pinnedBuffer(16));
  readonly #control = new DataView(
    pinnedBuffer(CMSG_HEADER_BYTES + SCM_MAX_FD * 4 + 4),
  );

  constructor() {
    this.#head.setBigUint64(16, BigInt(addressOf(this.#vector)), true); // msg_iov
    this.#head.setBigUint64(24, 1n, true); // msg_iovlen
  }

  /** Says how many bytes of the data and of the control buffer a call may use. */
  set(dataBytes: number, controlBytes: number): void {
    this.#vector.setBigUint64(0, BigInt(addressOf(this.data)), true);
    this.#vector.setBigUint64(8, BigInt(dataBytes), true);
    this.#head.setBigUint64(
      32,
      controlBytes === 0 ? 0n : BigInt(addressOf(this.#control)),
      true,
    );
    this.#head.setBigUint64(40, BigInt(controlBytes), true);
    this.#head.setInt32(48, 0, true);
  }

  get flags(): number {
    return this.#head.getInt32(48, true);
  }

  /** Puts descriptors into the control buffer; returns its length. */
  putFds(fds: readonly number[]): number {
    if (fds.length === 0) return 0;
    const length = CMSG_HEADER_BYTES + fds.length * 4;
    this.#control.setBigUint64(0, BigInt(length), true);
    this.#control.setInt32(8, SOL_SOCKET, true);
    this.#control.setInt32(12, SCM_RIGHTS, true);
    fds.forEach((fd, i) => this.#control.setInt32(CMSG_HEADER_BYTES + i * 4, fd, true));
    return (length + 7) & ~7;
  }

  /** The length of a control buffer with room for so many descriptors, and not for one more. */
  controlCapacity(fds: number): number {
    return fds === 0 ? 0 : CMSG_HEADER_BYTES + fds * 4;
  }

  /** The header's address, for a call on another thread. */
  get pointer(): Deno.PointerObject {
    return Deno.UnsafePointer.of(this.bytes)!;
  }

  /** Takes every descriptor that came; all of them are the caller's. */
  takeFds(): Fd[] {
    const fds: Fd[] = [];
    const end = Number(this.#head.getBigUint64(40, true));
    for (let at = 0; at + CMSG_HEADER_BYTES <= end;) {
      const length = Number(this.#control.getBigUint64(at, true));
      if (length < CMSG_HEADER_BYTES) break;
      const rights = this.#control.getInt32(at + 8, true) === SOL_SOCKET &&
        this.#control.getInt32(at + 12, true) === SCM_RIGHTS;
      for (
        let fd = at + CMSG_HEADER_BYTES;
        rights && fd + 4 <= at + length;
        fd += 4
      ) {
        fds.push(new Fd(this.#control.getInt32(fd, true)));
      }
      at += (length + 7) & ~7;
    }
    return fds;
  }
}

const outgoing = new MessageHeader();
const incoming = new MessageHeader();

/** What a receive brought. */
export interface Received {
  /** How many bytes were filled; less than asked for only at the end of the stream. */
  bytes: number;
  /** The descriptors that came with them; the caller's to close. */
  fds: Fd[];
  /** More descriptors came than this process has room for, or than one sendmsg carries; those are gone. */
  fdsLost: boolean;
}

/**
 * A connected Unix stream socket. Sending and receiving never block the event
 * loop; each direction takes one caller at a time.
 */
export class UnixConnection implements Disposable {
  #fd: Fd;
  #receiving: Promise<unknown> = Promise.resolve();
  #sending: Promise<unknown> = Promise.resolve();
  #fdsLost = false;
  #closed = false;
  /** For calls on other threads, once there was one. */
  #apart: MessageHeader | undefined;

  /** Takes ownership of a connected socket. */
  constructor(fd: Fd) {
    this.#fd = fd;
  }

  /** Connects to a listening socket. */
  static connect(path: string): UnixConnection {
    const fd = newSocket();
    // A stream connect on a Unix socket ends at once: with a connection, or with
    // EAGAIN while the listener's backlog is full.
    if (libc.connect(fd.number, ...socketAddress(path)) < 0) {
      const error = new LinuxError("connect", errno(), path);
      fd.close();
      throw error;
    }
    return new UnixConnection(fd);
  }

  /** A pair of sockets that are connected to each other. */
  static pair(): [UnixConnection, UnixConnection] {
    const pair = new Int32Array(pinnedBuffer(8), 0, 2);
    check(
      libc.socketpair(
        AF_UNIX,
        SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
        0,
        pair,
      ),
      "socketpair",
    );
    return [
      new UnixConnection(new Fd(pair[0])),
      new UnixConnection(new Fd(pair[1])),
    ];
  }

  /** The socket; it stays this connection's. */
  get fd(): Fd {
    return this.#fd;
  }

  /**
   * Fills `into` completely, waiting as long as it takes.
   *
   * @param mostFds How many descriptors are wanted; the kernel closes others.
   * @returns The bytes filled (0 at the end of the stream, fewer than asked
   * for when the stream ended in the middle) and the descriptors that came.
   * @throws {LinuxError} When the connection broke; nothing that came is leaked then.
   */
  async receive(into: Uint8Array, mostFds: number = SCM_MAX_FD): Promise<Received> {
    const fds: Fd[] = [];
    let bytes = 0;
    this.#fdsLost = false;
    try {
      while (bytes < into.length) {
        const count = this.#receiveSome(into.subarray(bytes), fds, mostFds);
        if (count < 0) {
          await (this.#receiving = ready(this.#fd.number));
        } else if (count === 0) break;
        else bytes += count;
        if (this.#closed) break;
      }
    } catch (error) {
      closeAll(fds);
      throw error;
    }
    return { bytes, fds, fdsLost: this.#fdsLost };
  }

  /**
   * Waits until something comes, and receives it. Descriptors that come with it
   * are closed.
   *
   * @returns How many bytes came; 0 at the end of the stream.
   */
  async receiveSome(into: Uint8Array): Promise<number> {
    while (!this.#closed) {
      const fds: Fd[] = [];
      const count = this.#receiveSome(into, fds, SCM_MAX_FD);
      closeAll(fds);
      if (count >= 0) return count;
      await (this.#receiving = ready(this.#fd.number));
    }
    return 0;
  }

  /** One recvmsg; -1 when there is nothing yet. */
  #receiveSome(into: Uint8Array, fds: Fd[], mostFds: number): number {
    for (;;) {
      incoming.set(
        Math.min(into.length, STAGING_BYTES),
        incoming.controlCapacity(mostFds - fds.length),
      );
      const count = libc.recvmsg(
        this.#fd.number,
        incoming.bytes,
        MSG_CMSG_CLOEXEC | MSG_DONTWAIT,
      );
      if (count >= 0) {
        fds.push(...incoming.takeFds());
        // The process is out of them; or the message was cut, each part with descriptors.
        if (incoming.flags & MSG_CTRUNC) this.#fdsLost = true;
        into.set(incoming.data.subarray(0, count));
        return count;
      }
      const code = errno();
      if (code === Errno.EAGAIN) return -1;
      if (code === Errno.ECONNRESET) return 0;
      if (code !== Errno.EINTR) throw new LinuxError("recvmsg", code);
    }
  }

  /**
   * Waits for bytes and looks at them; they are there still to be received.
   *
   * @returns How many there are, at most as many as `into` has room for: 0 at the end of the stream.
   * @throws {LinuxError} When the connection broke.
   */
  async peek(into: Uint8Array): Promise<number> {
    for (;;) {
      const count = this.#receiveNow(into, MSG_PEEK);
      if (count >= 0) return count;
      await (this.#receiving = ready(this.#fd.number));
      if (this.#closed) return 0;
    }
  }

  /**
   * As {@linkcode UnixConnection.receive}, from somebody who may send
   * descriptors that hold up whoever lets go of them: those that are not
   * wanted do not enter this process, and the kernel drops them on another
   * thread.
   *
   * @param most How many descriptors are wanted
   * @throws {StuckError} When the kernel does not get rid of them in time; there is nothing more to
   * be had from the connection then.
   *
   * @internal
   */
  async receiveFrom(
    into: Uint8Array,
    most: number,
    quarantine: Quarantine,
  ): Promise<Received> {
    const fds: Fd[] = [];
    let bytes = 0;
    let fdsLost = false;
    try {
      while (bytes < into.length && !this.#closed) {
        const rest = into.subarray(bytes, bytes + STAGING_BYTES);
        let count = this.#receiveNow(rest, MSG_PEEK);
        // The kernel tells that there are descriptors by having no room for them.
        if (count > 0 && incoming.flags & MSG_CTRUNC) {
          const room = Math.max(0, most - fds.length);
          const header = await this.#receiveApart(count, room, quarantine);
          into.set(header.data.subarray(0, count), bytes);
          fds.push(...header.takeFds());
          if (header.flags & MSG_CTRUNC) fdsLost = true;
        } else if (count > 0) count = this.#receiveNow(rest.subarray(0, count), 0);
        if (count === 0) break;
        if (count < 0) await (this.#receiving = ready(this.#fd.number));
        else bytes += count;
      }
    } catch (error) {
      await quarantine.letGo(fds);
      throw error;
    }
    return { bytes, fds, fdsLost };
  }

  /** One recvmsg of bytes that are there, on another thread. */
  async #receiveApart(
    bytes: number,
    most: number,
    quarantine: Quarantine,
  ): Promise<MessageHeader> {
    const header = this.#apart ??= new MessageHeader();
    header.set(bytes, header.controlCapacity(most));
    const flags = MSG_CMSG_CLOEXEC | MSG_DONTWAIT;
    const count = await quarantine.call(
      "receiving a message with file descriptors",
      () => libc.recvmsg_async(this.#fd.number, header.pointer, flags),
      // What it brings after all nobody wants any more.
      () => void quarantine.letGo(header.takeFds()).catch(() => {}),
    );
    // Which error it was only the other thread knows.
    if (count !== bytes) throw new LinuxError("recvmsg", Errno.EIO);
    return header;
  }

  /** One recvmsg without room for descriptors; -1 when there is nothing yet. */
  #receiveNow(into: Uint8Array, flags: number): number {
    for (;;) {
      incoming.set(into.length, 0);
      const count = libc.recvmsg(this.#fd.number, incoming.bytes, MSG_DONTWAIT | flags);
      if (count >= 0) {
        into.set(incoming.data.subarray(0, count));
        return count;
      }
      const code = errno();
      if (code === Errno.EAGAIN) return -1;
      if (code === Errno.ECONNRESET) return 0;
      if (code !== Errno.EINTR) throw new LinuxError("recvmsg", code);
    }
  }

  /**
   * Sends all of `data`, the descriptors with its first byte. The descriptors
   * stay the caller's.
   *
   * @throws {LinuxError} When the other side is gone (EPIPE) or the
   * connection broke.
   */
  async send(data: Uint8Array, fds: readonly number[] = []): Promise<void> {
    let sent = 0;
    while (sent < data.length) {
      const count = this.#sendSome(data.subarray(sent), sent === 0 ? fds : []);
      if (count < 0) await (this.#sending = ready(this.#fd.number, "writable"));
      else sent += count;
      if (this.#closed) throw new LinuxError("sendmsg", Errno.EPIPE);
    }
  }

  /** One sendmsg; -1 when there is no room. */
  #sendSome(data: Uint8Array, fds: readonly number[]): number {
    const part = data.subarray(0, STAGING_BYTES);
    outgoing.data.set(part);
    for (;;) {
      outgoing.set(part.length, outgoing.putFds(fds));
      const count = libc.sendmsg(
        this.#fd.number,
        outgoing.bytes,
        MSG_NOSIGNAL | MSG_DONTWAIT,
      );
      if (count >= 0) return count;
      const code = errno();
      if (code === Errno.EAGAIN) return -1;
      if (code !== Errno.EINTR) throw new LinuxError("sendmsg", code);
    }
  }

  /** The process that connected (or listens) at the other end: SO_PEERCRED. */
  peerPid(): number {
    return socketOption(this.#fd.number, SO_PEERCRED, 12);
  }

  /** Makes every wait on this connection end, without closing it yet. */
  shutdown(): void {
    this.#closed = true;
    if (this.#fd.isOpen) libc.shutdown(this.#fd.number, SHUT_RDWR);
  }

  /**
   * Closes the socket once nobody waits on it any more, so that a watched
   * descriptor is never closed.
   */
  async close(): Promise<void> {
    await this.#ended();
    this.#fd.close();
  }

  /**
   * As {@linkcode UnixConnection.close}, for the socket of somebody who may
   * have sent descriptors that were not received: they go with it.
   *
   * @throws {StuckError} When they hold it up.
   * @internal
   */
  async closeIn(quarantine: Quarantine): Promise<void> {
    await this.#ended();
    await quarantine.letGo([this.#fd]);
  }

  async #ended(): Promise<void> {
    this.shutdown();
    await this.#receiving;
    await this.#sending;
  }

  /** Closes the socket; nobody may be waiting on it. */
  [Symbol.dispose](): void {
    this.#fd.close();
  }
}

/** What says that there is no room for a connection just now. */
const EXHAUSTED: readonly number[] = [Errno.EMFILE, Errno.ENFILE, Errno.ENOBUFS, Errno.ENOMEM];

/** How long a connection is left waiting that there is no room for, in milliseconds. */
const EXHAUSTED_PAUSE_MS = 50;

/** A listening Unix socket. */
export class UnixListener implements Disposable {
  #fd: Fd;
  readonly #file: SocketFile | undefined;
  #closed = false;
  /** Ends the wait of {@linkcode UnixListener.accept}. */
  #wake: (() => void) | undefined;

  /**
   * Takes ownership of a listening socket.
   *
   * @param file Its file, if that is to go with it.
   */
  constructor(fd: Fd, file?: SocketFile) {
    this.#fd = fd;
    this.#file = file;
  }

  /**
   * Binds and listens. The file must not exist, and is removed at the end unless
   * its path is another's by then. Nobody can connect before it has the access
   * that is given; without any it has that of the umask.
   *
   * @throws {LinuxError} EADDRINUSE when the path exists, EACCES or ENOENT
   * when it cannot be made, EPERM when it cannot have that access.
   */
  static listen(path: string, access: SocketAccess = {}): UnixListener {
    using made = new DisposableStack();
    const fd = made.use(newSocket());
    // The file has no more than this from its first moment on.
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
      const fd = libc.accept4(
        this.#fd.number,
        null,
        null,
        SOCK_CLOEXEC | SOCK_NONBLOCK,
      );
      if (fd >= 0) return new UnixConnection(new Fd(fd));
      const code = errno();
      if (code === Errno.EAGAIN) await this.#ready();
      else if (EXHAUSTED.includes(code)) await this.#pause();
      else if (code !== Errno.EINTR && code !== Errno.ECONNRESET) {
        throw new LinuxError("accept4", code);
      }
    }
    // With the messages of those that were not accepted, and what came with these.
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
   * Makes the pending (or next) accept return undefined and close the socket.
   * Whoever else has the socket, such as systemd, can go on listening on it.
   */
  stop(): void {
    this.#closed = true;
    this.#wake?.();
    this.#file?.remove();
  }

  /** Closes the socket; nobody may be waiting on it. */
  [Symbol.dispose](): void {
    this.#fd.close();
    this.#file?.remove();
  }
}

/** What an inherited descriptor is. */
export type InheritedSocket = "listening" | "connected";

/**
 * Tells what kind of Unix stream socket a descriptor is.
 *
 * @throws {LinuxError} When it is no socket or not open.
 * @throws {TypeError} When it is another kind of socket.
 */
export function inspectSocket(fd: number): InheritedSocket {
  if (
    socketOption(fd, SO_DOMAIN) !== AF_UNIX ||
    socketOption(fd, SO_TYPE) !== SOCK_STREAM
  ) {
    throw new TypeError(
      `Expected file descriptor ${fd} to be a Unix stream socket, got another kind of socket`,
    );
  }
  return socketOption(fd, SO_ACCEPTCONN) !== 0 ? "listening" : "connected";
}

const optionValue = new Int32Array(pinnedBuffer(64));
const optionLength = new Int32Array(pinnedBuffer(4), 0, 1);

/** The first word of an option that has `bytes` bytes. */
function socketOption(fd: number, name: number, bytes = 4): number {
  optionLength[0] = bytes;
  check(
    libc.getsockopt(fd, SOL_SOCKET, name, optionValue, optionLength),
    "getsockopt",
    `file descriptor ${fd}`,
  );
  return optionValue[0];
}

function newSocket(): Fd {
  return new Fd(
    check(
      libc.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
      "socket",
    ),
  );
}

/** struct sockaddr_un and its length. */
function socketAddress(path: string): [Uint8Array<ArrayBuffer>, number] {
  const name = new TextEncoder().encode(path);
  if (name.length === 0 || name.length > MAX_SOCKET_PATH_BYTES) {
    throw new RangeError(
      `Expected a socket path of 1 to ${MAX_SOCKET_PATH_BYTES} bytes, got ${name.length}: ${path}`,
    );
  }
  const address = new Uint8Array(2 + MAX_SOCKET_PATH_BYTES + 1);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, 2);
  return [address, 2 + name.length + 1];
}
