/**
 * The header of a packet that the driver sends.
 *
 * @module
 */

import type { Parts } from "../../mod.ts";
import {
  Drop,
  HEADER_BYTES,
  MAX_FRAME_BYTES,
  MIN_FRAME_BYTES,
  type Offload,
  SENT,
} from "./packet.ts";

// virtio 1.3, 5.1.6: flags
/** The checksum of the frame is not complete. */
const NEEDS_CSUM = 1;

// virtio 1.3, 5.1.6: gso_type
export const GSO_NONE = 0;
/** Segments of TCP over IPv4. */
export const GSO_TCPV4 = 1;
/** Fragments of a UDP datagram. */
export const GSO_UDP = 3;
/** Segments of TCP over IPv6. */
export const GSO_TCPV6 = 4;
/** UDP datagrams. */
export const GSO_UDP_L4 = 5;
/** A bit beside the type: the TCP segments have ECN. */
export const GSO_ECN = 0x80;

/** struct virtio_net_hdr of a packet that the driver sends; one object for all packets of a pair. */
export class PacketHeader {
  flags = 0;
  gsoType = GSO_NONE;
  /** The size of the headers of a GSO packet as the driver says: a hint. */
  hdrLen = 0;
  /** The size of each segment's payload. */
  gsoSize = 0;
  /** Where the checksum begins in the frame. */
  csumStart = 0;
  /** Where the checksum is stored, counted from `csumStart`. */
  csumOffset = 0;
  #hasChecksum = false;
  /** The values of `gsoType` that the driver may use, a bit for each; and with ECN. */
  #gsoTypes = 1;
  #hasEcn = false;

  /** Whether the packet is a frame as it is on the wire, without any offload. */
  get isPlain(): boolean {
    return this.flags === 0 && this.gsoType === GSO_NONE;
  }

  /** Takes the features that the driver acknowledged. */
  negotiated(features: Readonly<Record<Offload, boolean>>): void {
    this.#hasChecksum = features.CSUM;
    this.#hasEcn = features.HOST_ECN;
    this.#gsoTypes = 1 << GSO_NONE |
      (features.HOST_TSO4 ? 1 << GSO_TCPV4 : 0) |
      (features.HOST_TSO6 ? 1 << GSO_TCPV6 : 0) |
      (features.HOST_UFO ? 1 << GSO_UDP : 0) |
      (features.HOST_USO ? 1 << GSO_UDP_L4 : 0);
  }

  /**
   * Reads and checks the header of a packet: virtio 1.3, 5.1.6.2.
   *
   * @param headerBytes The size of the header; the fields are in the same places.
   * @returns 0, or why the packet is to be dropped.
   */
  read(packet: Parts, headerBytes = HEADER_BYTES): number {
    const frameBytes = packet.byteLength - headerBytes;
    if (frameBytes < MIN_FRAME_BYTES) return Drop.TINY;
    if (frameBytes > MAX_FRAME_BYTES) return Drop.OVERSIZE;
    const word = packet.u32(0);
    // A device ignores the other flags.
    const flags = this.flags = word & NEEDS_CSUM;
    const gsoType = this.gsoType = word >>> 8 & 0xff;
    if (flags === 0 && gsoType === GSO_NONE) return SENT;
    this.hdrLen = word >>> 16;
    this.gsoSize = packet.u16(4);
    const csumStart = this.csumStart = packet.u16(6);
    const csumOffset = this.csumOffset = packet.u16(8);
    // A GSO packet has a partial checksum too.
    if (flags === 0 || !this.#hasChecksum || csumStart + csumOffset + 2 > frameBytes) {
      return Drop.HEADER;
    }
    if (gsoType === GSO_NONE) return SENT;
    const kind = gsoType & ~GSO_ECN;
    if (kind === GSO_NONE || kind > GSO_UDP_L4 || (this.#gsoTypes & 1 << kind) === 0) {
      return Drop.HEADER;
    }
    if ((gsoType & GSO_ECN) !== 0 && !this.#hasEcn) return Drop.HEADER;
    return this.gsoSize > 0 ? SENT : Drop.HEADER;
  }
}
