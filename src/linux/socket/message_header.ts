/**
 * What sendmsg and recvmsg work on: bytes, and descriptors beside them. Source: recvmsg(2), cmsg(3).
 *
 * @module
 */

import { Fd } from "../fd.ts";
import { addressOf, pinnedBuffer } from "../libc.ts";
import { SOL_SOCKET } from "./unix_socket.ts";

const SCM_RIGHTS = 1;

/** The most descriptors that Linux passes in one message: SCM_MAX_FD (unix(7)). */
export const SCM_MAX_FD = 253;

/** How many bytes one call moves at most. */
export const STAGING_BYTES = 8192;

const CMSG_HEADER_BYTES = 16;
const MSGHDR_BYTES = 56;

/**
 * struct msghdr with one iovec, the bytes it points at, and room for
 * descriptors, laid out once where V8 does not move it.
 */
export class MessageHeader {
  /** The bytes that are sent or received. */
  readonly data = new Uint8Array(pinnedBuffer(STAGING_BYTES));
  /** The struct, for a call. */
  readonly bytes = new Uint8Array(pinnedBuffer(MSGHDR_BYTES), 0, MSGHDR_BYTES);
  readonly #head = new DataView(this.bytes.buffer);
  readonly #vector = new DataView(pinnedBuffer(16));
  readonly #control = new DataView(pinnedBuffer(CMSG_HEADER_BYTES + SCM_MAX_FD * 4 + 4));

  constructor() {
    this.#vector.setBigUint64(0, BigInt(addressOf(this.data)), true);
    this.#head.setBigUint64(16, BigInt(addressOf(this.#vector)), true); // msg_iov
    this.#head.setBigUint64(24, 1n, true); // msg_iovlen
    this.#head.setBigUint64(32, BigInt(addressOf(this.#control)), true); // msg_control
  }

  /** Limits the bytes and descriptors that a call receives. */
  expect(bytes: number, fds: number): void {
    this.#setLengths(bytes, fds === 0 ? 0 : CMSG_HEADER_BYTES + fds * 4);
  }

  /** Sets the bytes (at most STAGING_BYTES) and descriptors that a call sends. */
  put(bytes: Uint8Array, fds: readonly number[]): void {
    this.data.set(bytes);
    const length = CMSG_HEADER_BYTES + fds.length * 4;
    this.#control.setBigUint64(0, BigInt(length), true);
    this.#control.setInt32(8, SOL_SOCKET, true);
    this.#control.setInt32(12, SCM_RIGHTS, true);
    fds.forEach((fd, i) => this.#control.setInt32(CMSG_HEADER_BYTES + i * 4, fd, true));
    this.#setLengths(bytes.length, fds.length === 0 ? 0 : (length + 7) & ~7);
  }

  #setLengths(dataBytes: number, controlBytes: number): void {
    this.#vector.setBigUint64(8, BigInt(dataBytes), true);
    this.#head.setBigUint64(40, BigInt(controlBytes), true);
    this.#head.setInt32(48, 0, true);
  }

  /** The flags that the last receive returned. */
  get flags(): number {
    return this.#head.getInt32(48, true);
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
      const hasFds = this.#control.getInt32(at + 8, true) === SOL_SOCKET &&
        this.#control.getInt32(at + 12, true) === SCM_RIGHTS;
      for (let fd = at + CMSG_HEADER_BYTES; hasFds && fd + 4 <= at + length; fd += 4) {
        fds.push(new Fd(this.#control.getInt32(fd, true)));
      }
      at += (length + 7) & ~7;
    }
    return fds;
  }
}
