/**
 * The port of a switch that leads to another network.
 *
 * @module
 */

import { Parts, type VectorSink } from "../../../mod.ts";
import { addressOf, copyMemory, pinnedBuffer } from "../../../src/linux/mod.ts";
import { Capture } from "../capture/capture.ts";
import type { CapturePlan } from "../capture/capture_ring.ts";
import { CopiedParts } from "../copied_parts.ts";
import { PacketHeader } from "../header.ts";
import { DelayQueue } from "../impairment/delay_queue.ts";
import { type ImpairedOwner, ImpairedPort } from "../impairment/impaired_port.ts";
import { type Impairment, isClean } from "../impairment/impairment.ts";
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

/** How many packets wait while the port is full. */
const MAX_WAITING = 256;

const ALL = Object.fromEntries(
  ALL_OFFLOADS.map((name) => [name, true]),
) as Record<Offload, boolean>;

/** What an uplink is given, besides what it is itself for its port. */
export interface UplinkContext extends Pick<PortOwner, "watch" | "keep" | "notice" | "mtu"> {
  /** Tells the control half that there are captured packets; returns whether it could. */
  wake(): boolean;
}

/** Joins a port of any kind to a switch. */
export class Uplink implements Member, ImpairedOwner, VectorSink, Disposable {
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
  readonly #wake: () => boolean;
  /** The port that packets pass: the real one, or with an impairment the one before it. */
  #port: Port;
  readonly #real: Port;
  readonly #isAsync: boolean;
  #impaired: ImpairedPort | undefined;
  #capture: Capture | undefined;
  /** Takes the packets of the port, one after the other. */
  readonly #memory = new Uint8Array(pinnedBuffer(HEADER_BYTES + MAX_FRAME_BYTES));
  readonly #window = ReceiveWindow.over(this.#memory);
  readonly #packet = new Parts(this.#memory);
  readonly #header = new PacketHeader();
  /** The header of a packet that waited. */
  readonly #sentHeader = new PacketHeader();
  readonly #waiting = new DelayQueue(0);
  readonly #transit = new Transit(addressOf(this.#memory));
  /** Where the next piece of a packet is copied to. */
  #copyAddress = 0;
  #pending = 0;
  /** Waiting packets are being sent. The port may call `writable` meanwhile. */
  #isEmptying = false;
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
    this.#wake = context.wake;
    this.#switch = ofSwitch;
    this.accepts.ofPort(offloads);
    this.features = Object.fromEntries(
      offloads.map((name) => [name, true]),
    ) as typeof this.features;
    // A packet of the network has a header like one of a guest that acknowledged everything.
    this.#header.negotiated(ALL);
    this.#sentHeader.negotiated(ALL);
    this.#port = this.#real = open(this);
    this.#isAsync = this.#real.isAsync === true;
    this.#port.enable?.(true);
    ofSwitch.join(this);
    this.#port.listen(true);
  }

  /** Puts an impairment in force. Until there is one, packets pass the real port itself. */
  impair(impairment: Impairment): void {
    if (this.#impaired === undefined && isClean(impairment)) return;
    this.#port = this.#impaired ??= new ImpairedPort(this.#real, this, this.#sentHeader);
    this.#impaired.set(impairment, UPLINK);
  }

  /** Begins to capture packets, or ends that. */
  capture(plan: CapturePlan | null): void {
    this.#capture = plan === null
      ? undefined
      : new Capture(plan.rings[0], plan.snapBytes, this.base, this.#wake);
  }

  take(packet: Parts, header: PacketHeader): void {
    const waiting = this.#waiting;
    if (waiting.count === 0 && this.#send(packet, header)) return;
    if (waiting.count === MAX_WAITING || !waiting.add(packet.byteLength, 0)) {
      return this.#count(packet, Drop.QUEUE);
    }
    packet.gather(waiting, this.base);
  }

  /** Sends a packet; returns false when it has to wait for {@linkcode Uplink.writable}. */
  #send(packet: Parts, header: PacketHeader): boolean {
    const isAsync = this.#isAsync;
    if (isAsync && this.#pending === MAX_PENDING) return false;
    // The port may use it when its memory is the guest's again.
    const sent = isAsync ? this.#copy(packet) : packet;
    const result = this.#port.send(sent, header);
    if (result === FULL) return false;
    if (typeof result === "number") {
      this.#count(sent, result);
    } else {
      this.#pending++;
      void this.keep(result).then((result) => {
        this.#pending--;
        this.#count(sent, result);
        this.writable();
      });
    }
    return true;
  }

  #copy(packet: Parts): Parts {
    const bytes = new Uint8Array(pinnedBuffer(packet.byteLength), 0, packet.byteLength);
    this.#copyAddress = addressOf(bytes);
    packet.gather(this, this.base);
    const copy = new CopiedParts(bytes, this.base);
    copy.push(0, bytes.length);
    return copy;
  }

  /** Copies the next piece of a packet. */
  push(address: number, bytes: number): boolean {
    copyMemory(this.#copyAddress, address, bytes);
    this.#copyAddress += bytes;
    return true;
  }

  #count(packet: Parts, result: number): void {
    if (result === SENT) this.#sent++;
    else this.dropped(result);
    if (this.#capture !== undefined) this.#capture.sent(packet, HEADER_BYTES, result);
  }

  dropped(reason: number): void {
    this.#drops[reason]++;
  }

  lost(_packet: Parts, reason: number): void {
    this.dropped(reason);
  }

  lostReceived(bytes: number, reason: number): void {
    this.dropped(reason);
    if (this.#capture !== undefined) this.#capture.received(this.#window, bytes, reason);
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
      let result = header.read(packet);
      if (result === SENT) {
        this.#transit.begin(packet, header);
        result = this.#switch.forward(this, this.#transit);
      }
      if (result !== SENT) this.dropped(result);
      if (this.#capture !== undefined) this.#capture.received(this.#window, bytes, result);
    }
    this.#switch.flush();
    // A port that has buffered more than one batch says so again.
    this.#port.listen(true);
  }

  writable(): void {
    this.#impaired?.writable();
    if (this.#isEmptying) return;
    this.#isEmptying = true;
    const waiting = this.#waiting, header = this.#sentHeader;
    while (waiting.count > 0) {
      const { packet } = waiting;
      header.read(packet);
      if (!this.#send(packet, header)) break;
      waiting.remove();
    }
    this.#isEmptying = false;
    this.#port.flush?.();
  }

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
