/**
 * What connections and listeners share: sockets, their addresses and options. Source: unix(7).
 *
 * @module
 */

import { check } from "../errors.ts";
import { Fd } from "../fd.ts";
import { libc, pinnedBuffer } from "../libc.ts";

export const AF_UNIX = 1;
export const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_SEQPACKET = 5;
export const SOCK_CLOEXEC = 0o2000000;
export const SOCK_NONBLOCK = 0o4000;
export const SOL_SOCKET = 1;
const SO_TYPE = 3;
export const SO_ERROR = 4;
export const SO_PEERCRED = 17;
const SO_ACCEPTCONN = 30;
const SO_DOMAIN = 39;
const POLLRDHUP = 0x2000;

/** The longest path of a Unix socket, in bytes: sun_path less its final zero. */
export const MAX_SOCKET_PATH_BYTES = 107;

/** A new non-blocking stream socket. */
export function newSocket(): Fd {
  const type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  return new Fd(check(libc.socket(AF_UNIX, type, 0), "socket"));
}

/**
 * struct sockaddr_un and its length.
 *
 * @throws {RangeError} When the path is empty or longer than {@linkcode MAX_SOCKET_PATH_BYTES}.
 */
export function socketAddress(path: string): [Uint8Array<ArrayBuffer>, number] {
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

const optionValue = new Int32Array(pinnedBuffer(64));
const optionLength = new Int32Array(pinnedBuffer(4), 0, 1);

/** The first word of a socket option that has `bytes` bytes. */
export function socketOption(fd: number, name: number, bytes = 4): number {
  optionLength[0] = bytes;
  check(
    libc.getsockopt(fd, SOL_SOCKET, name, optionValue, optionLength),
    "getsockopt",
    `file descriptor ${fd}`,
  );
  return optionValue[0];
}

/** Whether a descriptor is a connected socket that keeps packets apart. */
export function isPacketSocket(fd: number): boolean {
  try {
    if (![SOCK_DGRAM, SOCK_SEQPACKET].includes(socketOption(fd, SO_TYPE))) return false;
  } catch {
    return false;
  }
  // Of the address only the length matters, which may be 0
  const length = Int32Array.of(0);
  return libc.getpeername(fd, new Uint8Array(1), length) === 0;
}

const pollfd = new DataView(new ArrayBuffer(8)); // struct pollfd: fd, events, revents

/** Whether the peer of a socket sends nothing more; packets may be left. */
export function hasHungUp(fd: number): boolean {
  pollfd.setInt32(0, fd, true);
  pollfd.setInt32(4, POLLRDHUP, true);
  return libc.poll(pollfd, 1, 0) > 0;
}

/** What an inherited descriptor is. */
export type InheritedSocket = "listening" | "connected";

/**
 * Tells whether a Unix stream socket listens or is connected.
 *
 * @throws {LinuxError} When it is no socket or not open.
 * @throws {TypeError} When it is another kind of socket.
 */
export function inspectSocket(fd: number): InheritedSocket {
  if (socketOption(fd, SO_DOMAIN) !== AF_UNIX || socketOption(fd, SO_TYPE) !== SOCK_STREAM) {
    throw new TypeError(
      `Expected file descriptor ${fd} to be a Unix stream socket, got another kind of socket`,
    );
  }
  return socketOption(fd, SO_ACCEPTCONN) !== 0 ? "listening" : "connected";
}
