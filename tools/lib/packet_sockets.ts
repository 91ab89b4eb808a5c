/** Sockets that keep packets apart: what can take the place of a TAP. */
import { libc } from "../../src/linux/libc.ts";
import { check, Fd, pinnedBuffer } from "../../src/linux/mod.ts";

/** Kinds of sockets that keep packets apart. */
export const SOCK_DGRAM = 2, SOCK_SEQPACKET = 5;

const AF_UNIX = 1, SOCK_NONBLOCK = 0o4000, SOCK_CLOEXEC = 0o2000000;

/** Makes both ends of a connection: the first for a device, which closes it, the second for its peer. */
export function packetSockets(kind = SOCK_SEQPACKET): [device: number, peer: Fd] {
  const fds = new Int32Array(pinnedBuffer(8), 0, 2);
  const type = kind | SOCK_NONBLOCK | SOCK_CLOEXEC;
  check(libc.socketpair(AF_UNIX, type, 0, fds), "socketpair");
  return [fds[0], new Fd(fds[1])];
}
