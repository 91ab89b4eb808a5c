/**
 * Counts of packets, for the record.
 *
 * @module
 */

import type { Parts } from "../../mod.ts";
import { DROP_NAMES } from "./packet.ts";

const PACKETS = 0, BYTES = 1, MULTICAST = 2, BROADCAST = 3, GSO = 4, ENABLED = 5, DROPS = 6;
const FIELDS = DROPS + DROP_NAMES.length;

/** The kind of a packet is one of these; with {@linkcode LARGE} if it stands for several segments. */
const TO_GROUP = 1, TO_ALL = 2;
export const LARGE = 4;

/** The kind of a packet whose header was not looked at yet. */
export const UNKNOWN = -1;

/** The kind of a packet by the first word of its destination, or all three for a group. */
export function packetKind(gsoType: number, to0: number, to1: number, to2: number): number {
  const kind = gsoType === 0 ? 0 : LARGE;
  if ((to0 & 1) === 0) return kind;
  return kind | (to0 === 0xffff && to1 === 0xffff && to2 === 0xffff ? TO_ALL : TO_GROUP);
}

/** The kind of a packet whose header has `headerBytes` bytes; its first part is in `packet`. */
export function kindOf(packet: Parts, headerBytes: number): number {
  if (packet.byteLength < headerBytes + 6) return 0;
  // A u32 of 2^31 or more is 16 bytes of garbage wherever V8 does not inline the call.
  const to0 = packet.u16(headerBytes);
  return (to0 & 1) === 0
    ? packetKind(packet.u8(1), to0, 0, 0)
    : packetKind(packet.u8(1), to0, packet.u16(headerBytes + 2), packet.u16(headerBytes + 4));
}

/** How many packets went one way. Bytes are those of frames. */
export interface PacketCountsJson {
  packets: number;
  bytes: number;
  unicast: number;
  multicast: number;
  broadcast: number;
  /** Packets that stand for several segments. */
  gso: number;
  /** Packets that were dropped, by reason. */
  drops: Record<string, number>;
}

/** The memory for the counts of `pairs` queue pairs. */
export function countMemory(pairs: number): SharedArrayBuffer {
  return new SharedArrayBuffer(pairs * 2 * FIELDS * 8);
}

/**
 * The packets of a queue pair that went one way. Each count has one writer and is an aligned 64-bit
 * float, so a reader on another thread sees the old or the new value.
 */
export class PacketCounts {
  readonly #values: Float64Array;

  /** @param direction 0: sent by the driver; 1: received by it. */
  constructor(memory: SharedArrayBuffer, pair: number, direction: 0 | 1) {
    this.#values = new Float64Array(memory, (pair * 2 + direction) * FIELDS * 8, FIELDS);
  }

  /** Counts a packet of a kind, whose frame has `bytes` bytes. */
  passed(kind: number, bytes: number): void {
    const values = this.#values;
    values[PACKETS]++;
    values[BYTES] += bytes;
    if (kind === 0) return;
    if ((kind & LARGE) !== 0) values[GSO]++;
    if ((kind & TO_GROUP) !== 0) values[MULTICAST]++;
    if ((kind & TO_ALL) !== 0) values[BROADCAST]++;
  }

  /** Notes whether the driver enabled the queue. */
  enable(isEnabled: boolean): void {
    this.#values[ENABLED] = isEnabled ? 1 : 0;
  }

  /** Counts a packet that was dropped. */
  dropped(reason: number): void {
    this.#values[DROPS + reason]++;
  }

  /** The number of pairs whose receive queue the driver enabled. */
  static enabledPairs(memory: SharedArrayBuffer): number {
    return PacketCounts.#sums(memory, 1)[ENABLED];
  }

  /** The sums of all pairs, by field. */
  static #sums(memory: SharedArrayBuffer, direction: 0 | 1): number[] {
    const sums = new Array<number>(FIELDS).fill(0);
    const pairs = memory.byteLength / (2 * FIELDS * 8);
    for (let pair = 0; pair < pairs; pair++) {
      new PacketCounts(memory, pair, direction).#values.forEach((value, i) => sums[i] += value);
    }
    return sums;
  }

  /** The counts of all pairs together. */
  static total(memory: SharedArrayBuffer, direction: 0 | 1): PacketCountsJson {
    const sums = PacketCounts.#sums(memory, direction);
    const drops = DROP_NAMES.map((name, reason) => [name, sums[DROPS + reason]] as const)
      .filter(([, count]) => count > 0);
    return {
      packets: sums[PACKETS],
      bytes: sums[BYTES],
      unicast: sums[PACKETS] - sums[MULTICAST] - sums[BROADCAST],
      multicast: sums[MULTICAST],
      broadcast: sums[BROADCAST],
      gso: sums[GSO],
      drops: Object.fromEntries(drops),
    };
  }
}
