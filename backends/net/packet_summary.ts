/**
 * Packets of a pcapng stream in one line each, for the panel in the browser.
 *
 * @module
 */

/** The largest block that is taken: a packet of 64 KiB and its options. */
const MAX_BLOCK_BYTES = 2 ** 18;

// pcapng: see src/linux/capture/pcapng.ts
const ENHANCED_PACKET = 6;
const EPB_FLAGS = 2;
const INBOUND = 1;

/** A packet. */
export interface PacketSummary {
  /** Milliseconds since 1970. */
  at: number;
  toGuest: boolean;
  bytes: number;
  /** Such as `TCP`, or the Ethernet type. */
  protocol: string;
  source: string;
  destination: string;
}

/**
 * Yields the packets of a stream, as many at a time as come together.
 *
 * @throws {RangeError} When it is no pcapng.
 */
export async function* readPackets(
  stream: ReadableStream<Uint8Array>,
): AsyncGenerator<PacketSummary[]> {
  let bytes = new Uint8Array();
  const reader = stream.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(bytes.length + value.length);
    joined.set(bytes);
    joined.set(value, bytes.length);
    const view = new DataView(joined.buffer);
    const packets: PacketSummary[] = [];
    let at = 0;
    while (joined.length - at >= 8) {
      const length = view.getUint32(at + 4, true);
      if (length < 12 || length > MAX_BLOCK_BYTES) {
        throw new RangeError(`A block of ${length} bytes`);
      }
      if (joined.length - at < length) break;
      if (view.getUint32(at, true) === ENHANCED_PACKET) {
        packets.push(packetOf(new DataView(joined.buffer, at, length)));
      }
      at += length;
    }
    bytes = joined.subarray(at);
    if (packets.length > 0) yield packets;
  }
}

/** The packet of an Enhanced Packet Block. */
function packetOf(block: DataView): PacketSummary {
  const microseconds = block.getUint32(12, true) * 2 ** 32 + block.getUint32(16, true);
  const captured = Math.min(block.getUint32(20, true), block.byteLength - 32);
  const options = 28 + (captured + 3 & ~3);
  const hasFlags = options + 8 <= block.byteLength && block.getUint16(options, true) === EPB_FLAGS;
  return {
    at: microseconds / 1000,
    toGuest: hasFlags && (block.getUint32(options + 4, true) & 3) === INBOUND,
    bytes: block.getUint32(24, true),
    ...summaryOf(new DataView(block.buffer, block.byteOffset + 28, captured)),
  };
}

/** The addresses and the protocol of a frame, as far as it goes. */
function summaryOf(
  frame: DataView,
): Pick<PacketSummary, "protocol" | "source" | "destination"> {
  const has = (bytes: number) => frame.byteLength >= bytes;
  const list = (at: number, bytes: number) =>
    Array.from({ length: bytes }, (_, i) => frame.getUint8(at + i));
  const mac = (at: number) =>
    list(at, 6).map((byte) => byte.toString(16).padStart(2, "0")).join(":");
  if (!has(14)) return { protocol: "short", source: "", destination: "" };
  const type = frame.getUint16(12);
  const macs = { source: mac(6), destination: mac(0) };
  if (type === 0x0806 && has(42)) {
    const [source, destination] = [list(28, 4).join("."), list(38, 4).join(".")];
    return {
      protocol: frame.getUint16(20) === 1 ? "ARP who-has" : "ARP reply",
      source,
      destination,
    };
  }
  if (type === 0x0800 && has(34)) {
    const header = (frame.getUint8(14) & 15) * 4;
    const ends = [list(26, 4).join("."), list(30, 4).join(".")];
    const isFirst = (frame.getUint16(20) & 0x1fff) === 0;
    return transport(frame.getUint8(23), isFirst ? 14 + header : Infinity, ends);
  }
  if (type === 0x86dd && has(54)) {
    return transport(frame.getUint8(20), 54, [ipv6(22), ipv6(38)]);
  }
  return { protocol: `0x${type.toString(16).padStart(4, "0")}`, ...macs };

  function ipv6(at: number): string {
    const groups = Array.from({ length: 8 }, (_, i) => frame.getUint16(at + 2 * i).toString(16));
    return groups.join(":").replace(/\b0(?::0\b)+/, "::").replace(/:{3,}/, "::");
  }

  function transport(number: number, at: number, [source, destination]: string[]) {
    const names: Record<number, string> = {
      0: "IPv6",
      1: "ICMP",
      6: "TCP",
      17: "UDP",
      58: "ICMPv6",
    };
    const protocol = names[number] ?? `IP ${number}`;
    if (number !== 6 && number !== 17 || !has(at + 4)) return { protocol, source, destination };
    const port = (address: string, at: number) =>
      `${address.includes(":") ? `[${address}]` : address}:${frame.getUint16(at)}`;
    return { protocol, source: port(source, at), destination: port(destination, at + 2) };
  }
}
