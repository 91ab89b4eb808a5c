/**
 * Passes what is sent on a device's connections to those that listen.
 *
 * @module
 */

import type { CapturedPacket } from "../vhost_user/captured_packet.ts";
import { encodeMessage, type Header } from "../vhost_user/header.ts";

/** The longest text of a packet. */
const MAX_TEXT_BYTES = 1024;

type Side = CapturedPacket["side"];
type Channel = CapturedPacket["channel"];
type Text = Exclude<CapturedPacket["kind"], "message">;

/** Gives what is sent on the connections of a device, which has one at a time, to its listeners. */
export class WireTap {
  readonly #begin: () => number;
  readonly #listeners = new Set<(packet: CapturedPacket) => void>();
  #connection = 0;
  /** The front-end that is connected. */
  #frontend: string | undefined;

  /** @param begin Returns the number of a new connection; by default they are counted from 1. */
  constructor(begin: () => number = () => this.#connection + 1) {
    this.#begin = begin;
  }

  /**
   * Gives `listener` what is sent from now on, first the connection that there is.
   *
   * @returns A function that ends that.
   */
  listen(listener: (packet: CapturedPacket) => void): () => void {
    if (this.#frontend !== undefined) {
      listener(this.#text("connected", "front-end", this.#frontend));
    }
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #putMessage(side: Side, channel: Channel, bytes: Uint8Array, fds: number | undefined): void {
    const connection = this.#connection;
    for (const listener of this.#listeners) {
      listener({ kind: "message", side, channel, connection, fds, bytes });
    }
  }

  #putText(kind: Text, side: Side, text: string): void {
    for (const listener of this.#listeners) listener(this.#text(kind, side, text));
  }

  #text(kind: Text, side: Side, text: string): CapturedPacket {
    const bytes = new TextEncoder().encode(text).subarray(0, MAX_TEXT_BYTES);
    return { kind, side, channel: "main", connection: this.#connection, fds: 0, bytes };
  }

  /** A connection began. */
  connected(frontend: { pid: number; command: string } | null): void {
    this.#connection = this.#begin();
    this.#frontend = frontend === null ? "" : `${frontend.command} (pid ${frontend.pid})`;
    this.#putText("connected", "front-end", this.#frontend);
  }

  /**
   * A message of the front-end came.
   *
   * @param fds How many descriptors came with it; undefined for too many.
   */
  received({ id, reply, needReply }: Header, payload: Uint8Array, fds: number | undefined): void {
    if (this.#listeners.size === 0) return;
    const bytes = encodeMessage(id, { reply, needReply }, payload);
    this.#putMessage("front-end", "main", bytes, fds);
  }

  /** The back-end sends a message. */
  sent(bytes: Uint8Array, fds: number, channel: Channel = "main"): void {
    this.#putMessage("back-end", channel, bytes, fds);
  }

  /** Something was refused, or went wrong. */
  note(text: string): void {
    this.#putText("note", "back-end", text);
  }

  /** The connection ended. */
  ended(side: Side, reason: string): void {
    this.#frontend = undefined;
    this.#putText("ended", side, reason);
  }
}
