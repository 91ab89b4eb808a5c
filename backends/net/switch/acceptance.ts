/**
 * Which packets a receiver takes as they are.
 *
 * @module
 */

import { GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4 } from "../header.ts";
import type { PacketHeader } from "../header.ts";
import type { Offload } from "../packet.ts";

/** The offloads of a receiver: others are done for it. */
export class Acceptance {
  #takesPartialChecksums = false;
  #takesEcn = false;
  /** The values of `gso_type` that it takes, a bit for each. */
  #gsoTypes = 1 << GSO_NONE;

  /** Takes the features that a guest's driver acknowledged. */
  ofGuest(features: Readonly<Record<Offload, boolean>>): void {
    this.#set(
      features.GUEST_CSUM,
      features.GUEST_ECN,
      features.GUEST_TSO4,
      features.GUEST_TSO6,
      features.GUEST_UFO,
      // One type stands for both.
      features.GUEST_USO4 && features.GUEST_USO6,
    );
  }

  /** Takes the offloads of a port. */
  ofPort(offloads: readonly Offload[]): void {
    const has = (name: Offload) => offloads.includes(name);
    this.#set(
      has("CSUM"),
      has("HOST_ECN"),
      has("HOST_TSO4"),
      has("HOST_TSO6"),
      has("HOST_UFO"),
      has("HOST_USO"),
    );
  }

  #set(
    csum: boolean,
    ecn: boolean,
    tso4: boolean,
    tso6: boolean,
    ufo: boolean,
    uso: boolean,
  ): void {
    this.#takesPartialChecksums = csum;
    this.#takesEcn = ecn;
    this.#gsoTypes = 1 << GSO_NONE | (tso4 ? 1 << GSO_TCPV4 : 0) | (tso6 ? 1 << GSO_TCPV6 : 0) |
      (ufo ? 1 << GSO_UDP : 0) | (uso ? 1 << GSO_UDP_L4 : 0);
  }

  /** Whether it takes a packet with such a header. */
  takes({ flags, gsoType }: PacketHeader): boolean {
    if (flags === 0) return true;
    if (!this.#takesPartialChecksums || (this.#gsoTypes & 1 << (gsoType & ~GSO_ECN)) === 0) {
      return false;
    }
    return (gsoType & GSO_ECN) === 0 || this.#takesEcn;
  }
}
