/**
 * A packet on its way through a switch.
 *
 * @module
 */

import { Parts } from "../../../mod.ts";
import { addressOf, pinnedBuffer } from "../../../src/linux/mod.ts";
import { packetKind } from "../counts.ts";
import type { PacketHeader } from "../header.ts";
import { HEADER_BYTES, MAX_FRAME_BYTES } from "../packet.ts";
import { Segmenter } from "../segmenter.ts";

/** The header of a packet, and the addresses in its frame. */
const HEAD_BYTES = HEADER_BYTES + 12;

/**
 * The packet that a port of the switch has sent. Its header and addresses are copied before anything
 * is decided upon them, and the copy is sent: the sender can change its memory at any time. The rest
 * is in place.
 */
export class Transit {
  /** The packet, or the next of the frames that it is divided into. Its indexes are addresses. */
  parts: Parts;
  header!: PacketHeader;
  /** The kind of the whole packet: see `packetKind`. */
  kind = 0;
  // The addresses, as little-endian words.
  to0 = 0;
  to1 = 0;
  to2 = 0;
  from0 = 0;
  from1 = 0;
  from2 = 0;
  readonly #base: number;
  readonly #whole = new Parts(NO_BYTES);
  readonly #head = new Uint16Array(pinnedBuffer(HEAD_BYTES), 0, HEAD_BYTES / 2);
  readonly #headAddress: number;
  /** For receivers that lack an offload; made when there is the first. */
  #segments: Segments | undefined;

  /** @param base The address of index 0 of the sender's memory. */
  constructor(base: number) {
    this.parts = this.#whole;
    this.#base = base;
    this.#headAddress = addressOf(this.#head);
  }

  /** Begins a packet, which has a whole Ethernet header. */
  begin(packet: Parts, header: PacketHeader): void {
    const head = this.#head;
    this.header = header;
    const isPlain = header.flags === 0;
    head[0] = header.flags | header.gsoType << 8;
    head[1] = isPlain ? 0 : header.hdrLen;
    head[2] = isPlain ? 0 : header.gsoSize;
    head[3] = isPlain ? 0 : header.csumStart;
    head[4] = isPlain ? 0 : header.csumOffset;
    head[5] = 0;
    head[6] = this.to0 = packet.u16(HEADER_BYTES);
    head[7] = this.to1 = packet.u16(HEADER_BYTES + 2);
    head[8] = this.to2 = packet.u16(HEADER_BYTES + 4);
    head[9] = this.from0 = packet.u16(HEADER_BYTES + 6);
    head[10] = this.from1 = packet.u16(HEADER_BYTES + 8);
    head[11] = this.from2 = packet.u16(HEADER_BYTES + 10);
    this.kind = packetKind(header.gsoType, this.to0, this.to1, this.to2);
    const whole = this.#whole;
    whole.clear(NO_BYTES);
    whole.push(this.#headAddress, HEAD_BYTES);
    let skip = HEAD_BYTES;
    for (let i = 0; i < packet.count; i++) {
      const bytes = packet.length(i) - skip;
      if (bytes > 0) whole.push(this.#base + packet.index(i) + skip, bytes);
      skip = bytes > 0 ? 0 : -bytes;
    }
    this.parts = whole;
  }

  /**
   * Divides the packet into frames that need no offload; each is `parts` after {@linkcode Transit.next}.
   *
   * @returns The number of frames; 0 when the packet is not what its header says.
   */
  divide(): number {
    return (this.#segments ??= new Segments()).segmenter.begin(this.#whole, this.header);
  }

  /** Makes the next of these frames. */
  next(): void {
    const { segmenter, parts, address } = this.#segments!;
    parts.clear(NO_BYTES);
    parts.push(address, HEADER_BYTES + segmenter.next(HEADER_BYTES));
    this.parts = parts;
  }

  /** Ends the division: `parts` is the packet again. */
  whole(): void {
    this.parts = this.#whole;
  }
}

/** The memory of parts whose bytes are only copied. */
const NO_BYTES = new Uint8Array();

/** A frame of a packet that is divided, behind a header of zeros. */
class Segments {
  readonly #frame = new Uint8Array(pinnedBuffer(HEADER_BYTES + MAX_FRAME_BYTES));
  readonly address = addressOf(this.#frame);
  readonly parts = new Parts(NO_BYTES);
  readonly segmenter = new Segmenter(this.#frame, 0);
}
