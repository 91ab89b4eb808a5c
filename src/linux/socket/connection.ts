/**
 * Connected Unix stream sockets that carry file descriptors.
 *
 * @module
 */

import { check, Errno, LinuxError } from "../errors.ts";
import { closeAll, Fd } from "../fd.ts";
import { errno, libc, pinnedBuffer } from "../libc.ts";
import type { Quarantine } from "../quarantine.ts";
import { ready } from "../wait/reactor.ts";
import { MessageHeader, SCM_MAX_FD, STAGING_BYTES } from "./message_header.ts";
import {
  AF_UNIX,
  newSocket,
  SO_PEERCRED,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  socketAddress,
  socketOption,
} from "./unix_socket.ts";

const MSG_PEEK = 0x2;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SHUT_RDWR = 2;

const outgoing = new MessageHeader();
const incoming = new MessageHeader();

/** What a receive brought. */
export interface Received {
  /** How many bytes were filled; less than asked for only at the end of the stream. */
  bytes: number;
  /** The descriptors that came with them; the caller's to close. */
  fds: Fd[];
  /** More descriptors came than were wanted or than this process has room for; those are gone. */
  fdsLost: boolean;
}

/**
 * A connected Unix stream socket. Sending and receiving never block the event
 * loop; each direction takes one caller at a time.
 */
export class UnixConnection implements Disposable {
  readonly #fd: Fd;
  #receiving: Promise<void> = Promise.resolve();
  #sending: Promise<void> = Promise.resolve();
  #closed = false;
  /** For calls on other threads, once there was one. */
  #apart: MessageHeader | undefined;

  /** Takes ownership of a connected non-blocking socket. */
  constructor(fd: Fd) {
    this.#fd = fd;
  }

  /**
   * Connects to a listening socket.
   *
   * @throws {LinuxError} ENOENT or ECONNREFUSED when no process listens, EAGAIN when the listener's
   * backlog is full.
   */
  static connect(path: string): UnixConnection {
    const fd = newSocket();
    // Connecting to a Unix stream socket never waits.
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
    const type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    check(libc.socketpair(AF_UNIX, type, 0, pair), "socketpair");
    return [new UnixConnection(new Fd(pair[0])), new UnixConnection(new Fd(pair[1]))];
  }

  /** The socket; it stays this connection's. */
  get fd(): Fd {
    return this.#fd;
  }

  #readable(): Promise<void> {
    return this.#receiving = ready(this.#fd.number);
  }

  /**
   * Fills `into` completely, waiting as long as it takes.
   *
   * @param mostFds How many descriptors are wanted; the kernel closes others.
   * @returns The bytes filled (0 at the end of the stream, fewer than asked
   * for when the stream ended in the middle) and the descriptors that came.
   * @throws {LinuxError} When the connection broke; descriptors that came are closed then.
   */
  async receive(into: Uint8Array, mostFds: number = SCM_MAX_FD): Promise<Received> {
    const received: Received = { bytes: 0, fds: [], fdsLost: false };
    const { fds } = received;
    try {
      while (received.bytes < into.length && !this.#closed) {
        const count = this.#receiveNow(into.subarray(received.bytes), 0, mostFds - fds.length);
        if (count === 0) break;
        if (count < 0) await this.#readable();
        else this.#note(received, count, incoming);
      }
    } catch (error) {
      closeAll(fds);
      throw error;
    }
    return received;
  }

  #note(received: Received, count: number, header: MessageHeader): void {
    received.bytes += count;
    received.fds.push(...header.takeFds());
    if (header.flags & MSG_CTRUNC) received.fdsLost = true;
  }

  /**
   * Waits until something comes, and receives it. Descriptors that come with it
   * are closed.
   *
   * @returns How many bytes came; 0 at the end of the stream.
   * @throws {LinuxError} When the connection broke.
   */
  receiveSome(into: Uint8Array): Promise<number> {
    return this.#receiveAny(into, 0);
  }

  /**
   * Waits until something comes, and copies it; it stays there to be received.
   *
   * @returns How many bytes were copied; 0 at the end of the stream.
   * @throws {LinuxError} When the connection broke.
   */
  peek(into: Uint8Array): Promise<number> {
    return this.#receiveAny(into, MSG_PEEK);
  }

  async #receiveAny(into: Uint8Array, flags: number): Promise<number> {
    while (!this.#closed) {
      const count = this.#receiveNow(into, flags, 0);
      if (count >= 0) return count;
      await this.#readable();
    }
    return 0;
  }

  /** One recvmsg with room for `mostFds` descriptors; -1 when nothing is there, 0 at the end. */
  #receiveNow(into: Uint8Array, flags: number, mostFds: number): number {
    for (;;) {
      incoming.expect(Math.min(into.length, STAGING_BYTES), mostFds);
      const all = MSG_CMSG_CLOEXEC | MSG_DONTWAIT | flags;
      const count = libc.recvmsg(this.#fd.number, incoming.bytes, all);
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
   * Receives as {@linkcode UnixConnection.receive} does, from a peer that may send descriptors
   * whose closing waits: those that are not wanted do not enter this process, and the kernel closes
   * them on another thread.
   *
   * @throws {StuckError} When the kernel does not close them in time. Nothing more can be received
   * from the connection then.
   *
   * @internal
   */
  async receiveFrom(
    into: Uint8Array,
    mostFds: number,
    quarantine: Quarantine,
  ): Promise<Received> {
    const received: Received = { bytes: 0, fds: [], fdsLost: false };
    const { fds } = received;
    try {
      while (received.bytes < into.length && !this.#closed) {
        const rest = into.subarray(received.bytes, received.bytes + STAGING_BYTES);
        let count = this.#receiveNow(rest, MSG_PEEK, 0);
        // Without room for descriptors, the flag tells that there are some.
        if (count > 0 && incoming.flags & MSG_CTRUNC) {
          const room = Math.max(0, mostFds - fds.length);
          const header = await this.#receiveApart(count, room, quarantine);
          rest.set(header.data.subarray(0, count));
          this.#note(received, count, header);
          continue;
        }
        if (count > 0) count = this.#receiveNow(rest.subarray(0, count), 0, 0);
        if (count === 0) break;
        if (count < 0) await this.#readable();
        else received.bytes += count;
      }
    } catch (error) {
      await quarantine.letGo(fds);
      throw error;
    }
    return received;
  }

  /** One recvmsg of bytes that are there, on another thread. */
  async #receiveApart(
    bytes: number,
    mostFds: number,
    quarantine: Quarantine,
  ): Promise<MessageHeader> {
    const header = this.#apart ??= new MessageHeader();
    header.expect(bytes, mostFds);
    const flags = MSG_CMSG_CLOEXEC | MSG_DONTWAIT;
    const count = await quarantine.call(
      "receiving a message with file descriptors",
      () => libc.recvmsg_async(this.#fd.number, header.pointer, flags),
      // It came too late to be wanted.
      () => void quarantine.letGo(header.takeFds()).catch(() => {}),
    );
    // errno is the other thread's.
    if (count !== bytes) throw new LinuxError("recvmsg", Errno.EIO);
    return header;
  }

  /**
   * Sends all of `data`, the descriptors with its first byte. The descriptors
   * stay the caller's.
   *
   * @throws {LinuxError} When the other side is gone (EPIPE) or the
   * connection broke.
   */
  async send(data: Uint8Array, fds: readonly number[] = []): Promise<void> {
    for (let sent = 0; sent < data.length;) {
      const count = this.#sendNow(data.subarray(sent), sent === 0 ? fds : []);
      if (count < 0) await (this.#sending = ready(this.#fd.number, "writable"));
      else sent += count;
      if (this.#closed) throw new LinuxError("sendmsg", Errno.EPIPE);
    }
  }

  /** One sendmsg; -1 when there is no room. */
  #sendNow(data: Uint8Array, fds: readonly number[]): number {
    outgoing.put(data.subarray(0, STAGING_BYTES), fds);
    for (;;) {
      const count = libc.sendmsg(this.#fd.number, outgoing.bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
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

  /** Ends every wait on the socket, then closes it: a watched descriptor is never closed. */
  async close(): Promise<void> {
    await this.#ended();
    this.#fd.close();
  }

  /**
   * Closes as {@linkcode UnixConnection.close} does, where the peer may have sent descriptors that
   * were not received: they are closed with the socket.
   *
   * @throws {StuckError} When closing them takes too long.
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

  /** Closes the socket, on which no wait may be pending. */
  [Symbol.dispose](): void {
    this.#fd.close();
  }
}
