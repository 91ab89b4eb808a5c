/**
 * Software offloads, for receivers that have none: completes partial checksums and divides large
 * packets into frames, as a network card does.
 *
 * Sources: virtio 1.3, 5.1.6; RFC 1071 (checksums); RFC 791 and RFC 8200 (fragments); RFC 3168, 6.1.2
 * (CWR).
 *
 * @module
 */

import type { Parts } from "../../mod.ts";
import { addressOf, copyBetween, pinnedBuffer } from "../../src/linux/mod.ts";
import { GSO_ECN, GSO_NONE, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, type PacketHeader } from "./header.ts";
import { HEADER_BYTES, MAX_FRAME_BYTES } from "./packet.ts";

/** The most frames that one packet becomes: the largest packet in segments of 32 bytes. */
export const MAX_SEGMENTS = 2048;

/** The most bytes of headers that a large packet may have, for each of its frames. */
export const MAX_HEADER_BYTES = 256;

const ETHERNET_BYTES = 14, VLAN_BYTES = 4, MAX_VLANS = 2;
const IPV4_BYTES = 20, IPV6_BYTES = 40, FRAGMENT_BYTES = 8, TCP_BYTES = 20, UDP_BYTES = 8;
const MAX_IP_BYTES = 65_535;

const TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd, TYPE_VLAN = 0x8100, TYPE_SERVICE_VLAN = 0x88a8;
const HOP_BY_HOP = 0, TCP = 6, UDP = 17, ROUTING = 43, FRAGMENT = 44, OPTIONS = 60;

const TCP_CHECKSUM = 16, UDP_CHECKSUM = 6;
const FIN = 1, PSH = 8, CWR = 0x80;
const MORE_FRAGMENTS = 0x2000, FRAGMENT_OFFSET = 0x1fff;

/**
 * Makes frames of one packet after the other, each with one copy, straight into memory of the
 * caller. It keeps nothing of guest memory that it decides upon: headers are copied once, and the
 * copy is checked and sent. So a guest that changes its packet meanwhile changes payload at most.
 *
 * ```ts ignore
 * // A port that gathers frames in `buffer`, of which `room` bytes are free from `at` on.
 * if (segmenter.begin(packet, header) === 0) return Drop.HEADER;
 * if (segmenter.byteLength > room) return FULL;
 * while (segmenter.left > 0) at += segmenter.next(at);
 * ```
 */
export class Segmenter {
  readonly #base: number;
  readonly #target: DataView<ArrayBuffer>;
  readonly #address: number;
  /** Where a copy goes to, and where from: see `copyBetween`. */
  readonly #addresses = new Float64Array(2);
  /** The headers of the packet, and what is the same in all frames. */
  readonly #headers = new DataView(pinnedBuffer(MAX_HEADER_BYTES), 0, MAX_HEADER_BYTES);
  readonly #headersAddress = addressOf(this.#headers);
  /** A UDP datagram that is divided into fragments: its checksum covers all of them. */
  #datagram: DataView<ArrayBuffer> | undefined;
  #datagramAddress = 0;
  /** The identification of IPv6 fragments. */
  #fragmentId = Math.trunc(Math.random() * 2 ** 32);

  #packet: Parts | undefined;
  /** Where the next payload is: the part of the packet, and the byte in it. */
  #part = 0;
  #skip = 0;
  #frames = 0;
  #next = 0;
  #gso = GSO_NONE;
  #hasChecksum = false;
  /** Offsets in a frame: of the IP header, of what the checksum covers, and of the checksum. */
  #ip = 0;
  #covered = 0;
  #checksum = 0;
  /** The bytes of headers in each frame, of payload in each but the last, and of payload in all. */
  #headerBytes = 0;
  #size = 0;
  #payload = 0;
  #isIpv6 = false;
  /** Where the protocol after the IPv6 headers is named. */
  #nextHeader = 0;
  /** The checksum as the driver left it, without the length that it is for. */
  #partial = 0;

  /**
   * @param target Where frames go: a buffer that does not move (`pinnedBuffer`).
   * @param base The address of index 0 of the guest memory that packets are in.
   */
  constructor(target: Uint8Array<ArrayBuffer>, base: number) {
    this.#target = new DataView(target.buffer, target.byteOffset, target.byteLength);
    this.#address = addressOf(target);
    this.#base = base;
  }

  /** The number of frames that are left of the packet. */
  get left(): number {
    return this.#frames - this.#next;
  }

  /** The number of bytes in all frames of the packet. */
  get byteLength(): number {
    return this.#frames * this.#headerBytes + this.#payload;
  }

  /**
   * Begins a packet, which stays valid and this one's until the last frame is made.
   *
   * @param header Its header, as it was checked.
   * @returns The number of frames, at most {@linkcode MAX_SEGMENTS}; 0 when the packet is not what
   * its header says: drop it.
   */
  begin(packet: Parts, header: PacketHeader): number {
    const bytes = packet.byteLength - HEADER_BYTES;
    this.#packet = packet;
    this.#gso = header.gsoType & ~GSO_ECN;
    this.#hasChecksum = header.flags !== 0;
    this.#covered = header.csumStart;
    this.#checksum = header.csumStart + header.csumOffset;
    this.#next = 0;
    this.#frames = 1;
    this.#headerBytes = 0;
    this.#size = this.#payload = bytes;
    this.#seek(HEADER_BYTES);
    if (this.#gso !== GSO_NONE && !this.#divide(bytes, header.gsoSize)) this.#frames = 0;
    return this.#frames;
  }

  /** Reads and checks the headers of a large packet; returns false when they are wrong. */
  #divide(bytes: number, gsoSize: number): boolean {
    const headers = this.#headers, covered = this.#covered, gso = this.#gso;
    const copied = Math.min(bytes, MAX_HEADER_BYTES);
    this.#addresses[0] = this.#headersAddress;
    this.#copy(copied);
    if (copied < covered + UDP_BYTES) return false;
    const protocol = this.#readIp();
    if (gso === GSO_UDP) {
      // Offsets of fragments count 8 bytes, and the UDP header is payload of the first.
      gsoSize &= ~7;
      if (protocol !== UDP || this.#checksum !== covered + UDP_CHECKSUM) return false;
      this.#headerBytes = covered + (this.#isIpv6 ? FRAGMENT_BYTES : 0);
      this.#payload = bytes - covered;
      this.#readDatagram();
    } else if (gso === GSO_UDP_L4) {
      if (protocol !== UDP || this.#checksum !== covered + UDP_CHECKSUM) return false;
      this.#headerBytes = covered + UDP_BYTES;
      this.#payload = bytes - this.#headerBytes;
    } else {
      if (protocol !== TCP || this.#checksum !== covered + TCP_CHECKSUM) return false;
      if (this.#isIpv6 !== (gso === GSO_TCPV6) || copied < covered + TCP_BYTES) return false;
      const tcpBytes = headers.getUint8(covered + 12) >>> 4 << 2;
      if (tcpBytes < TCP_BYTES || copied < covered + tcpBytes) return false;
      this.#headerBytes = covered + tcpBytes;
      this.#payload = bytes - this.#headerBytes;
    }
    this.#size = gsoSize;
    this.#frames = Math.max(1, Math.ceil(this.#payload / gsoSize));
    const largest = this.#headerBytes + Math.min(gsoSize, this.#payload);
    if (largest - this.#ip - (this.#isIpv6 ? IPV6_BYTES : 0) > MAX_IP_BYTES) return false;
    // A fragment has a header that the packet has not.
    if (largest > MAX_FRAME_BYTES) return false;
    if (gso === GSO_UDP) {
      this.#hasChecksum = false;
      if (this.#isIpv6) this.#addFragmentHeader();
      this.#skip = 0;
    } else {
      // What the driver has added up covers the whole packet's length.
      this.#partial = headers.getUint16(this.#checksum) + (~(bytes - covered) & 0xffff);
      this.#seek(HEADER_BYTES + this.#headerBytes);
    }
    return this.#frames <= MAX_SEGMENTS;
  }

  /** Returns the protocol whose header is where the checksum begins; -1 when none is. */
  #readIp(): number {
    const headers = this.#headers, covered = this.#covered;
    let ip = ETHERNET_BYTES;
    let type = headers.getUint16(ip - 2);
    for (let i = 0; i < MAX_VLANS && (type === TYPE_VLAN || type === TYPE_SERVICE_VLAN); i++) {
      ip += VLAN_BYTES;
      type = headers.getUint16(ip - 2);
    }
    this.#ip = ip;
    this.#isIpv6 = type === TYPE_IPV6;
    if (this.#isIpv6) {
      if (covered < ip + IPV6_BYTES || headers.getUint8(ip) >>> 4 !== 6) return -1;
      this.#nextHeader = ip + 6;
      let at = ip + IPV6_BYTES;
      while (at < covered && this.#isExtension(headers.getUint8(this.#nextHeader))) {
        this.#nextHeader = at;
        at += 8 + headers.getUint8(at + 1) * 8;
      }
      return at === covered ? headers.getUint8(this.#nextHeader) : -1;
    }
    if (type !== TYPE_IPV4 || covered < ip + IPV4_BYTES) return -1;
    const version = headers.getUint8(ip);
    if (version >>> 4 !== 4 || ip + (version & 0xf) * 4 !== covered) return -1;
    const isFragment = (headers.getUint16(ip + 6) & (MORE_FRAGMENTS | FRAGMENT_OFFSET)) !== 0;
    return isFragment ? -1 : headers.getUint8(ip + 9);
  }

  /** Options for the destination are not repeated in each fragment, so they are refused there. */
  #isExtension(type: number): boolean {
    return type === HOP_BY_HOP || type === ROUTING ||
      type === OPTIONS && this.#gso !== GSO_UDP;
  }

  /** Copies a UDP datagram and completes its checksum. */
  #readDatagram(): void {
    if (this.#datagram === undefined) {
      this.#datagram = new DataView(pinnedBuffer(MAX_FRAME_BYTES));
      this.#datagramAddress = addressOf(this.#datagram);
    }
    this.#seek(HEADER_BYTES + this.#covered);
    this.#addresses[0] = this.#datagramAddress;
    this.#copy(this.#payload);
    this.#datagram.setUint16(UDP_CHECKSUM, checksum(this.#datagram, 0, this.#payload));
  }

  #addFragmentHeader(): void {
    const headers = this.#headers, at = this.#covered;
    headers.setUint16(at, headers.getUint8(this.#nextHeader) << 8);
    headers.setUint8(this.#nextHeader, FRAGMENT);
    headers.setUint32(at + 4, this.#fragmentId++ >>> 0);
  }

  /**
   * Makes the next frame, `at` bytes into the target.
   *
   * @returns The number of its bytes.
   * @throws {RangeError} When the packet has no more frames, or the target no room.
   */
  next(at: number): number {
    const payload = Math.min(this.#size, this.#payload - this.#next * this.#size);
    const headerBytes = this.#headerBytes, bytes = headerBytes + payload;
    const target = this.#target, addresses = this.#addresses;
    if (this.#next >= this.#frames || !(at >= 0 && at + bytes <= target.byteLength)) {
      throw new RangeError(`Expected room for a frame of a packet, got ${at}+${bytes}`);
    }
    addresses[0] = this.#address + at;
    if (headerBytes > 0) {
      addresses[1] = this.#headersAddress;
      copyBetween(addresses, headerBytes);
      addresses[0] += headerBytes;
    }
    if (this.#gso === GSO_UDP) {
      addresses[1] = this.#datagramAddress + this.#next * this.#size;
      copyBetween(addresses, payload);
    } else {
      this.#copy(payload);
    }
    if (this.#gso !== GSO_NONE) {
      this.#writeIp(at, bytes);
      if (this.#gso !== GSO_UDP) this.#writeTransport(at, bytes);
    }
    if (this.#hasChecksum) {
      const sum = checksum(target, at + this.#covered, at + bytes);
      target.setUint16(at + this.#checksum, sum);
    }
    this.#next++;
    return bytes;
  }

  #writeIp(at: number, bytes: number): void {
    const target = this.#target, ip = at + this.#ip;
    const offset = this.#next * this.#size;
    const more = this.#next + 1 < this.#frames;
    if (this.#isIpv6) {
      target.setUint16(ip + 4, bytes - this.#ip - IPV6_BYTES);
      if (this.#gso === GSO_UDP) {
        target.setUint16(at + this.#covered + 2, offset | (more ? 1 : 0));
      }
      return;
    }
    target.setUint16(ip + 2, bytes - this.#ip);
    if (this.#gso === GSO_UDP) {
      target.setUint16(ip + 6, offset >>> 3 | (more ? MORE_FRAGMENTS : 0));
    } else {
      target.setUint16(ip + 4, target.getUint16(ip + 4) + this.#next);
    }
    target.setUint16(ip + 10, 0);
    target.setUint16(ip + 10, checksum(target, ip, at + this.#covered));
  }

  #writeTransport(at: number, bytes: number): void {
    const target = this.#target, header = at + this.#covered;
    if (this.#gso === GSO_UDP_L4) {
      target.setUint16(header + 4, bytes - this.#covered);
    } else {
      target.setUint32(header + 4, target.getUint32(header + 4) + this.#next * this.#size);
      let flags = target.getUint8(header + 13);
      if (this.#next > 0) flags &= ~CWR;
      if (this.#next + 1 < this.#frames) flags &= ~(FIN | PSH);
      target.setUint8(header + 13, flags);
    }
    target.setUint16(at + this.#checksum, fold(this.#partial + bytes - this.#covered));
  }

  /** Goes to a byte of the packet. */
  #seek(offset: number): void {
    const packet = this.#packet!;
    let part = 0;
    while (part < packet.count && offset >= packet.length(part)) offset -= packet.length(part++);
    this.#part = part;
    this.#skip = offset;
  }

  /** Copies the next bytes of the packet, of which there are enough, to `addresses[0]`. */
  #copy(bytes: number): void {
    const packet = this.#packet!, addresses = this.#addresses;
    while (bytes > 0) {
      const room = packet.length(this.#part) - this.#skip;
      const count = Math.min(room, bytes);
      if (count > 0) {
        addresses[1] = this.#base + packet.index(this.#part) + this.#skip;
        copyBetween(addresses, count);
        addresses[0] += count;
      }
      bytes -= count;
      if (count < room) this.#skip += count;
      else {
        this.#part++;
        this.#skip = 0;
      }
    }
  }
}

/** Adds the carries of a sum of 16-bit words: RFC 1071. */
function fold(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/** Returns the checksum of bytes; never 0, which means none in UDP and the same elsewhere. */
function checksum(view: DataView<ArrayBuffer>, at: number, end: number): number {
  let sum = 0;
  // The words of the largest packet add up to less than 2^32.
  for (const last = end - 4; at <= last; at += 4) {
    const words = view.getInt32(at);
    sum = sum + (words >>> 16) + (words & 0xffff) | 0;
  }
  if (end - at >= 2) {
    sum = sum + view.getUint16(at) | 0;
    at += 2;
  }
  if (at < end) sum = sum + (view.getUint8(at) << 8) | 0;
  return ~fold(sum) & 0xffff || 0xffff;
}
