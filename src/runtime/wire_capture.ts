/**
 * Captures the vhost-user messages of a process into a pcapng file.
 *
 * @module
 */

import { CaptureFile, CaptureStream, pcapng, stampTime } from "../linux/mod.ts";
import {
  type CapturedPacket,
  encodeCaptured,
  LINKTYPE_CAPTURE,
} from "../vhost_user/captured_packet.ts";
import {
  encodeMessage,
  type Header,
  HEADER_BYTES,
  MAX_PAYLOAD_BYTES,
} from "../vhost_user/header.ts";

/** The bytes that wait to be written: more are lost, which the file says. */
const MAX_UNWRITTEN_BYTES = 2 ** 20;

/** More than any packet has. */
const SNAP_BYTES = 64 + HEADER_BYTES + MAX_PAYLOAD_BYTES;

/** A capture of all devices of a process, each an interface of the file. */
export class WireCapture implements AsyncDisposable {
  /** Where each device tells what is sent, in the order of the names. */
  readonly taps: readonly WireTap[];
  readonly #file: CaptureFile;
  readonly #stream: CaptureStream;
  #connections = 0;
  #isOver = false;

  /**
   * Creates a file that only its owner may read, or empties the one at that path.
   *
   * @param maxBytes The largest size of the file.
   * @param names The names of the devices.
   * @param log Prints why the capture has ended early.
   * @throws {Error} When it cannot be opened.
   */
  constructor(
    path: string,
    maxBytes: number,
    names: readonly string[],
    log: (message: string) => void,
  ) {
    this.#file = new CaptureFile(path, { maxBytes, flag: "--wire-max" }, log);
    const header = pcapng.fileHeader(LINKTYPE_CAPTURE, names, SNAP_BYTES);
    this.#stream = new CaptureStream(header, MAX_UNWRITTEN_BYTES, () => this.#isOver = true);
    this.#file.write(this.#stream.stream);
    const time = new Uint32Array(2);
    this.taps = names.map((_, i) =>
      new WireTap(() => ++this.#connections, (packet) => {
        if (this.#isOver) return;
        stampTime(time, 0);
        const { side, kind, bytes } = packet;
        const direction = side === "front-end" ? pcapng.INBOUND : pcapng.OUTBOUND;
        const comment = kind === "note" ? new TextDecoder().decode(bytes) : undefined;
        const trailer = pcapng.packetTrailer(direction, comment);
        const timeUs = time[0] * 2 ** 32 + time[1];
        this.#stream.give(pcapng.packetBlock(i, timeUs, encodeCaptured(packet), trailer));
      })
    );
  }

  /** Ends the capture, and waits a moment until the file is written. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOver) this.#stream.end();
    this.#isOver = true;
    await this.#file[Symbol.asyncDispose]();
  }
}

/** The longest text of a packet. */
const MAX_TEXT_BYTES = 1024;

type Side = CapturedPacket["side"];
type Channel = CapturedPacket["channel"];

/** Takes what is sent on the connections of a device, which has one at a time. */
export class WireTap {
  readonly #begin: () => number;
  readonly #write: (packet: CapturedPacket) => void;
  #connection = 0;

  /** @param begin Returns the number of a new connection. */
  constructor(begin: () => number, write: (packet: CapturedPacket) => void) {
    this.#begin = begin;
    this.#write = write;
  }

  #putMessage(side: Side, channel: Channel, bytes: Uint8Array, fds: number | undefined): void {
    this.#write({ kind: "message", side, channel, connection: this.#connection, fds, bytes });
  }

  #putText(kind: "connected" | "note" | "ended", side: Side, text: string): void {
    const bytes = new TextEncoder().encode(text).subarray(0, MAX_TEXT_BYTES);
    this.#write({ kind, side, channel: "main", connection: this.#connection, fds: 0, bytes });
  }

  /** A connection began. */
  connected(frontend: { pid: number; command: string } | null): void {
    this.#connection = this.#begin();
    const name = frontend === null ? "" : `${frontend.command} (pid ${frontend.pid})`;
    this.#putText("connected", "front-end", name);
  }

  /**
   * A message of the front-end came.
   *
   * @param fds How many descriptors came with it; undefined for too many.
   */
  received({ id, reply, needReply }: Header, payload: Uint8Array, fds: number | undefined): void {
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
    this.#putText("ended", side, reason);
  }
}
