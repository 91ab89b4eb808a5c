/**
 * Ports for measuring: one that takes every packet and gives none, and one that gives as many as
 * the driver has buffers for.
 *
 * @module
 */

import type { Watch } from "../../mod.ts";
import {
  addressOf,
  createEventfd,
  type Fd,
  pinnedBuffer,
  signalEventfd,
} from "../../src/linux/mod.ts";
import { packetKind } from "./counts.ts";
import { HEADER_BYTES, SENT } from "./packet.ts";
import type { Port, PortOwner } from "./port.ts";
import type { ReceiveWindow } from "./receive_window.ts";

const BROADCAST = packetKind(0, 0xffff, 0xffff, 0xffff);

/** Takes every packet and gives none. */
export class NullPort implements Port {
  send(): number {
    return SENT;
  }

  receive(): number {
    return 0;
  }

  listen(): void {}

  [Symbol.dispose](): void {}
}

/** Gives broadcast frames of one size without end, and takes every packet. */
export class SourcePort implements Port {
  readonly #packet: Uint8Array;
  readonly #address: number;
  /** Always readable. */
  readonly #ready: Fd = createEventfd();
  readonly #watch: Watch;

  constructor(owner: PortOwner, frameBytes: number) {
    const packet = this.#packet = new Uint8Array(
      pinnedBuffer(HEADER_BYTES + frameBytes),
      0,
      HEADER_BYTES + frameBytes,
    );
    packet.fill(0xff, HEADER_BYTES, HEADER_BYTES + 6);
    packet.set([2, 0, 0, 0, 0, 1, 0x88, 0xb5], HEADER_BYTES + 6); // a type for local experiments
    this.#address = addressOf(packet);
    signalEventfd(this.#ready.number);
    this.#watch = owner.watch(this.#ready.number, "readable", () => owner.readable());
    this.#watch.pause();
  }

  send(): number {
    return SENT;
  }

  receive(window: ReceiveWindow): number {
    window.rewind();
    window.kind = BROADCAST;
    window.addresses[1] = this.#address;
    window.copy(this.#packet.length);
    return this.#packet.length;
  }

  listen(isListening: boolean): void {
    if (isListening) this.#watch.resume();
    else this.#watch.pause();
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#ready.close();
  }
}
