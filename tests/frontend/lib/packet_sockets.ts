/** Sockets in the place of a TAP. */
import { check, Fd, pinnedBuffer } from "../../../src/linux/mod.ts";
import { libc } from "../../../src/linux/libc.ts";

/** Both ends of a connection that keeps packets apart; the second is the test's. */
export function packetSockets(): [number, Fd] {
  const fds = new Int32Array(pinnedBuffer(8), 0, 2);
  check(libc.socketpair(1, 5 | 0o2004000, 0, fds), "socketpair"); // SOCK_SEQPACKET, non-blocking
  return [fds[0], new Fd(fds[1])];
}
