/**
 * Reads the packets of pcapng files that {@linkcode CaptureFile} wrote.
 *
 * @module
 */

import {
  BYTE_ORDER_MAGIC,
  ENHANCED_PACKET,
  IF_NAME,
  INTERFACE_DESCRIPTION,
  INTERFACE_STATISTICS,
  padded,
  SECTION_HEADER,
} from "./pcapng.ts";

/** A file of packets. */
export interface ReadCapture {
  /** The link type and name of each interface. */
  interfaces: { linkType: number; name: string }[];
  /** The packets, in their order, with the number of their interface. */
  packets: { interfaceId: number; bytes: Uint8Array }[];
  /** Packets are missing, as its statistics say. */
  isIncomplete: boolean;
}

/**
 * Reads a little-endian file of one section. A last block that was cut short is left out.
 *
 * @throws {RangeError} When it is no such file.
 */
export function readCapture(file: Uint8Array): ReadCapture {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const u32 = (at: number) => view.getUint32(at, true);
  const capture: ReadCapture = { interfaces: [], packets: [], isIncomplete: false };
  if (file.length < 28 || u32(0) !== SECTION_HEADER || u32(8) !== BYTE_ORDER_MAGIC) {
    throw new RangeError("Expected a little-endian pcapng file");
  }
  for (let at = 0; at + 12 <= file.length;) {
    const [type, length] = [u32(at), u32(at + 4)];
    if (length < 12 || length % 4 !== 0) {
      throw new RangeError(`Expected the length of a block at byte ${at}, got ${length}`);
    }
    const end = at + length;
    if (end > file.length) break;
    if (type === INTERFACE_DESCRIPTION && length >= 20) {
      const name = nameIn(file.subarray(at + 16, end - 4));
      capture.interfaces.push({ linkType: view.getUint16(at + 8, true), name });
    } else if (type === INTERFACE_STATISTICS) {
      capture.isIncomplete = true;
    } else if (type === ENHANCED_PACKET && length >= 32) {
      const [interfaceId, bytes] = [u32(at + 8), u32(at + 20)];
      if (interfaceId >= capture.interfaces.length || 32 + bytes > length) {
        throw new RangeError(`Expected a packet of an interface at byte ${at}`);
      }
      capture.packets.push({ interfaceId, bytes: file.subarray(at + 28, at + 28 + bytes) });
    }
    at = end;
  }
  return capture;
}

/** The name among the options of an interface. */
function nameIn(options: Uint8Array): string {
  const view = new DataView(options.buffer, options.byteOffset, options.byteLength);
  for (let at = 0; at + 4 <= options.length;) {
    const [code, bytes] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
    if (code === IF_NAME) return new TextDecoder().decode(options.subarray(at + 4, at + 4 + bytes));
    at += 4 + padded(bytes);
  }
  return "";
}
