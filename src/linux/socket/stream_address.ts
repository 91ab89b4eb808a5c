/**
 * Stream sockets by the addresses that people write: a path, or HOST:PORT. Sources: unix(7), tcp(7),
 * getaddrinfo(3).
 *
 * @module
 */

import { check, Errno, LinuxError } from "../errors.ts";
import { Fd } from "../fd.ts";
import { errno, libc, pinnedBuffer, pinnedString } from "../libc.ts";
import { watch } from "../wait/reactor.ts";
import { listenOnPath } from "./listen_on_path.ts";
import { UnixListener } from "./listener.ts";
import {
  AF_UNIX,
  SO_ERROR,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  socketAddress,
  socketOption,
  SOL_SOCKET,
} from "./unix_socket.ts";

const SO_REUSEADDR = 2;
const SO_KEEPALIVE = 9;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_USER_TIMEOUT = 18;
const AI_PASSIVE = 1;

/** A TCP peer that is silent for this long is asked for a sign of life, in seconds. */
const KEEPALIVE_S = 10;

/** A TCP peer that acknowledges nothing for this long is gone, in milliseconds. */
const GONE_MS = 30_000;

/** How long connecting may take, in milliseconds. */
const CONNECT_MS = 5000;

/** How many connections may wait to be accepted. */
const BACKLOG = 8;

/** The address of a stream socket. */
export interface StreamAddress {
  /** The text that it was made from. */
  readonly text: string;
  /** The path of a Unix socket; undefined for TCP. */
  readonly path: string | undefined;
  /** AF_UNIX, AF_INET or AF_INET6. */
  readonly family: number;
  /** The struct sockaddr of the family. */
  readonly sockaddr: Uint8Array<ArrayBuffer>;
}

/**
 * Reads an address: `HOST:PORT` or `[ADDRESS]:PORT` for TCP, anything else is the path of a Unix
 * socket. One of Deno's threads looks up a name, which may take long; its first address counts.
 *
 * @param isPassive The address is for listening: `:PORT` then stands for all of the host's.
 * @throws {TypeError} When it is none, or the name cannot be resolved.
 * @throws {RangeError} When the path is too long.
 */
export async function lookUpStreamAddress(
  text: string,
  isPassive = false,
): Promise<StreamAddress> {
  const place = tcpPlace(text, isPassive);
  if (place === undefined) {
    const [sockaddr, bytes] = socketAddress(text);
    return { text, path: text, family: AF_UNIX, sockaddr: sockaddr.subarray(0, bytes) };
  }
  const { host, port, hints, result } = place;
  const [node, service, hint, res] = [host, port, hints, result].map((buffer) =>
    buffer && Deno.UnsafePointer.of(buffer)
  );
  return addressOf(place, await libc.getaddrinfo_async(node, service, hint, res));
}

/** A place in TCP, as getaddrinfo takes it: memory that does not move. */
interface TcpPlace {
  readonly text: string;
  readonly host: Uint8Array<ArrayBuffer> | null;
  readonly port: Uint8Array<ArrayBuffer>;
  readonly hints: Int32Array<ArrayBuffer>;
  readonly result: BigUint64Array<ArrayBuffer>;
}

/** Reads `HOST:PORT`; undefined for anything else. */
function tcpPlace(text: string, isPassive: boolean): TcpPlace | undefined {
  const [, bracketed, plain, port] = text.match(/^(?:\[([^\]]*)\]|([^/:]*)):(\d+)$/) ?? [];
  if (port === undefined) return undefined;
  const host = bracketed ?? plain;
  if (Number(port) < 1 || Number(port) > 65_535 || (host === "" && !isPassive)) {
    throw new TypeError(`Expected a path or HOST:PORT, got ${JSON.stringify(text)}`);
  }
  const hints = new Int32Array(pinnedBuffer(48));
  hints[0] = isPassive ? AI_PASSIVE : 0;
  hints[2] = SOCK_STREAM;
  return {
    ...{ text, hints },
    host: host ? pinnedString(host) : null,
    port: pinnedString(port),
    result: new BigUint64Array(pinnedBuffer(8), 0, 1),
  };
}

/** The first address of what getaddrinfo returned. */
function addressOf({ text, result }: TcpPlace, failure: number): StreamAddress {
  if (failure !== 0) {
    const why = Deno.UnsafePointerView.getCString(libc.gai_strerror(failure)!);
    const host = text.slice(0, text.lastIndexOf(":"));
    throw new TypeError(`Cannot resolve ${JSON.stringify(host)}: ${why}`);
  }
  // struct addrinfo: ai_flags, ai_family, ai_socktype, ai_protocol, ai_addrlen, ai_addr, …
  const first = Deno.UnsafePointer.create(result[0])!;
  const view = new Deno.UnsafePointerView(first);
  const sockaddr = new Uint8Array(view.getUint32(16));
  new Deno.UnsafePointerView(view.getPointer(24)!).copyInto(sockaddr);
  const family = view.getInt32(4);
  libc.freeaddrinfo(first);
  return { text, path: undefined, family, sockaddr };
}

function newStream(address: StreamAddress): Fd {
  const type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  return new Fd(check(libc.socket(address.family, type, 0), "socket"));
}

function setOption(fd: number, level: number, name: number, value: number): void {
  check(libc.setsockopt(fd, level, name, Int32Array.of(value), 4), "setsockopt");
}

/** Makes a TCP connection send at once, and find out when its peer is gone. */
function setTcpOptions(fd: number): void {
  setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S);
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_S);
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 2);
  setOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, GONE_MS);
}

/**
 * Connects. The socket does not block.
 *
 * @param signal Ends the attempt.
 * @throws {LinuxError} When there is no connection within 5 seconds: ENOENT or ECONNREFUSED when
 * no process listens, ETIMEDOUT, ECANCELED after the signal.
 */
export async function connectStream(address: StreamAddress, signal: AbortSignal): Promise<Fd> {
  using made = new DisposableStack();
  const fd = made.use(newStream(address));
  const { sockaddr, text } = address;
  let code = libc.connect(fd.number, sockaddr, sockaddr.length) < 0 ? errno() : 0;
  if (code === Errno.EINPROGRESS) {
    code = await connected(fd.number, signal) ? socketOption(fd.number, SO_ERROR) : Errno.ETIMEDOUT;
  }
  if (signal.aborted) code = Errno.ECANCELED;
  if (code !== 0) throw new LinuxError("connect", code, text);
  if (address.path === undefined) setTcpOptions(fd.number);
  made.move();
  return fd;
}

/** Waits until an attempt to connect has ended; returns whether it did in time. */
function connected(fd: number, signal: AbortSignal): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const end = (inTime: boolean) => {
    waiting[Symbol.dispose]();
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
    resolve(inTime);
  };
  const abort = () => end(false);
  const waiting = watch(fd, "writable", () => end(true));
  const timer = setTimeout(abort, CONNECT_MS);
  signal.addEventListener("abort", abort);
  return promise;
}

/**
 * Listens. On a path, a socket file without a listener is replaced, and at the end removed.
 *
 * @throws {EndpointError} When it cannot listen on a path.
 * @throws {LinuxError} EADDRINUSE or EADDRNOTAVAIL when it cannot listen at a TCP address.
 */
export function listenStream(address: StreamAddress): UnixListener {
  const { path, sockaddr, text } = address;
  if (path !== undefined) return listenOnPath(path, UnixListener.listen);
  using made = new DisposableStack();
  const fd = made.use(newStream(address));
  setOption(fd.number, SOL_SOCKET, SO_REUSEADDR, 1);
  // Connections inherit these options.
  setTcpOptions(fd.number);
  check(libc.bind(fd.number, sockaddr, sockaddr.length), "bind", text);
  check(libc.listen(fd.number, BACKLOG), "listen", text);
  made.move();
  return new UnixListener(fd);
}
