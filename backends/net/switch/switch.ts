/**
 * The switch: forwards frames among guests and an uplink by their MAC addresses.
 *
 * @module
 */

import { LARGE, PacketCounts, type PacketCountsJson } from "../counts.ts";
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
  /** Takes a packet of a kind, whose indexes are addresses, or drops and counts it. */
  take(packet: Parts, header: PacketHeader, kind: number): void;
  /** Counts a packet to it that is dropped. */
  dropped(reason: number): void;
  /** Publishes what it took. */
  publish(): void;
}

/** A guest's port, as `GET /ports` answers it. */
export interface PortJson {
  port: string;
  /** Whether its guest takes and gives packets. */
  isUp: boolean;
  isIsolated: boolean;
  isFiltered: boolean;
  /** Packets of the guest. */
  sent: PacketCountsJson;
  /** Packets to the guest. */
  received: PacketCountsJson;
}

/** What is known of a guest's port before the guest connects. */
interface KnownPort {
  name: string;
  isIsolated?: boolean;
  isFiltered?: boolean;
  /** The memory of its counts. */
  counts?: SharedArrayBuffer;
}

/** All ports of a switch run on one thread, so a packet is copied once and nothing is locked. */
export class Switch {
  readonly macs = new MacTable();
  readonly #known: KnownPort[] = [];
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
   * Makes a port known, and gives it an address, before its guest connects.
   *
   * @throws {Error} When another port has the address.
   */
  add(number: number, port: KnownPort, mac?: readonly [number, number, number]): void {
    this.#known[number] = { ...port, isFiltered: mac !== undefined };
    if (mac !== undefined && !this.macs.pin(...mac, number)) {
      throw new Error(`Expected another mac= for each --port, got that of ${port.name} twice`);
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
        if (!to.isUp) to.dropped(Drop.DOWN);
        else if (!this.#pass(packet, to)) this.#passDivided(packet, 1 << port);
        return SENT;
      }
    }
    let left = 0;
    for (let i = 0; i < this.#members.length; i++) {
      const to = this.#members[i];
      if (to === undefined || to === from || !to.isUp || !mayReach(from, to)) continue;
      // An address that is not known is not the one that it has.
      if (to.isFiltered && (to0 & 1) === 0) continue;
      if (!this.#pass(packet, to)) left |= 1 << i;
    }
    if (left !== 0) this.#passDivided(packet, left);
    return SENT;
  }

  /** Returns whether the receiver takes the packet as it is. */
  #pass(packet: Transit, to: Member): boolean {
    if (!to.accepts.takes(packet.header)) return false;
    this.#unflushed |= 1 << to.number;
    to.take(packet.parts, packet.header, packet.kind);
    return true;
  }

  /** Divides a packet once for all receivers that lack an offload, a bit for each. */
  #passDivided(packet: Transit, receivers: number): void {
    this.#unflushed |= receivers;
    const kind = packet.kind & ~LARGE;
    let left = packet.divide();
    if (left === 0) {
      for (let i = 0; i <= UPLINK; i++) {
        if ((receivers & 1 << i) !== 0) this.#members[i]?.dropped(Drop.HEADER);
      }
    }
    for (; left > 0; left--) {
      packet.next();
      for (let i = 0; i <= UPLINK; i++) {
        if ((receivers & 1 << i) !== 0) this.#members[i]?.take(packet.parts, PLAIN, kind);
      }
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
      .map(({ mac, port, age }) => ({ mac, port: this.#known[port]?.name ?? "uplink", age }));
  }

  /** The guests' ports. */
  ports(): PortJson[] {
    return this.#known.flatMap(
      ({ name, counts, isIsolated = false, isFiltered = false }, number) => {
        if (counts === undefined) return [];
        return {
          port: name,
          isUp: this.#members[number]?.isUp ?? false,
          isIsolated,
          isFiltered,
          sent: PacketCounts.total(counts, 0),
          received: PacketCounts.total(counts, 1),
        };
      },
    );
  }
}

/** The switch of this thread: a process has a thread for each. */
export const theSwitch: Switch = new Switch();

function mayReach(from: Member, to: Member): boolean {
  return !from.isIsolated || !to.isIsolated;
}
