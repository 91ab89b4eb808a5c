/**
 * Blocks of pcapng files, little-endian.
 *
 * Source: draft-ietf-opsawg-pcapng, "PCAP Next Generation (pcapng) Capture File Format".
 *
 * @module
 */

/** Types of blocks. */
export const SECTION_HEADER = 0x0a0d_0d0a,
  INTERFACE_DESCRIPTION = 1,
  INTERFACE_STATISTICS = 5,
  ENHANCED_PACKET = 6;
/** The first word of a Section Header Block's body, by which one knows its byte order. */
export const BYTE_ORDER_MAGIC = 0x1a2b_3c4d;

// Options
const END_OF_OPTIONS = 0, COMMENT = 1;
const SHB_USERAPPL = 4;
/** The option of an Interface Description Block that has its name. */
export const IF_NAME = 2;
const ISB_IFRECV = 4, ISB_IFDROP = 5;
/** The option of an Enhanced Packet Block that tells the direction. */
const EPB_FLAGS = 2;

/** Directions of packets, as {@linkcode packetTrailer} takes them. */
export const INBOUND = 1, OUTBOUND = 2;

/** How many bytes a value takes, up to the next multiple of 4. */
export function padded(bytes: number): number {
  return (bytes + 3) & ~3;
}

/** A block, which has its length at both ends. */
function block(type: number, body: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const length = 12 + body.reduce((sum, part) => sum + part.length, 0);
  const parts = [words(type, length), ...body, words(length)];
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Words of 32 bits as bytes: this runs on little-endian machines. */
function words(...values: number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

function option(code: number, value: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + padded(value.length));
  bytes.set(words(code | value.length << 16));
  bytes.set(value, 4);
  return bytes;
}

const END = words(END_OF_OPTIONS);

function textOption(code: number, text: string): Uint8Array {
  return option(code, new TextEncoder().encode(text).subarray(0, 1024));
}

function u64(value: number): Uint8Array {
  return words(value % 2 ** 32, value / 2 ** 32);
}

/**
 * The beginning of a file: a section and its interfaces. Times are in microseconds.
 *
 * @param linkType The type of all packets: a LINKTYPE_ value.
 * @param names The names of the interfaces.
 * @param snapBytes The most bytes of a packet that are captured.
 */
export function fileHeader(
  linkType: number,
  names: readonly string[],
  snapBytes: number,
): Uint8Array<ArrayBuffer>[] {
  return [
    // Version 1.0; the section's length is not known.
    block(SECTION_HEADER, [
      words(BYTE_ORDER_MAGIC, 1, 0xffff_ffff, 0xffff_ffff),
      textOption(SHB_USERAPPL, "vhostd"),
      END,
    ]),
    ...names.map((name) => interfaceBlock(linkType, name, snapBytes)),
  ];
}

/** An Interface Description Block, for a further interface; the parameters as above. */
export function interfaceBlock(
  linkType: number,
  name: string,
  snapBytes: number,
): Uint8Array<ArrayBuffer> {
  const body = [words(linkType, snapBytes), textOption(IF_NAME, name), END];
  return block(INTERFACE_DESCRIPTION, body);
}

/** Makes the packets in whole blocks those of another interface. */
export function setInterface(blocks: Uint8Array, interfaceId: number): void {
  const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.length);
  for (const { type, at } of eachBlock(blocks)) {
    if (type === ENHANCED_PACKET) view.setUint32(at + 8, interfaceId, true);
  }
}

/**
 * An Enhanced Packet Block with a whole packet.
 *
 * @param interfaceId The interface's place in the header.
 * @param timeUs Microseconds since 1970.
 * @param trailer From {@linkcode packetTrailer}.
 */
export function packetBlock(
  interfaceId: number,
  timeUs: number,
  packet: Uint8Array,
  trailer: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(padded(packet.length));
  bytes.set(packet);
  const { length } = packet;
  return block(ENHANCED_PACKET, [
    words(interfaceId, timeUs / 2 ** 32, timeUs % 2 ** 32, length, length),
    bytes,
    trailer,
  ]);
}

/**
 * An Interface Statistics Block: how many packets there were, and how many of them are not in the
 * file.
 */
export function statistics(
  interfaceId: number,
  packets: number,
  lost: number,
  comment: string,
  nowMs: number,
): Uint8Array<ArrayBuffer> {
  const us = nowMs * 1000;
  return block(INTERFACE_STATISTICS, [
    words(interfaceId, us / 2 ** 32, us % 2 ** 32),
    option(ISB_IFRECV, u64(packets)),
    option(ISB_IFDROP, u64(lost)),
    textOption(COMMENT, comment),
    END,
  ]);
}

/** The options of an Enhanced Packet Block, which follow its packet. */
export function packetTrailer(direction: number, comment?: string): Uint8Array {
  return new Uint8Array([
    ...option(EPB_FLAGS, words(direction)),
    ...comment === undefined ? [] : textOption(COMMENT, comment),
    ...END,
  ]);
}

/** The number of packets in whole blocks. */
export function countPackets(blocks: Uint8Array): number {
  let packets = 0;
  for (const { type } of eachBlock(blocks)) if (type === ENHANCED_PACKET) packets++;
  return packets;
}

/** The size of the first whole blocks that have at most `most` bytes together. */
export function wholeBlocks(blocks: Uint8Array, most: number): number {
  let bytes = 0;
  for (const { end } of eachBlock(blocks)) {
    if (end > most) break;
    bytes = end;
  }
  return bytes;
}

function* eachBlock(blocks: Uint8Array): Iterable<{ type: number; at: number; end: number }> {
  const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.length);
  for (let at = 0, end; at < blocks.length; at = end) {
    end = at + view.getUint32(at + 4, true);
    yield { type: view.getUint32(at, true), at, end };
  }
}
