/**
 * A pair of queues with its port: virtio 1.3, 5.1.6 Device Operation.
 *
 * @module
 */

import {
  type Chain,
  type HandlerResult,
  type Parts,
  type QueueHandle,
  UNTIL_READY,
} from "../../mod.ts";
import { pinnedBuffer } from "../../src/linux/mod.ts";
import { Capture } from "./capture/capture.ts";
import type { CapturePlan } from "./capture/capture_ring.ts";
import { CopiedParts } from "./copied_parts.ts";
import { kindOf, PacketCounts, UNKNOWN } from "./counts.ts";
import { PacketHeader } from "./header.ts";
import { type ImpairedOwner, ImpairedPort } from "./impairment/impaired_port.ts";
import { type Impairment, isClean } from "./impairment/impairment.ts";
import { Drop, FULL, HEADER_BYTES, MAX_FRAME_BYTES, type Offload, SENT } from "./packet.ts";
import type { Port, PortOwner } from "./port.ts";
import { ReceiveWindow } from "./receive_window.ts";
import { SHORT_HEADER_BYTES, ShortHeader } from "./short_header.ts";

/** How many packets are received before other queues have their turn. */
const MAX_BATCH = 256;

/** How many packets are received before the driver sees them. */
const MAX_UNPUBLISHED = 32;

// What became of the next packet.
const RECEIVED = 0, NO_PACKET = 1, NO_ROOM = 2;

/** What a pair shares with the others of its device. */
export interface PairContext {
  /** Makes the port of a pair. */
  open(owner: PortOwner, pair: number): Port;
  readonly watch: PortOwner["watch"];
  readonly keep: PortOwner["keep"];
  readonly notice: PortOwner["notice"];
  /** Guest memory. */
  readonly memory: Uint8Array<ArrayBuffer>;
  /** The address of index 0 of guest memory. */
  readonly base: number;
  /** The memory of the packet counts. */
  readonly counts: SharedArrayBuffer;
  /** The largest IP packet without offloads, in bytes. */
  readonly mtu: number;
  /** The features that the driver acknowledged, live. */
  readonly features: Readonly<Record<Offload | "MRG_RXBUF" | "VERSION_1", boolean>>;
  /** What is done to packets on their way. */
  impairment: Impairment;
  /** Where captured packets go; null while none are captured. */
  capture: CapturePlan | null;
  /** Tells the control half that there are captured packets; returns whether it could. */
  wake(): boolean;
}

/** A receive queue, a transmit queue, and the port that joins them to a network. */
export class QueuePair implements ImpairedOwner, Disposable {
  readonly watch: PortOwner["watch"];
  readonly keep: PortOwner["keep"];
  readonly notice: PortOwner["notice"];
  readonly base: number;
  readonly mtu: number;
  readonly features: PairContext["features"];
  readonly #context: PairContext;
  readonly #pair: number;
  readonly #sent: PacketCounts;
  readonly #received: PacketCounts;
  readonly #header = new PacketHeader();
  readonly #window: ReceiveWindow;
  /** The port that packets pass: the real one, or with an impairment the one before it. */
  #port: Port | undefined;
  #real: Port | undefined;
  #impaired: ImpairedPort | undefined;
  #capture: Capture | undefined;
  #isEnabled = false;
  #receiveq: QueueHandle | undefined;
  #transmitq: QueueHandle | undefined;
  /** The size of the driver's headers. */
  #headerBytes = HEADER_BYTES;
  #short: ShortHeader | undefined;
  /** The largest packet to expect, in bytes. */
  #mostBytes = 0;
  /** A packet that was read and waits for room: its size, and the room that there was. */
  #pending = 0;
  #pendingRoom = 0;

  /** @param pair Its number. */
  constructor(context: PairContext, pair: number) {
    this.#context = context;
    this.#pair = pair;
    this.watch = context.watch;
    this.keep = context.keep;
    this.notice = context.notice;
    this.base = context.base;
    this.mtu = context.mtu;
    this.features = context.features;
    this.#sent = new PacketCounts(context.counts, pair, 0);
    this.#received = new PacketCounts(context.counts, pair, 1);
    this.#window = new ReceiveWindow(context.base);
    this.capture();
  }

  /** Begins to capture packets, or ends that, as the context says. */
  capture(): void {
    const { capture, base, wake } = this.#context;
    this.#capture = capture === null
      ? undefined
      : new Capture(capture.rings[this.#pair], capture.snapBytes, base, wake);
  }

  /** A ring starts. The port is made when it first runs: a driver may leave a pair disabled. */
  start(queue: QueueHandle): void {
    const { features, mtu } = this.#context;
    const isShort = !features.VERSION_1 && !features.MRG_RXBUF;
    this.#headerBytes = isShort ? SHORT_HEADER_BYTES : HEADER_BYTES;
    if (queue.name === "transmitq") {
      this.#transmitq = queue;
      this.#header.negotiated(features);
      return;
    }
    this.#receiveq = queue;
    const hasLarge = features.GUEST_TSO4 || features.GUEST_TSO6 || features.GUEST_UFO ||
      features.GUEST_USO4 || features.GUEST_USO6;
    this.#mostBytes = HEADER_BYTES + (hasLarge ? MAX_FRAME_BYTES : 18 + mtu);
    this.#dropPending(); // A queue that broke does not stop.
    this.#window.begin(features.MRG_RXBUF, this.#headerBytes);
  }

  /** A ring was enabled or disabled. */
  enable(queue: QueueHandle): void {
    if (queue === this.#receiveq && this.#port !== undefined) this.receive(queue);
  }

  /** A ring is about to stop; the framework gives its buffers back. */
  stop(queue: QueueHandle): void {
    this.enable(queue);
    if (queue !== this.#receiveq) return;
    this.#dropPending();
    this.#window.begin(false);
  }

  /** Sends a packet of the driver. */
  transmit(chain: Chain): HandlerResult {
    const packet = chain.readable;
    let result: number | Promise<number> = this.#header.read(packet, this.#headerBytes);
    if (result === SENT) {
      const sent = this.#headerBytes === HEADER_BYTES ? packet : this.#widen(packet);
      result = (this.#port ??= this.#open()).send(sent, this.#header);
    }
    // A port keeps the event loop turning itself where it needs that.
    if (result === FULL) return UNTIL_READY;
    if (typeof result !== "number") return result.then((result) => this.#count(packet, result));
    return this.#count(packet, result);
  }

  /** Sends a packet on behalf of the guest, which neither counts it nor learns if it is dropped. */
  announce(packet: Uint8Array): void {
    const copy = new Uint8Array(pinnedBuffer(packet.length), 0, packet.length);
    copy.set(packet);
    const parts = new CopiedParts(copy, this.base);
    parts.push(0, copy.length);
    this.#header.read(parts);
    const port = this.#port ??= this.#open();
    const result = port.send(parts, this.#header);
    port.flush?.();
    if (typeof result !== "number") void this.keep(result);
  }

  #widen(packet: Parts): Parts {
    return (this.#short ??= new ShortHeader(this.#context.memory, this.base)).widen(packet);
  }

  #count(packet: Parts, result: number): number {
    const headerBytes = this.#headerBytes;
    if (result === SENT) {
      this.#sent.passed(kindOf(packet, headerBytes), packet.byteLength - headerBytes);
    } else this.#sent.dropped(result);
    if (this.#capture !== undefined) this.#capture.sent(packet, headerBytes, result);
    return 0;
  }

  /** Called after each batch of packets that were sent. */
  flush(): void {
    this.#port?.flush?.();
  }

  #open(): Port {
    this.#port = this.#real = this.#context.open(this, this.#pair);
    this.impair();
    return this.#port;
  }

  /** Puts the context's impairment in force. Until there is one, packets pass the real port itself. */
  impair(): void {
    const { impairment } = this.#context;
    if (this.#real === undefined || this.#impaired === undefined && isClean(impairment)) return;
    this.#port = this.#impaired ??= new ImpairedPort(this.#real, this, this.#header);
    this.#impaired.set(impairment, this.#pair);
  }

  dropped(reason: number): void {
    this.#received.dropped(reason);
  }

  /** Returns what the port adds to the record. */
  report(): Record<string, unknown> | undefined {
    return this.#real?.report?.();
  }

  writable(): void {
    this.#impaired?.writable();
    this.#transmitq?.resume();
  }

  lost(_packet: Parts, reason: number): void {
    this.#sent.dropped(reason);
  }

  lostReceived(bytes: number, reason: number): void {
    this.#received.dropped(reason);
    if (this.#capture !== undefined) this.#capture.received(this.#window, bytes, reason);
  }

  readable(): void {
    const queue = this.#receiveq;
    if (queue !== undefined) this.receive(queue);
  }

  /**
   * Fills buffers of the driver with packets, as far as there are both and the queue runs; called
   * too when it starts or ends to run.
   */
  receive(queue: QueueHandle): void {
    const { isRunning } = queue;
    const port = this.#port ??= this.#open();
    if (isRunning !== this.#isEnabled) {
      this.#isEnabled = isRunning;
      this.#received.enable(isRunning);
      port.enable?.(isRunning);
    }
    port.listen(isRunning && this.#receiveBatch(queue, port));
    queue.flush();
  }

  receiveOne(): boolean {
    const queue = this.#receiveq, port = this.#port;
    return queue !== undefined && port !== undefined && queue.isRunning &&
      this.#receiveNext(queue, port) === RECEIVED;
  }

  flushReceived(): void {
    this.#receiveq?.flush();
  }

  /** @returns Whether there is room for more packets. */
  #receiveBatch(queue: QueueHandle, port: Port): boolean {
    for (let i = 1; i <= MAX_BATCH; i++) {
      const result = this.#receiveNext(queue, port);
      if (result !== RECEIVED) return result === NO_PACKET;
      if (i % MAX_UNPUBLISHED === 0) queue.flush();
    }
    return true;
  }

  #receiveNext(queue: QueueHandle, port: Port): number {
    const window = this.#window;
    if (!window.fill(queue, this.#pending || this.#mostBytes)) return NO_ROOM;
    let bytes = this.#pending;
    window.kind = UNKNOWN;
    if (bytes > 0) {
      if (window.room < bytes) {
        if (!window.isFull) return NO_ROOM;
        this.#dropPending();
        return RECEIVED;
      }
      window.complete(bytes, this.#pendingRoom);
      this.#pending = 0;
    } else {
      bytes = port.receive(window);
      if (bytes === 0) return NO_PACKET;
    }
    const chains = window.chainsFor(bytes);
    if (chains > 0) {
      const { writable } = window.first!;
      if (this.#headerBytes === HEADER_BYTES) writable.setU16(10, chains); // num_buffers
      const kind = window.kind === UNKNOWN ? kindOf(writable, this.#headerBytes) : window.kind;
      this.#received.passed(kind, bytes - HEADER_BYTES);
      if (this.#capture !== undefined) this.#capture.received(window, bytes, SENT);
      window.deliver(queue, bytes);
    } else if (this.#context.features.MRG_RXBUF) {
      this.#pending = bytes;
      this.#pendingRoom = window.room;
    } else {
      this.lostReceived(bytes, Drop.BUFFERS);
    }
    return RECEIVED;
  }

  /** Gives up a packet that waits for room. */
  #dropPending(): void {
    if (this.#pending > 0) this.#received.dropped(Drop.BUFFERS);
    this.#pending = 0;
  }

  [Symbol.dispose](): void {
    this.#port?.[Symbol.dispose]();
  }
}
