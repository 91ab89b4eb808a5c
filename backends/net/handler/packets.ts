/**
 * Reading and writing packets: Ethernet, ARP, IPv4, UDP, DHCP and DNS, as far as small networks need
 * them. What reads takes any bytes and throws nothing: it returns undefined for what is no such
 * packet. Payloads are views of the frame. What writes makes new bytes, and throws a TypeError for
 * an address that is none.
 *
 * Sources: RFC 791 (IPv4), 768 (UDP), 792 (ICMP), 826 (ARP), 1035 (DNS), 2131 and 2132 (DHCP).
 *
 * @module
 */

const ETHERNET_BYTES = 14, ARP_BYTES = 28, IPV4_BYTES = 20, UDP_BYTES = 8;
const DHCP_BYTES = 240, DNS_BYTES = 12;
const ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_ARP = 0x0806;
const DHCP_MAGIC = 0x6382_5363;

/** The MAC address of all stations. */
export const BROADCAST_MAC = "ff:ff:ff:ff:ff:ff";

/** Protocols over IPv4, by the numbers that IANA assigned. */
export const Protocol = { ICMP: 1, TCP: 6, UDP: 17 } as const;

/** The type of DNS question that asks for IPv4 addresses. */
export const DNS_A = 1;

/** A station of an Ethernet. */
export interface Host {
  /** The MAC address, such as `02:00:00:00:00:01`. */
  mac: string;
  /** The IPv4 address, such as `10.0.2.1`. */
  ip: string;
}

/** An ARP packet for IPv4 over Ethernet. */
export interface Arp {
  /** What it is. */
  operation: "request" | "reply";
  /** Its sender. */
  sender: Host;
  /** The station that is sought, or that sought. The MAC address of one that is sought is zeros. */
  target: Host;
}

/** An IPv4 packet. */
export interface Ipv4 {
  /** Its sender: the MAC address is that of the last hop. */
  source: Host;
  /** Its receiver: the MAC address is that of the next hop. */
  destination: Host;
  /** The protocol of the payload: see {@linkcode Protocol}. */
  protocol: number;
  /** How many hops it has left. */
  ttl: number;
  /** Whether it is only a part of a packet. */
  isFragment: boolean;
  /** The bytes after the header. */
  payload: Uint8Array;
}

/** One end of a UDP datagram. */
export interface UdpEnd extends Host {
  /** The port, 0 to 65535. */
  port: number;
}

/** A UDP datagram over IPv4. */
export interface Udp {
  /** Its sender. */
  source: UdpEnd;
  /** Its receiver. */
  destination: UdpEnd;
  /** The bytes after the header. */
  payload: Uint8Array;
}

const DHCP_TYPES = [
  ...["", "discover", "offer", "request", "decline", "ack", "nak", "release", "inform"],
] as const;

/** The types of DHCP messages. */
export type DhcpType =
  | "discover"
  | "offer"
  | "request"
  | "decline"
  | "ack"
  | "nak"
  | "release"
  | "inform";

/** A DHCP message of a client. */
export interface DhcpRequest {
  /** Its type. */
  type: DhcpType;
  /** The number by which the client knows its answer. */
  transaction: number;
  /** The client's MAC address. */
  mac: string;
  /** The address that the client asks for or has; undefined if it names none. */
  address: string | undefined;
  /** The server that it means; undefined if it means all. */
  server: string | undefined;
  /** Its name for itself; undefined if it tells none. */
  hostname: string | undefined;
}

/** A server's answer. */
export interface DhcpAnswer {
  /** Its type. */
  type: "offer" | "ack" | "nak";
  /** The server's address. */
  server: string;
  /** The client's address. */
  address?: string;
  /** The network's mask, such as `255.255.255.0`. */
  mask?: string;
  /** The default gateway. */
  router?: string;
  /** The DNS server. */
  dns?: string;
  /** How long the client may use the address, in seconds. */
  leaseSeconds?: number;
}

/** The first question of a DNS query. */
export interface DnsQuery {
  /** The number by which the client knows its answer. */
  id: number;
  /** The name in small letters, without the last dot. */
  name: string;
  /** What is asked for: {@linkcode DNS_A}, or another type's number. */
  type: number;
  /** The question, as it is repeated in the answer. */
  question: Uint8Array;
}

/** Reads an ARP packet for IPv4. */
export function readArp(frame: Uint8Array): Arp | undefined {
  if (frame.length < ETHERNET_BYTES + ARP_BYTES || u16(frame, 12) !== ETHERTYPE_ARP) return;
  const operation = u16(frame, 20);
  // Ethernet and IPv4, with addresses of 6 and 4 bytes
  if (u32(frame, 14) !== 0x0001_0800 || u16(frame, 18) !== 0x0604) return;
  if (operation !== 1 && operation !== 2) return;
  return {
    operation: operation === 1 ? "request" : "reply",
    sender: { mac: macAt(frame, 22), ip: ipAt(frame, 28) },
    target: { mac: macAt(frame, 32), ip: ipAt(frame, 38) },
  };
}

/** Writes a frame with an ARP packet: a request to all stations, or a reply to its target. */
export function writeArp({ operation, sender, target }: Arp): Uint8Array<ArrayBuffer> {
  const isRequest = operation === "request";
  const to = isRequest ? BROADCAST_MAC : target.mac;
  const frame = ethernet(to, sender.mac, ETHERTYPE_ARP, ARP_BYTES);
  frame.set([0, 1, 8, 0, 6, 4, 0, isRequest ? 1 : 2], 14);
  frame.set(parseMac(sender.mac), 22);
  frame.set(parseIp(sender.ip), 28);
  frame.set(parseMac(target.mac), 32);
  frame.set(parseIp(target.ip), 38);
  return frame;
}

/** Reads an IPv4 packet whose header is right; a tag of a VLAN is not looked behind. */
export function readIpv4(frame: Uint8Array): Ipv4 | undefined {
  if (frame.length < ETHERNET_BYTES + IPV4_BYTES || u16(frame, 12) !== ETHERTYPE_IPV4) return;
  const first = frame[14], total = u16(frame, 16);
  const headerBytes = (first & 15) * 4;
  if (first >> 4 !== 4 || headerBytes < IPV4_BYTES || total < headerBytes) return;
  if (ETHERNET_BYTES + total > frame.length) return;
  if (checksum(frame.subarray(14, 14 + headerBytes)) !== 0) return;
  return {
    source: { mac: macAt(frame, 6), ip: ipAt(frame, 26) },
    destination: { mac: macAt(frame, 0), ip: ipAt(frame, 30) },
    protocol: frame[23],
    ttl: frame[22],
    isFragment: (u16(frame, 20) & 0x3fff) !== 0,
    payload: frame.subarray(14 + headerBytes, 14 + total),
  };
}

/** Writes a frame with an IPv4 packet of up to 65,535 bytes. */
export function writeIpv4(
  { source, destination, protocol, ttl = 64, payload }:
    & Omit<Ipv4, "ttl" | "isFragment">
    & Partial<Pick<Ipv4, "ttl">>,
): Uint8Array<ArrayBuffer> {
  const bytes = IPV4_BYTES + payload.length;
  if (bytes > 65_535) throw new TypeError(`Expected up to 65535 bytes of IPv4, got ${bytes}`);
  const frame = ethernet(destination.mac, source.mac, ETHERTYPE_IPV4, bytes);
  frame.set([0x45, 0, bytes >> 8, bytes, 0, 0, 0, 0, ttl, protocol], 14);
  frame.set(parseIp(source.ip), 26);
  frame.set(parseIp(destination.ip), 30);
  setU16(frame, 24, checksum(frame.subarray(14, 34)));
  frame.set(payload, 34);
  return frame;
}

/**
 * Returns a copy of a frame with an IPv4 packet for its next hop, with one hop less left; undefined
 * when it had none left, or is no such frame.
 *
 * @param source The MAC address of the router.
 * @param destination The MAC address of the next hop.
 */
export function forwardIpv4(
  frame: Uint8Array,
  source: string,
  destination: string,
): Uint8Array<ArrayBuffer> | undefined {
  const copy = new Uint8Array(frame);
  const ttl = readIpv4(copy)?.ttl ?? 0;
  if (ttl <= 1) return;
  copy.set(parseMac(destination), 0);
  copy.set(parseMac(source), 6);
  copy[22] = ttl - 1;
  setU16(copy, 24, 0);
  setU16(copy, 24, checksum(copy.subarray(14, 14 + (copy[14] & 15) * 4)));
  return copy;
}

/** Returns the answer to a ping, an ICMP echo request; undefined for other frames. */
export function writePong(frame: Uint8Array): Uint8Array<ArrayBuffer> | undefined {
  const ping = readIpv4(frame);
  if (ping === undefined || ping.protocol !== Protocol.ICMP || ping.isFragment) return;
  const payload = new Uint8Array(ping.payload);
  if (payload.length < 8 || payload[0] !== 8) return;
  payload[0] = 0;
  setU16(payload, 2, 0);
  setU16(payload, 2, checksum(payload));
  const { source, destination } = ping;
  return writeIpv4({ source: destination, destination: source, protocol: ping.protocol, payload });
}

/** Reads a UDP datagram over IPv4 that is not in fragments. Its checksum is not verified. */
export function readUdp(frame: Uint8Array): Udp | undefined {
  const ip = readIpv4(frame);
  if (ip === undefined || ip.protocol !== Protocol.UDP || ip.isFragment) return;
  const { payload } = ip;
  const bytes = u16(payload, 4);
  if (payload.length < UDP_BYTES || bytes < UDP_BYTES || bytes > payload.length) return;
  return {
    source: { ...ip.source, port: u16(payload, 0) },
    destination: { ...ip.destination, port: u16(payload, 2) },
    payload: payload.subarray(UDP_BYTES, bytes),
  };
}

/** Writes a frame with a UDP datagram over IPv4. */
export function writeUdp({ source, destination, payload }: Udp): Uint8Array<ArrayBuffer> {
  const bytes = UDP_BYTES + payload.length;
  // Behind the pseudo header that the checksum covers: RFC 768
  const datagram = new Uint8Array(12 + bytes);
  datagram.set(parseIp(source.ip), 0);
  datagram.set(parseIp(destination.ip), 4);
  datagram.set([0, Protocol.UDP, bytes >> 8, bytes], 8);
  setU16(datagram, 12, source.port);
  setU16(datagram, 14, destination.port);
  setU16(datagram, 16, bytes);
  datagram.set(payload, 20);
  setU16(datagram, 18, checksum(datagram) || 0xffff);
  const { UDP: protocol } = Protocol;
  return writeIpv4({ source, destination, protocol, payload: datagram.subarray(12) });
}

/** Reads the message of a DHCP client, the payload of a datagram to port 67. */
export function readDhcp(payload: Uint8Array): DhcpRequest | undefined {
  if (payload.length < DHCP_BYTES || u32(payload, 236) !== DHCP_MAGIC) return;
  // A request, by Ethernet, with addresses of 6 bytes
  if (u32(payload, 0) >>> 8 !== 0x01_0106) return;
  const options = dhcpOptions(payload);
  const type = DHCP_TYPES[options.get(53)?.[0] ?? 0];
  if (type === undefined || type === "") return;
  const ip = (bytes: Uint8Array | undefined) => bytes?.length === 4 ? ipAt(bytes, 0) : undefined;
  const hostname = options.get(12);
  return {
    type,
    transaction: u32(payload, 4),
    mac: macAt(payload, 28),
    address: ip(options.get(50)) ?? (u32(payload, 12) === 0 ? undefined : ipAt(payload, 12)),
    server: ip(options.get(54)),
    hostname: hostname && new TextDecoder().decode(new Uint8Array(hostname)),
  };
}

function dhcpOptions(payload: Uint8Array): Map<number, Uint8Array> {
  const options = new Map<number, Uint8Array>();
  for (let at = DHCP_BYTES; at + 1 < payload.length;) {
    const code = payload[at];
    if (code === 255) break; // the end
    if (code === 0) { // padding
      at++;
      continue;
    }
    const end = at + 2 + payload[at + 1];
    options.set(code, payload.subarray(at + 2, end));
    at = end;
  }
  return options;
}

/** Writes a DHCP server's answer to a request, the payload of a datagram to port 68. */
export function writeDhcp(request: DhcpRequest, answer: DhcpAnswer): Uint8Array<ArrayBuffer> {
  const { type, server, address, mask, router, dns, leaseSeconds } = answer;
  const options: number[] = [];
  const add = (code: number, value: ArrayLike<number> | undefined) => {
    if (value !== undefined) options.push(code, value.length, ...Array.from(value));
  };
  const ip = (text: string | undefined) => text === undefined ? undefined : parseIp(text);
  add(53, [DHCP_TYPES.indexOf(type)]);
  add(54, parseIp(server));
  add(51, leaseSeconds === undefined ? undefined : u32Bytes(leaseSeconds));
  add(1, ip(mask));
  add(3, ip(router));
  add(6, ip(dns));
  const payload = new Uint8Array(Math.max(DHCP_BYTES + options.length + 1, 300));
  payload.set([2, 1, 6, 0, ...u32Bytes(request.transaction)]);
  payload.set(ip(address) ?? [], 16);
  payload.set(parseMac(request.mac), 28);
  payload.set(u32Bytes(DHCP_MAGIC), 236);
  payload.set([...options, 255], DHCP_BYTES);
  return payload;
}

/**
 * Reads the first question of a DNS query, the payload of a datagram to port 53. A name with bytes
 * that are no printable ASCII is not understood.
 */
export function readDns(payload: Uint8Array): DnsQuery | undefined {
  // A standard query
  if (payload.length < DNS_BYTES || (payload[2] & 0xf8) !== 0 || u16(payload, 4) === 0) return;
  const labels: string[] = [];
  let at = DNS_BYTES;
  for (;;) {
    const bytes = payload[at++];
    if (bytes === 0) break;
    // Beyond the end, or no label but a pointer; RFC 1035, 3.1 and 4.1.4
    if (!(bytes <= 63) || at + bytes - DNS_BYTES > 254) return;
    const label = String.fromCharCode(...payload.subarray(at, at += bytes));
    if (!/^[!-~]+$/.test(label) || label.includes(".")) return;
    labels.push(label.toLowerCase());
  }
  if (at + 4 > payload.length || u16(payload, at + 2) !== 1) return; // the Internet's class
  return {
    id: u16(payload, 0),
    name: labels.join("."),
    type: u16(payload, at),
    question: payload.slice(DNS_BYTES, at + 4),
  };
}

/**
 * Writes the answer to a DNS query.
 *
 * @param addresses The IPv4 addresses of the name; none if it has none of the type that is asked
 * for, undefined if there is no such name.
 * @param ttlSeconds How long the answer may be kept.
 */
export function writeDns(
  { id, question }: DnsQuery,
  addresses: readonly string[] | undefined,
  ttlSeconds = 60,
): Uint8Array<ArrayBuffer> {
  const records = (addresses ?? []).flatMap((address) => [
    ...[0xc0, DNS_BYTES, 0, DNS_A, 0, 1], // the name of the question, its type, the class
    ...u32Bytes(ttlSeconds),
    ...[0, 4, ...parseIp(address)],
  ]);
  const flags = 0x8580 | (addresses === undefined ? 3 : 0); // an answer with authority; no such name
  const payload = new Uint8Array(DNS_BYTES + question.length + records.length);
  [id, flags, 1, addresses?.length ?? 0].forEach((value, i) => setU16(payload, 2 * i, value));
  payload.set(question, DNS_BYTES);
  payload.set(records, DNS_BYTES + question.length);
  return payload;
}

/** The Internet checksum of some bytes, RFC 1071; 0 where it is among them and right. */
export function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes[i] << 8 | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** The bytes of a MAC address. */
export function parseMac(mac: string): Uint8Array<ArrayBuffer> {
  if (!/^([\da-f]{2}:){5}[\da-f]{2}$/i.test(mac)) {
    throw new TypeError(`Expected a MAC address such as 02:00:00:00:00:01, got ${mac}`);
  }
  return Uint8Array.fromHex(mac.replaceAll(":", ""));
}

/** The bytes of an IPv4 address. */
export function parseIp(ip: string): Uint8Array<ArrayBuffer> {
  const bytes = /^\d{1,3}(\.\d{1,3}){3}$/.test(ip) ? ip.split(".").map(Number) : [256];
  if (bytes.some((byte) => byte > 255)) {
    throw new TypeError(`Expected an IPv4 address such as 10.0.2.1, got ${ip}`);
  }
  return Uint8Array.from(bytes);
}

function ethernet(
  destination: string,
  source: string,
  type: number,
  payloadBytes: number,
): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(ETHERNET_BYTES + payloadBytes);
  frame.set(parseMac(destination), 0);
  frame.set(parseMac(source), 6);
  setU16(frame, 12, type);
  return frame;
}

function macAt(bytes: Uint8Array, at: number): string {
  return Array.from(bytes.subarray(at, at + 6), (byte) => byte.toString(16).padStart(2, "0"))
    .join(":");
}

function ipAt(bytes: Uint8Array, at: number): string {
  return bytes.subarray(at, at + 4).join(".");
}

function u16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}

function u32(bytes: Uint8Array, at: number): number {
  return (u16(bytes, at) << 16 | u16(bytes, at + 2)) >>> 0;
}

function u32Bytes(value: number): number[] {
  return [value >>> 24, value >>> 16 & 0xff, value >>> 8 & 0xff, value & 0xff];
}

function setU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}
