/**
 * The port of a switch that leads to another network.
 *
 * @module
 */

import { Parts, type VectorSink } from "../../../mod.ts";
import { addressOf, copyMemory, pinnedBuffer } from "../../../src/linux/mod.ts";
import { PacketHeader } from "../header.ts";
import {
  ALL_OFFLOADS,
  Drop,
  DROP_NAMES,
  FULL,
  HEADER_BYTES,
  MAX_FRAME_BYTES,
  type Offload,
  SENT,
} from "../packet.ts";
import type { Port, PortOwner } from "../port.ts";
import { ReceiveWindow } from "../receive_window.ts";
import { Acceptance } from "./acceptance.ts";
import { UPLINK_ADDRESSES } from "./mac_table.ts";
import { type Member, type Switch, UPLINK } from "./switch.ts";
import { Transit } from "./transit.ts";

/** How many packets are received before guests have their turn. */
const MAX_BATCH = 64;

/** How many packets the port may be sending at a time, if it does so later. */
const MAX_PENDING = 256;

const ALL = Object.fromEntries(
  ALL_OFFLOADS.map((name) => [name, true]),
) as Record<Offload, boolean>;

/** What an uplink is given, besides what it is itself for its port. */
export type UplinkContext = Pick<PortOwner, "watch" | "keep" | "notice" | "mtu">;

/** Joins a port of any kind to a switch. */
export class Uplink implements Member, PortOwner, VectorSink, Disposable {
  readonly number = UPLINK;
  readonly isUp = true;
  readonly isIsolated = false;
  readonly isFiltered = false;
  readonly mostAddresses = UPLINK_ADDRESSES;
  readonly accepts = new Acceptance();
  readonly watch: PortOwner["watch"];
  readonly keep: PortOwner["keep"];
  readonly notice: PortOwner["notice"];
  readonly mtu: number;
  readonly features: Readonly<Record<Offload, boolean>>;
  /** The indexes of packets are addresses. */
  readonly base = 0;
  readonly #switch: Switch;
  readonly #port: Port;
  /** Takes the packets of the port, one after the other. */
  readonly #memory = new Uint8Array(pinnedBuffer(HEADER_BYTES + MAX_FRAME_BYTES));
  readonly #window = ReceiveWindow.over(this.#memory);
  readonly #packet = new Parts(this.#memory);
  readonly #header = new PacketHeader();
  readonly #transit = new Transit(addressOf(this.#memory));
  /** Where the next piece of a packet is copied to. */
  #copyAddress = 0;
  #pending = 0;
  #sent = 0;
  #received = 0;
  readonly #drops = new Float64Array(DROP_NAMES.length);

  /**
   * @param offloads Those that the port has.
   * @param open Makes the port.
   */
  constructor(
    ofSwitch: Switch,
    context: UplinkContext,
    offloads: readonly Offload[],
    open: (owner: PortOwner) => Port,
  ) {
    this.watch = context.watch;
    this.keep = context.keep;
    this.notice = context.notice;
    this.mtu = context.mtu;
    this.#switch = ofSwitch;
    this.accepts.ofPort(offloads);
    this.features = Object.fromEntries(
      offloads.map((name) => [name, true]),
    ) as typeof this.features;
    // A packet of the network has a header like one of a guest that acknowledged everything.
    this.#header.negotiated(ALL);
    this.#port = open(this);
    this.#port.enable?.(true);
    ofSwitch.join(this);
    this.#port.listen(true);
  }

  take(packet: Parts): void {
    if (this.#port.isAsync) return this.#takeCopy(packet);
    this.#count(this.#port.send(packet, this.#header) as number);
  }

  /** Takes a packet that the port may use when its memory is the guest's again. */
  #takeCopy(packet: Parts): void {
    if (this.#pending === MAX_PENDING) return this.dropped(Drop.QUEUE);
    const bytes = new Uint8Array(pinnedBuffer(packet.byteLength), 0, packet.byteLength);
    this.#copyAddress = addressOf(bytes);
    packet.gather(this, this.base);
    const copy = new Parts(bytes);
    copy.push(0, bytes.length);
    const result = this.#port.send(copy, this.#header);
    if (typeof result === "number") return this.#count(result);
    this.#pending++;
    void this.keep(result).then((result) => {
      this.#pending--;
      this.#count(result);
    });
  }

  /** Copies the next piece of a packet. */
  push(address: number, bytes: number): boolean {
    copyMemory(this.#copyAddress, address, bytes);
    this.#copyAddress += bytes;
    return true;
  }

  #count(result: number): void {
    if (result === SENT) this.#sent++;
    else this.dropped(result === FULL ? Drop.QUEUE : result);
  }

  dropped(reason: number): void {
    this.#drops[reason]++;
  }

  publish(): void {
    this.#port.flush?.();
  }

  readable(): void {
    const packet = this.#packet, header = this.#header;
    for (let i = 0; i < MAX_BATCH; i++) {
      const bytes = this.#port.receive(this.#window);
      if (bytes === 0) break;
      packet.clear(this.#memory);
      packet.push(0, Math.min(bytes, this.#memory.length));
      this.#received++;
      const refused = header.read(packet);
      if (refused !== SENT) this.dropped(refused);
      else {
        this.#transit.begin(packet, header);
        const result = this.#switch.forward(this, this.#transit);
        if (result !== SENT) this.dropped(result);
      }
    }
    this.#switch.flush();
    // A port that has buffered more than one batch says so again.
    this.#port.listen(true);
  }

  writable(): void {}

  receiveOne(): boolean {
    return false;
  }

  flushReceived(): void {}

  /** What it adds to the list of ports. */
  report(): Record<string, unknown> {
    const drops = DROP_NAMES.map((name, reason) => [name, this.#drops[reason]] as const)
      .filter(([, count]) => count > 0);
    return { sent: this.#sent, received: this.#received, drops: Object.fromEntries(drops) };
  }

  [Symbol.dispose](): void {
    this.#switch.leave(this);
    this.#port[Symbol.dispose]();
  }
}
