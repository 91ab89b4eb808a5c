/**
 * Captures of vhost-user messages as pcapng: those of a process in a file, or of a device as a
 * stream.
 *
 * @module
 */

import { CaptureFile, CaptureStream, pcapng, stampTime } from "../linux/mod.ts";
import {
  type CapturedPacket,
  encodeCaptured,
  LINKTYPE_CAPTURE,
} from "../vhost_user/captured_packet.ts";
import { HEADER_BYTES, MAX_PAYLOAD_BYTES } from "../vhost_user/header.ts";
import { WireTap } from "./wire_tap.ts";

/** The bytes that wait to be written or read: more are lost, which the capture says. */
const MAX_UNWRITTEN_BYTES = 2 ** 20;

/** More than any packet has. */
const SNAP_BYTES = 64 + HEADER_BYTES + MAX_PAYLOAD_BYTES;

/** A capture of all devices of a process, each an interface of the file. */
export class WireCapture implements AsyncDisposable {
  /** Where each device tells what is sent, in the order of the names. */
  readonly taps: readonly WireTap[];
  readonly #file: CaptureFile;
  readonly #stream: CaptureStream;
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
    let connections = 0;
    this.taps = names.map((_, i) => {
      const tap = new WireTap(() => ++connections);
      tap.listen((packet) => this.#isOver || this.#stream.give(blockOf(packet, i)));
      return tap;
    });
  }

  /** Ends the capture, and waits a moment until the file is written. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOver) this.#stream.end();
    this.#isOver = true;
    await this.#file[Symbol.asyncDispose]();
  }
}

/** The messages of a device from now on, until the reader cancels. */
export function streamWire(tap: WireTap, name: string): ReadableStream<Uint8Array> {
  const header = pcapng.fileHeader(LINKTYPE_CAPTURE, [name], SNAP_BYTES);
  const capture = new CaptureStream(header, MAX_UNWRITTEN_BYTES, () => unlisten());
  const unlisten = tap.listen((packet) => capture.give(blockOf(packet, 0)));
  return capture.stream;
}

const time = new Uint32Array(2);

/** A packet of an interface as a block of the file, with the time of day. */
function blockOf(packet: CapturedPacket, interfaceId: number): Uint8Array<ArrayBuffer> {
  stampTime(time, 0);
  const { side, kind, bytes } = packet;
  const direction = side === "front-end" ? pcapng.INBOUND : pcapng.OUTBOUND;
  const comment = kind === "note" ? new TextDecoder().decode(bytes) : undefined;
  const trailer = pcapng.packetTrailer(direction, comment);
  const timeUs = time[0] * 2 ** 32 + time[1];
  return pcapng.packetBlock(interfaceId, timeUs, encodeCaptured(packet), trailer);
}
