/**
 * The packet by which a network learns where a guest is after a migration.
 *
 * @module
 */

import { HEADER_BYTES } from "./packet.ts";

const MIN_ETHERNET_BYTES = 60;

/**
 * Returns a packet with a RARP request (RFC 903) that a guest could have sent, header included.
 *
 * @param mac The guest's MAC address: byte 0 is the lowest.
 */
export function rarpPacket(mac: bigint): Uint8Array<ArrayBuffer> {
  const packet = new Uint8Array(HEADER_BYTES + MIN_ETHERNET_BYTES);
  const frame = packet.subarray(HEADER_BYTES);
  const address = new Uint8Array(BigUint64Array.of(mac).buffer, 0, 6);
  frame.fill(0xff, 0, 6);
  frame.set(address, 6);
  // RARP, for Ethernet and IPv4, 6 and 4 bytes, request reverse
  frame.set([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3], 12);
  frame.set(address, 22);
  frame.set(address, 32);
  return packet;
}
