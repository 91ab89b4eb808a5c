/**
 * A guest's port of a switch.
 *
 * @module
 */

import type { Parts, Watch } from "../../../mod.ts";
import { createEventfd, type Fd, signalEventfd } from "../../../src/linux/mod.ts";
import { UNKNOWN } from "../counts.ts";
import type { PacketHeader } from "../header.ts";
import { Drop } from "../packet.ts";
import type { Port, PortOwner, SwitchPlan } from "../port.ts";
import type { ReceiveWindow } from "../receive_window.ts";
import { Acceptance } from "./acceptance.ts";
import { GUEST_ADDRESSES } from "./mac_table.ts";
import { PacketQueue } from "./packet_queue.ts";
import type { Member, Switch } from "./switch.ts";
import { Transit } from "./transit.ts";

/**
 * A packet for the guest goes straight from the sender's memory to the guest's buffers. Without
 * buffers it is queued.
 */
export class SwitchPort implements Port, Member {
  readonly number: number;
  readonly isIsolated: boolean;
  readonly isFiltered: boolean;
  readonly mostAddresses = GUEST_ADDRESSES;
  readonly accepts = new Acceptance();
  isUp = false;
  readonly #switch: Switch;
  readonly #owner: PortOwner;
  readonly #transit: Transit;
  readonly #queue = new PacketQueue();
  /** Always readable: watched while more packets are queued than one turn delivers. */
  readonly #ready: Fd = createEventfd();
  readonly #queued: Watch;
  /** The packet that is being taken. */
  #packet: Parts | undefined;
  #kind = UNKNOWN;

  constructor(ofSwitch: Switch, plan: SwitchPlan, owner: PortOwner) {
    const { number, isIsolated, mac } = plan;
    this.number = number;
    this.isIsolated = isIsolated;
    this.isFiltered = mac !== undefined;
    this.#switch = ofSwitch;
    this.#owner = owner;
    this.#transit = new Transit(owner.base);
    signalEventfd(this.#ready.number);
    this.#queued = owner.watch(this.#ready.number, "readable", () => owner.readable());
    this.#queued.pause();
    ofSwitch.join(this);
  }

  send(packet: Parts, header: PacketHeader): number {
    this.#transit.begin(packet, header);
    return this.#switch.forward(this, this.#transit);
  }

  flush(): void {
    this.#switch.flush();
  }

  publish(): void {
    this.#owner.flushReceived();
  }

  take(packet: Parts, _header: PacketHeader, kind: number): void {
    const queue = this.#queue;
    // Once there are buffers again, packets go straight to them: a copy in the queue would be one
    // more, and a sender that never pauses would have each packet go through it.
    while (queue.bytes > 0 && this.#owner.receiveOne());
    if (queue.bytes === 0) {
      this.#kind = kind;
      this.#packet = packet;
      // An impairment may have another packet received before this one, or none.
      while (this.#owner.receiveOne() && this.#packet !== undefined);
      if (this.#packet === undefined) return;
      this.#packet = undefined;
    }
    for (let dropped = queue.add(packet); dropped > 0; dropped--) this.dropped(Drop.QUEUE);
  }

  dropped(reason: number): void {
    this.#owner.dropped(reason);
  }

  receive(window: ReceiveWindow): number {
    const queue = this.#queue, packet = this.#packet;
    const bytes = queue.bytes || packet?.byteLength || 0;
    window.rewind();
    if (queue.bytes > 0) {
      window.write(queue.address, bytes);
      queue.shift();
    } else if (packet !== undefined) {
      this.#packet = undefined;
      window.kind = this.#kind;
      for (let i = 0; i < packet.count; i++) {
        window.addresses[1] = packet.index(i);
        window.copy(packet.length(i));
      }
    }
    return bytes;
  }

  enable(isEnabled: boolean): void {
    this.isUp = isEnabled;
    if (isEnabled) return this.accepts.ofGuest(this.#owner.features);
    for (; this.#queue.bytes > 0; this.#queue.shift()) this.dropped(Drop.DOWN);
    this.#switch.macs.forget(this.number);
  }

  listen(isListening: boolean): void {
    if (isListening && this.#queue.bytes > 0) this.#queued.resume();
    else this.#queued.pause();
  }

  [Symbol.dispose](): void {
    this.#switch.leave(this);
    this.#queued[Symbol.dispose]();
    this.#ready.close();
  }
}
