/**
 * The switch: forwards frames among guests and an uplink by their MAC addresses.
 *
 * @module
 */

import { PacketHeader } from "../header.ts";
import { Drop, SENT } from "../packet.ts";
import type { Acceptance } from "./acceptance.ts";
import { type MacJson, MacTable } from "./mac_table.ts";
import type { Transit } from "./transit.ts";
import type { Parts } from "../../../mod.ts";

/** The most guests of a switch: the addresses of a process have room for a few more guests' memory. */
export const MAX_GUESTS = 16;

/** The number of the uplink among the ports. */
export const UPLINK = MAX_GUESTS;

/** The header of a frame that needs no offload. */
const PLAIN = new PacketHeader();

/** A port of the switch. */
export interface Member {
  /** 0 to {@linkcode UPLINK}; with each of them there is at most one. */
  readonly number: number;
  /** Whether it takes and gives packets. */
  readonly isUp: boolean;
  /** Isolated ports do not reach each other. */
  readonly isIsolated: boolean;
  /** It may use the addresses only that the configuration gives it. */
  readonly isFiltered: boolean;
  /** The most addresses that are learned of it. */
  readonly mostAddresses: number;
  /** Other packets are divided for it, and their checksums completed. */
  readonly accepts: Acceptance;
  /** Takes a packet, whose indexes are addresses, or drops and counts it. */
  take(packet: Parts, header: PacketHeader): void;
  /** Counts a packet to it that is dropped. */
  dropped(reason: number): void;
  /** Publishes what it took. */
  publish(): void;
}

/** All ports of a switch run on one thread, so a packet is copied once and nothing is locked. */
export class Switch {
  readonly macs = new MacTable();
  readonly #names: string[] = [];
  readonly #members: (Member | undefined)[] = new Array(MAX_GUESTS + 1).fill(undefined);
  /** Members that took packets since the last flush, a bit for each. */
  #unflushed = 0;
  readonly #clock: () => number;
  /** The time of this batch; -1 before its first packet. */
  #now = -1;

  /** @param clock The time in seconds. */
  constructor(clock: () => number = () => performance.now() / 1000 | 0) {
    this.#clock = clock;
  }

  /**
   * Names a port, and gives it an address, before its guest connects.
   *
   * @throws {Error} When another port has the address.
   */
  name(number: number, name: string, mac?: readonly [number, number, number]): void {
    this.#names[number] = name;
    if (mac !== undefined && !this.macs.pin(...mac, number)) {
      throw new Error(`Expected another mac= for each --port, got that of ${name} twice`);
    }
  }

  /** Connects a port, in the place of an earlier one with the same number. */
  join(member: Member): void {
    this.#members[member.number] = member;
  }

  /** Removes a port. */
  leave(member: Member): void {
    if (this.#members[member.number] === member) this.#members[member.number] = undefined;
    this.macs.forget(member.number);
  }

  /** Forwards a packet; returns {@linkcode SENT}, or why it is dropped for all. */
  forward(from: Member, packet: Transit): number {
    if (this.#now < 0) this.#now = this.#clock();
    const { from0, from1, from2, to0, to1, to2 } = packet;
    const { number } = from;
    if ((from0 & 1) === 0) {
      const isKnown = from.isFiltered
        ? this.macs.find(from0, from1, from2, this.#now) === number
        : this.macs.learn(from0, from1, from2, number, from.mostAddresses, this.#now);
      if (!isKnown) return Drop.SOURCE;
    } else if (from.isFiltered) return Drop.SOURCE;
    if ((to0 & 1) === 0) {
      const port = this.macs.find(to0, to1, to2, this.#now);
      if (port >= 0) {
        const to = this.#members[port];
        // An address by configuration, of a guest that never was.
        if (to === undefined) return Drop.DOWN;
        // Its network has it already.
        if (to === from) return Drop.LOCAL;
        if (!mayReach(from, to)) return Drop.ISOLATED;
        if (to.isUp) this.#pass(packet, to);
        else to.dropped(Drop.DOWN);
        return SENT;
      }
    }
    for (let i = 0; i < this.#members.length; i++) {
      const to = this.#members[i];
      if (to === undefined || to === from || !to.isUp || !mayReach(from, to)) continue;
      // An address that is not known is not the one that it has.
      if (to.isFiltered && (to0 & 1) === 0) continue;
      this.#pass(packet, to);
    }
    return SENT;
  }

  #pass(packet: Transit, to: Member): void {
    this.#unflushed |= 1 << to.number;
    if (to.accepts.takes(packet.header)) return to.take(packet.parts, packet.header);
    let left = packet.divide();
    if (left === 0) return to.dropped(Drop.HEADER);
    for (; left > 0; left--) {
      packet.next();
      to.take(packet.parts, PLAIN);
    }
    packet.whole();
  }

  /** Ends a batch of packets. */
  flush(): void {
    this.#now = -1;
    for (let i = 0; this.#unflushed !== 0; i++) {
      if ((this.#unflushed & 1 << i) === 0) continue;
      this.#unflushed &= ~(1 << i);
      this.#members[i]?.publish();
    }
  }

  /** The addresses that are known, with the names of their ports. */
  list(): (Omit<MacJson, "port"> & { port: string })[] {
    return this.macs.list(this.#clock())
      .map(({ mac, port, age }) => ({ mac, port: this.#names[port] ?? "uplink", age }));
  }
}

/** The switch of this thread: a process has a thread for each. */
export const theSwitch: Switch = new Switch();

function mayReach(from: Member, to: Member): boolean {
  return !from.isIsolated || !to.isIsolated;
}
