/**
 * A port that loses, delays, repeats and limits the packets of another one.
 *
 * @module
 */

import type { Parts, Watch } from "../../../mod.ts";
import {
  createTimer,
  drainEventfd,
  elapsed,
  type Fd,
  microseconds,
  setTimer,
} from "../../../src/linux/mod.ts";
import type { PacketHeader } from "../header.ts";
import { ALL_OFFLOADS, Drop, FULL, HEADER_BYTES, SENT } from "../packet.ts";
import type { Port, PortOwner } from "../port.ts";
import type { ReceiveWindow } from "../receive_window.ts";
import { ImpairedWay } from "./impaired_way.ts";
import { CLEAN, type Impairment } from "./impairment.ts";

/** How many packets pass, or are dropped or delayed, before other queues have their turn. */
const MAX_BATCH = 64;

const GUEST_OFFLOADS = ALL_OFFLOADS.filter((name) => name.startsWith("GUEST_"));

function takenBy({ features }: PortOwner): string {
  return GUEST_OFFLOADS.filter((name) => features[name]).join();
}

/** What an impaired port needs of its pair. */
export interface ImpairedOwner extends PortOwner {
  /** Counts a packet of the driver that is dropped after `send` took it. */
  lost(packet: Parts, reason: number): void;
  /** Counts a packet to the driver that is dropped: `bytes` bytes that are in the window. */
  lostReceived(bytes: number, reason: number): void;
}

/**
 * A port between a pair and its real one. Delayed packets are copied; one that has no room among
 * them is dropped. A rate makes packets wait in the driver's ring, and in the real port.
 */
export class ImpairedPort implements Port {
  readonly #port: Port;
  readonly #owner: ImpairedOwner;
  readonly #header: PacketHeader;
  readonly #tx: ImpairedWay;
  readonly #rx: ImpairedWay;
  readonly #timer: Fd = createTimer();
  readonly #watch: Watch;
  /** The time from `#armedAt` on to which the timer is set; -1 when it is not. */
  #armedUs = -1;
  #armedAt = 0;
  #isLinkUp = true;
  #seed = -1;
  /** The real port was full when the first delayed packet was due. */
  #isBlocked = false;
  /**
   * The real port has the first delayed packet, and has not finished with it. It may call `writable`
   * meanwhile, such as when it finds its TAP gone.
   */
  #isSending = false;
  /** What happens to the next packet of the driver was chosen before the real port was full. */
  #isChosen = false;
  /** The offloads that the driver took when it last ran. */
  #taken: string;
  /** The rate lets nothing be read now. */
  #isHeld = false;

  /** @param header The pair's, for packets that were delayed. */
  constructor(port: Port, owner: ImpairedOwner, header: PacketHeader) {
    this.#port = port;
    this.#owner = owner;
    this.#header = header;
    this.#tx = new ImpairedWay(owner.base);
    this.#rx = new ImpairedWay(owner.base);
    this.#taken = takenBy(owner);
    this.#watch = owner.watch(this.#timer.number, "readable", () => this.#onTimer());
  }

  /** Puts an impairment in force. Without a delay, packets that were delayed pass at once. */
  set({ tx, rx, seed, isLinkUp }: Impairment, pair: number): void {
    // A link that comes and goes does not repeat the choices.
    const random = seed === this.#seed && isLinkUp !== this.#isLinkUp ? undefined : seed;
    this.#tx.set(isLinkUp ? tx : CLEAN, random, 2 * pair);
    this.#rx.set(isLinkUp ? rx : CLEAN, random, 2 * pair + 1);
    this.#seed = seed;
    this.#isLinkUp = isLinkUp;
    this.#isChosen = false;
    this.#arm(0, microseconds());
  }

  send(packet: Parts, header: PacketHeader): number | Promise<number> {
    const tx = this.#tx;
    if (!this.#isLinkUp) return Drop.LINK;
    if (tx.isPassing) return this.#port.send(packet, header);
    if (this.#isBlocked || this.#isSending) return FULL;
    const now = microseconds();
    const busyUs = tx.busyUs(now);
    if (busyUs > 0) {
      this.#arm(busyUs, now);
      return FULL;
    }
    if (!this.#isChosen) tx.choose();
    let result: number | Promise<number> = SENT;
    if (tx.isLost) {
      result = Drop.LOSS;
    } else if (tx.isDelayed) {
      if (!this.#delay(packet, now)) result = Drop.DELAY;
    } else {
      result = this.#port.send(packet, header);
      this.#isChosen = result === FULL;
      if (this.#isChosen) return FULL;
    }
    tx.use(packet.byteLength - HEADER_BYTES);
    if (tx.isDuplicated && !tx.isLost && !this.#delay(packet, now)) {
      this.#owner.lost(packet, Drop.DELAY);
    }
    return result;
  }

  /** Copies a packet of the driver; returns whether there is room. */
  #delay(packet: Parts, now: number): boolean {
    const { queue } = this.#tx;
    if (!queue.add(packet.byteLength, this.#tx.dueAt(now))) return false;
    packet.gather(queue, this.#owner.base);
    this.#arm(this.#tx.dueInUs(now), now);
    return true;
  }

  flush(): void {
    this.#port.flush?.();
  }

  /** The real port has room again. */
  writable(): void {
    this.#isBlocked = false;
    this.#sendDue();
  }

  /** Sends the packets of the driver that are due. */
  #sendDue(): void {
    const tx = this.#tx;
    if (tx.count === 0 || this.#isSending) return;
    const now = microseconds();
    for (let i = 0; i < MAX_BATCH && tx.isDue(now); i++) {
      const { packet } = tx.queue;
      let result: number | Promise<number> = this.#header.read(packet);
      if (!this.#isLinkUp) result = Drop.LINK;
      this.#isSending = true;
      if (result === SENT) result = this.#port.send(packet, this.#header);
      if (typeof result !== "number") {
        void this.#owner.keep(result).then((result) => this.#sent(result));
        break;
      }
      this.#isSending = false;
      if (result === FULL) {
        this.#isBlocked = true;
        break;
      }
      this.#removeFirst(result);
    }
    this.#port.flush?.();
    if (tx.count > 0 && !this.#isBlocked && !this.#isSending) this.#arm(tx.dueInUs(now), now);
  }

  /** The real port has finished with the first delayed packet. */
  #sent(result: number): void {
    this.#isSending = false;
    this.#removeFirst(result);
    this.#owner.writable();
  }

  #removeFirst(result: number): void {
    const { queue } = this.#tx;
    if (result !== SENT) this.#owner.lost(queue.packet, result);
    queue.remove();
  }

  receive(window: ReceiveWindow): number {
    const rx = this.#rx;
    if (rx.isPassing && this.#isLinkUp) return this.#port.receive(window);
    const now = microseconds();
    const bytes = this.#receiveNext(window, now);
    // The medium does not say that there are delayed packets.
    if (rx.count > 0) this.#arm(rx.dueInUs(now), now);
    return bytes;
  }

  #receiveNext(window: ReceiveWindow, now: number): number {
    const rx = this.#rx;
    for (let i = 0; i < MAX_BATCH; i++) {
      if (rx.isDue(now)) {
        const bytes = this.#takeDue(window);
        if (this.#isLinkUp) return bytes;
        this.#owner.lostReceived(bytes, Drop.LINK);
        continue;
      }
      const busyUs = rx.busyUs(now);
      this.#isHeld = busyUs > 0;
      if (this.#isHeld) {
        this.#arm(busyUs, now);
        return 0;
      }
      const bytes = this.#port.receive(window);
      if (bytes === 0) return 0;
      if (!this.#isLinkUp) this.#owner.lostReceived(bytes, Drop.LINK);
      else if (this.#passes(window, bytes, now)) return bytes;
    }
    return 0;
  }

  /** Moves the first delayed packet to the driver's buffers; returns its size. */
  #takeDue(window: ReceiveWindow): number {
    const { queue } = this.#rx;
    const bytes = queue.byteLength;
    window.rewind();
    window.write(queue.address, bytes);
    queue.remove();
    return bytes;
  }

  /** Decides on a packet that is in the driver's buffers; returns whether it passes now. */
  #passes(window: ReceiveWindow, bytes: number, now: number): boolean {
    const rx = this.#rx;
    rx.choose();
    rx.use(bytes - HEADER_BYTES);
    if (rx.isLost) {
      this.#owner.lostReceived(bytes, Drop.LOSS);
      return false;
    }
    const { isDelayed } = rx;
    for (let copies = +isDelayed + +rx.isDuplicated; copies > 0; copies--) {
      if (rx.queue.add(bytes, rx.dueAt(now))) window.gather(rx.queue, bytes);
      else this.#owner.lostReceived(bytes, Drop.DELAY);
    }
    return !isDelayed;
  }

  /** Drops delayed packets that a driver before this one took, and this one may not take. */
  #dropUnlessTaken(): void {
    const taken = takenBy(this.#owner);
    if (taken !== this.#taken) {
      while (this.#rx.count > 0) {
        this.#rx.queue.remove();
        this.#owner.dropped(Drop.DOWN);
      }
    }
    this.#taken = taken;
  }

  listen(isListening: boolean): void {
    this.#port.listen(isListening && !this.#isHeld);
  }

  enable(isEnabled: boolean): void {
    if (isEnabled) this.#dropUnlessTaken();
    this.#port.enable?.(isEnabled);
  }

  /** Sets the timer, unless it is set to an earlier time. */
  #arm(us: number, now: number): void {
    if (this.#armedUs >= 0 && this.#armedUs - elapsed(this.#armedAt, now) <= us) return;
    this.#armedUs = us;
    this.#armedAt = now;
    setTimer(this.#timer.number, us);
  }

  #onTimer(): void {
    this.#armedUs = -1;
    this.#isHeld = false;
    drainEventfd(this.#timer.number);
    // Both come back here: see `writable` and `receive`.
    this.#owner.writable();
    this.#owner.readable();
    this.#armNext(this.#tx);
    this.#armNext(this.#rx);
  }

  /** Arms the timer that notes packets as due, also while they cannot pass. */
  #armNext(way: ImpairedWay): void {
    const now = microseconds();
    const us = way.nextInUs(now);
    if (us >= 0) this.#arm(us, now);
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#timer.close();
    this.#port[Symbol.dispose]();
  }
}
