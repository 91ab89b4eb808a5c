/** Builds Ethernet frames with IP from their fields, byte by byte: a slow model for offloads. */

/** What a frame is made of. */
export interface IpFrame {
  /** VLAN tags. */
  vlans: number;
  ip: 4 | 6;
  /** IPv4 options, or IPv6 extension headers without their first byte, by type. */
  options: Uint8Array;
  extensions: [type: number, rest: Uint8Array][];
  /** The identification of an IPv4 packet. */
  id: number;
  /** The IPv4 field with flags and fragment offset. */
  fragment: number;
  /** The fragment header of an IPv6 packet: offset and flag, identification. */
  fragment6?: [number, number];
  protocol: "tcp" | "udp";
  sequence: number;
  flags: number;
  tcpOptions: Uint8Array;
  payload: Uint8Array;
}

const SOURCE = [10, 9, 0, 1], DESTINATION = [10, 9, 0, 2];
const SOURCE_6 = [0xfd, 9, ...Array(13).fill(0), 1];
const DESTINATION_6 = [0xfd, 9, ...Array(13).fill(0), 2];

const u16 = (value: number) => [value >> 8 & 0xff, value & 0xff];
const u32 = (value: number) => [...u16(value >>> 16), ...u16(value & 0xffff)];

/** The sum of 16-bit words in ones' complement. */
function sumOf(bytes: number[]): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes[i] * 256 + (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = sum % 0x10000 + Math.floor(sum / 0x10000);
  return sum;
}

/** The UDP or TCP header and the payload; its checksum is complete or partial. */
export function transport(frame: IpFrame, checksum: "complete" | "partial"): number[] {
  const { protocol, payload, tcpOptions } = frame;
  const header = protocol === "udp"
    ? [...u16(1234), ...u16(5678), ...u16(8 + payload.length), 0, 0]
    : [
      ...[...u16(1234), ...u16(5678), ...u32(frame.sequence), ...u32(99)],
      ...[(5 + tcpOptions.length / 4) << 4, frame.flags, ...u16(500), 0, 0, 0, 0, ...tcpOptions],
    ];
  const bytes = [...header, ...payload];
  const number = protocol === "udp" ? 17 : 6;
  const addresses = frame.ip === 4 ? [...SOURCE, ...DESTINATION] : [...SOURCE_6, ...DESTINATION_6];
  const pseudo = [...addresses, 0, number, ...u16(bytes.length)];
  const sum = checksum === "partial"
    ? sumOf(pseudo)
    : 0xffff - sumOf([...pseudo, ...bytes]) || 0xffff;
  bytes.splice(protocol === "udp" ? 6 : 16, 2, ...u16(sum));
  return bytes;
}

/** The headers before UDP or TCP, for `bytes` bytes after them. */
export function network(frame: IpFrame, bytes: number): number[] {
  const { ip, options, extensions, fragment6 } = frame;
  const number = frame.protocol === "udp" ? 17 : 6;
  const tags = Array(frame.vlans).fill([0x81, 0, 0, 7]).flat();
  const ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, ...tags];
  if (ip === 4) {
    const length = 20 + options.length;
    const header = [
      ...[0x40 + length / 4, 0, ...u16(length + bytes), ...u16(frame.id), ...u16(frame.fragment)],
      ...[64, number, 0, 0, ...SOURCE, ...DESTINATION, ...options],
    ];
    header.splice(10, 2, ...u16(0xffff - sumOf(header) || 0xffff));
    return [...ethernet, 8, 0, ...header];
  }
  const chain: [number, number[]][] = extensions.map(([type, rest]) => [type, [...rest]]);
  if (fragment6 !== undefined) {
    chain.push([44, [0, ...u16(fragment6[0]), ...u32(fragment6[1])]]);
  }
  const types = [...chain.map(([type]) => type), number];
  const headers = chain.flatMap(([, rest], i) => [types[i + 1], ...rest]);
  const length = u16(headers.length + bytes);
  return [
    ...[...ethernet, 0x86, 0xdd, 0x60, 1, 2, 3, ...length, types[0], 64],
    ...[...SOURCE_6, ...DESTINATION_6, ...headers],
  ];
}

/** A whole frame. */
export function ipFrame(frame: IpFrame, checksum: "complete" | "partial"): Uint8Array {
  const bytes = transport(frame, checksum);
  return Uint8Array.from([...network(frame, bytes.length), ...bytes]);
}
