/**
 * TAP devices: network interfaces whose packets a program reads and writes.
 *
 * Sources: Linux, `include/uapi/linux/if_tun.h`, `Documentation/networking/tuntap.rst`; netdevice(7).
 *
 * @module
 */

import { check, Errno, LinuxError } from "./errors.ts";
import { Fd, setNonblocking } from "./fd.ts";
import { openFile } from "./file/file.ts";
import { errno, libc } from "./libc.ts";

const TUNSETIFF = 0x4004_54ca;
const TUNSETOFFLOAD = 0x4004_54d0;
const TUNGETIFF = 0x8004_54d2;
const TUNSETVNETHDRSZ = 0x4004_54d8;
const TUNSETQUEUE = 0x4004_54d9;
const TUNSETVNETLE = 0x4004_54dc;
const TUNSETCARRIER = 0x4004_54e2;

const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_ATTACH_QUEUE = 0x0200;
const IFF_DETACH_QUEUE = 0x0400;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;

const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCGIFMTU = 0x8921;
const SIOCSIFMTU = 0x8922;
const SIOCGIFINDEX = 0x8933;
const SIOCBRADDIF = 0x89a2;
const IFF_UP = 1;

const AF_INET = 2, SOCK_DGRAM = 2, SOCK_CLOEXEC = 0o2000000;

/** The most bytes of an interface's name: IFNAMSIZ without the zero byte. */
const MAX_NAME_BYTES = 15;

/** struct ifreq: the name, and a union from byte 16 on. */
const IFREQ_BYTES = 40, IFREQ_UNION = 16;

/** What a TAP may pass to its reader without the kernel doing it before: TUNSETOFFLOAD. */
export const TapOffload = {
  /** Partial checksums; the others need it. */
  CSUM: 0x01,
  /** Large TCP packets over IPv4. */
  TSO4: 0x02,
  /** Large TCP packets over IPv6. */
  TSO6: 0x04,
  /** Large TCP packets with ECN. */
  TSO_ECN: 0x08,
  /** Large UDP packets that become IP fragments. */
  UFO: 0x10,
  /** Large UDP packets over IPv4; Linux 6.2 and later, together with USO6. */
  USO4: 0x20,
  /** Large UDP packets over IPv6. */
  USO6: 0x40,
} as const;

function ifreq(name: string): DataView<ArrayBuffer> {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length > MAX_NAME_BYTES || /[\s/\0%]/.test(name)) {
    throw new TypeError(
      `Expected the name of an interface, 1 to ${MAX_NAME_BYTES} bytes, got ${
        JSON.stringify(name)
      }`,
    );
  }
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(bytes);
  return new DataView(request.buffer);
}

/**
 * Opens a queue of a TAP, which is made when there is none of its name. Its packets begin with a
 * virtio-net header of `headerBytes` bytes, little-endian. The descriptor does not block.
 *
 * @param isMultiQueue It has several queues: each is one call.
 * @throws {LinuxError} EPERM without CAP_NET_ADMIN, EBUSY when the TAP is in use, EINVAL when it was
 * made with other properties.
 */
export function openTap(name: string, headerBytes: number, isMultiQueue: boolean): Fd {
  const fd = openFile("/dev/net/tun", { write: true, nonblocking: true });
  try {
    const request = ifreq(name);
    const flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (isMultiQueue ? IFF_MULTI_QUEUE : 0);
    request.setUint16(IFREQ_UNION, flags, true);
    check(libc.ioctl(fd.number, TUNSETIFF, request), "ioctl", `TUNSETIFF ${name}`);
    setHeader(fd.number, headerBytes);
    return fd;
  } catch (error) {
    fd.close();
    throw error;
  }
}

/**
 * Takes over an inherited queue of a TAP, as {@linkcode openTap} makes it.
 *
 * @returns The name of the TAP; undefined when the descriptor is none.
 * @throws {TypeError} When its packets have no virtio-net header.
 */
export function adoptTap(fd: number, headerBytes: number): string | undefined {
  const request = new DataView(new ArrayBuffer(IFREQ_BYTES));
  if (libc.ioctl(fd, TUNGETIFF, request) < 0) return undefined;
  const flags = request.getUint16(IFREQ_UNION, true);
  if ((flags & IFF_TAP) === 0 || (flags & IFF_VNET_HDR) === 0 || (flags & IFF_NO_PI) === 0) {
    throw new TypeError(
      `Expected a TAP with IFF_NO_PI and IFF_VNET_HDR, got flags 0x${flags.toString(16)}`,
    );
  }
  setHeader(fd, headerBytes);
  setNonblocking(fd, true);
  const name = new Uint8Array(request.buffer, 0, MAX_NAME_BYTES + 1);
  return new TextDecoder().decode(name.subarray(0, name.indexOf(0)));
}

function setHeader(fd: number, headerBytes: number): void {
  check(libc.ioctl(fd, TUNSETVNETHDRSZ, Int32Array.of(headerBytes)), "ioctl", "TUNSETVNETHDRSZ");
  check(libc.ioctl(fd, TUNSETVNETLE, Int32Array.of(1)), "ioctl", "TUNSETVNETLE");
}

/**
 * Says what the TAP may pass to its readers: a mask of {@linkcode TapOffload}.
 *
 * @returns Whether this kernel can do that; if not, nothing changed.
 */
export function setTapOffload(fd: number, offload: number): boolean {
  if (libc.ioctl_number(fd, TUNSETOFFLOAD, BigInt(offload)) >= 0) return true;
  if (errno() === Errno.EINVAL) return false;
  throw new LinuxError("ioctl", errno(), "TUNSETOFFLOAD");
}

/** Attaches a queue of a TAP, or detaches it: then the kernel gives it no packets. */
export function attachTapQueue(fd: number, isAttached: boolean): void {
  const request = new DataView(new ArrayBuffer(IFREQ_BYTES));
  request.setUint16(IFREQ_UNION, isAttached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE, true);
  check(libc.ioctl(fd, TUNSETQUEUE, request), "ioctl", "TUNSETQUEUE");
}

/** Says whether a TAP has a carrier: its host sees a cable that is plugged in, or is not. */
export function setTapCarrier(fd: number, hasCarrier: boolean): void {
  check(libc.ioctl(fd, TUNSETCARRIER, Int32Array.of(hasCarrier ? 1 : 0)), "ioctl", "TUNSETCARRIER");
}

/** A network interface of this network namespace. */
export class NetworkInterface implements Disposable {
  readonly #name: string;
  readonly #socket: Fd;

  /** Finds an interface by its name; it need not exist yet. */
  constructor(name: string) {
    ifreq(name);
    this.#name = name;
    this.#socket = new Fd(check(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
  }

  /** Its index; undefined when there is none of this name. */
  get index(): number | undefined {
    const request = ifreq(this.#name);
    if (libc.ioctl(this.#socket.number, SIOCGIFINDEX, request) < 0) return undefined;
    return request.getInt32(IFREQ_UNION, true);
  }

  /** The largest packet that it takes, in bytes, without the Ethernet header. */
  get mtu(): number {
    return this.#ask(SIOCGIFMTU, "SIOCGIFMTU").getInt32(IFREQ_UNION, true);
  }

  /** Sets the largest packet. */
  set mtu(bytes: number) {
    this.#ask(SIOCSIFMTU, "SIOCSIFMTU", (request) => request.setInt32(IFREQ_UNION, bytes, true));
  }

  /** Sets it up, so that packets pass; one that is up needs no privileges. */
  setUp(): void {
    const flags = this.#ask(SIOCGIFFLAGS, "SIOCGIFFLAGS").getUint16(IFREQ_UNION, true);
    if ((flags & IFF_UP) !== 0) return;
    this.#ask(
      SIOCSIFFLAGS,
      "SIOCSIFFLAGS",
      (request) => request.setUint16(IFREQ_UNION, flags | IFF_UP, true),
    );
  }

  /** Makes another interface a port of this one, a bridge; one that is a port of it stays. */
  addPort(index: number): void {
    const request = ifreq(this.#name);
    request.setInt32(IFREQ_UNION, index, true);
    if (libc.ioctl(this.#socket.number, SIOCBRADDIF, request) >= 0) return;
    if (errno() === Errno.EBUSY) return;
    throw new LinuxError("ioctl", errno(), `SIOCBRADDIF ${this.#name}`);
  }

  #ask(
    code: number,
    what: string,
    fill: (request: DataView) => void = () => {},
  ): DataView<ArrayBuffer> {
    const request = ifreq(this.#name);
    fill(request);
    check(libc.ioctl(this.#socket.number, code, request), "ioctl", `${what} ${this.#name}`);
    return request;
  }

  /** Closes the socket by which it is asked. */
  [Symbol.dispose](): void {
    this.#socket.close();
  }
}
