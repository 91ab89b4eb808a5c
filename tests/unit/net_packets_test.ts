import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  checksum,
  DNS_A,
  forwardIpv4,
  parseIp,
  parseMac,
  Protocol,
  readArp,
  readDhcp,
  readDns,
  readIpv4,
  readUdp,
  writeArp,
  writeDhcp,
  writeDns,
  writeIpv4,
  writePong,
  writeUdp,
} from "../../backends/net/handler/mod.ts";

const byte = fc.integer({ min: 0, max: 255 });
const port = fc.integer({ min: 0, max: 65_535 });
const mac = fc.array(byte, { minLength: 6, maxLength: 6 })
  .map((bytes) => bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":"));
const ip = fc.ipV4();
const record = <T>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record<T>(fields, { noNullPrototype: true });
const host = record({ mac, ip });
const end = record({ mac, ip, port });
const payload = fc.uint8Array({ maxLength: 100 });
const datagram = record({ source: end, destination: end, payload });

/** A DHCP discover of busybox's udhcpc and a DNS query of a name, as they travel. */
const DISCOVER = writeUdp({
  source: { mac: "52:54:00:12:34:56", ip: "0.0.0.0", port: 68 },
  destination: { mac: "ff:ff:ff:ff:ff:ff", ip: "255.255.255.255", port: 67 },
  payload: Uint8Array.fromHex(
    "0101060012345678" + "00".repeat(20) + "525400123456" + "00".repeat(10 + 192) +
      "63825363" + "350101" + "00" + "3204" + "0a00020f" + "0c03" + "626f78" + "370401030c06" +
      "ff",
  ),
});
const QUERY = writeUdp({
  source: { mac: "52:54:00:12:34:56", ip: "10.0.2.15", port: 40_000 },
  destination: { mac: "02:00:00:00:00:01", ip: "10.0.2.1", port: 53 },
  payload: Uint8Array.fromHex("abcd0100000100000000000003777777054c6f63414c0000010001"),
});
const PING = writeIpv4({
  source: { mac: "52:54:00:12:34:56", ip: "10.0.2.15" },
  destination: { mac: "02:00:00:00:00:01", ip: "10.0.2.1" },
  protocol: Protocol.ICMP,
  payload: Uint8Array.fromHex("08003ace000100017061796c6f6164"),
});
const ARP = writeArp({
  operation: "request",
  sender: { mac: "52:54:00:12:34:56", ip: "10.0.2.15" },
  target: { mac: "00:00:00:00:00:00", ip: "10.0.2.1" },
});

/** Calls everything that reads with a frame, and with it as a payload. */
function readAll(frame: Uint8Array): void {
  readArp(frame);
  readIpv4(frame);
  writePong(frame);
  forwardIpv4(frame, "02:00:00:00:00:01", "02:00:00:00:00:02");
  for (const bytes of [frame, readUdp(frame)?.payload ?? frame]) {
    const request = readDhcp(bytes);
    if (request !== undefined) writeDhcp(request, { type: "offer", server: "10.0.2.1" });
    const query = readDns(bytes);
    if (query !== undefined) writeDns(query, ["10.0.2.1"]);
  }
}

Deno.test("reading any bytes throws nothing", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), readAll), { numRuns: 2000 });
});

Deno.test("reading a packet with any bytes changed, or its end cut off, throws nothing", () => {
  const changes = fc.array(fc.tuple(fc.nat(400), byte), { maxLength: 6 });
  const packet = fc.constantFrom(DISCOVER, QUERY, PING, ARP);
  const mutated = fc.tuple(packet, changes, fc.nat(500), fc.boolean());
  fc.assert(
    fc.property(mutated, ([packet, changes, bytes, isRepaired]) => {
      const frame = packet.slice(0, Math.max(bytes, 1));
      for (const [at, value] of changes) frame[at % frame.length] = value;
      // Behind a header with a right checksum, more of the bytes are looked at.
      if (isRepaired && frame.length > 34) {
        frame.set([0, 0], 24);
        const sum = checksum(frame.subarray(14, 14 + (frame[14] & 15) * 4));
        frame.set([sum >> 8, sum], 24);
      }
      readAll(frame);
    }),
    { numRuns: 5000 },
  );
});

Deno.test("what is written is read again", () => {
  const operation = fc.constantFrom("request" as const, "reply" as const);
  fc.assert(fc.property(record({ operation, sender: host, target: host }), (arp) => {
    assertEquals(readArp(writeArp(arp)), arp);
  }));
  const ipv4 = record({ source: host, destination: host, protocol: byte, ttl: byte, payload });
  fc.assert(fc.property(ipv4, (packet) => {
    assertEquals(readIpv4(writeIpv4(packet)), { ...packet, isFragment: false });
  }));
  fc.assert(fc.property(datagram, (datagram) => {
    assertEquals(readUdp(writeUdp(datagram)), datagram);
  }));
});

Deno.test("a UDP datagram has a right checksum, which is never 0", () => {
  fc.assert(fc.property(datagram, (datagram) => {
    const { source, destination, payload } = readIpv4(writeUdp(datagram))!;
    const pseudo = [...parseIp(source.ip), ...parseIp(destination.ip), 0, 17];
    const covered = [...pseudo, payload.length >> 8, payload.length & 255, ...payload];
    assertEquals(checksum(Uint8Array.from(covered)), 0);
    assert(payload[6] !== 0 || payload[7] !== 0);
  }));
});

Deno.test("an IPv4 packet is read without what is behind it, and not with a wrong header", () => {
  const padded = new Uint8Array([...PING, 1, 2, 3]);
  assertEquals(readIpv4(padded)!.payload.length, 15);
  for (const [at, value] of [[12, 9], [14, 0x65], [14, 0x44], [14, 0x4f], [17, 200], [24, 0]]) {
    const wrong = PING.slice();
    wrong[at] = value;
    assertEquals(readIpv4(wrong), undefined);
  }
});

Deno.test("a router forwards a packet with one hop less, until there is none", () => {
  let frame: Uint8Array | undefined = PING;
  for (let ttl = 63; ttl > 0; ttl--) {
    frame = forwardIpv4(frame!, "02:00:00:00:00:01", "02:00:00:00:00:02");
    assertEquals(readIpv4(frame!), {
      source: { mac: "02:00:00:00:00:01", ip: "10.0.2.15" },
      destination: { mac: "02:00:00:00:00:02", ip: "10.0.2.1" },
      protocol: 1,
      ttl,
      isFragment: false,
      payload: PING.subarray(34),
    });
  }
  assertEquals(forwardIpv4(frame!, "02:00:00:00:00:01", "02:00:00:00:00:02"), undefined);
});

Deno.test("a ping is answered, and nothing else", () => {
  const pong = readIpv4(writePong(PING)!)!;
  assertEquals(pong.source, readIpv4(PING)!.destination);
  assertEquals(pong.destination, readIpv4(PING)!.source);
  assertEquals(new Uint8Array(pong.payload).toHex(), "000042ce000100017061796c6f6164");
  assertEquals(checksum(pong.payload), 0);
  for (const frame of [ARP, QUERY, writePong(PING)!]) assertEquals(writePong(frame), undefined);
});

Deno.test("a DHCP request is read, and its answer has the options that are given", () => {
  const request = readDhcp(readUdp(DISCOVER)!.payload)!;
  assertEquals(request, {
    type: "discover",
    transaction: 0x1234_5678,
    mac: "52:54:00:12:34:56",
    address: "10.0.2.15",
    server: undefined,
    hostname: "box",
  });
  const answer = writeDhcp(request, {
    ...{ type: "offer", server: "10.0.2.1", address: "10.0.2.15", mask: "255.255.255.0" },
    ...{ router: "10.0.2.1", dns: "10.0.2.2", leaseSeconds: 3600 },
  });
  assertEquals(
    answer.toHex(),
    ("0201060012345678" + "00".repeat(8) + "0a00020f" + "00".repeat(8) + "525400123456" +
      "00".repeat(10 + 192) + "63825363" + "350102" + "36040a000201" + "330400000e10" +
      "0104ffffff00" + "03040a000201" + "06040a000202" + "ff").padEnd(600, "0"),
  );
  assertEquals(readDhcp(answer), undefined);
});

Deno.test("a DNS query is read, and its answer repeats the question", () => {
  const query = readDns(readUdp(QUERY)!.payload)!;
  assertEquals([query.id, query.name, query.type], [0xabcd, "www.local", DNS_A]);
  const question = "03777777054c6f63414c0000010001";
  assertEquals(
    writeDns(query, ["10.0.2.1", "10.0.2.2"], 258).toHex(),
    `abcd85800001000200000000${question}` +
      "c00c000100010000010200040a000201" + "c00c000100010000010200040a000202",
  );
  assertEquals(writeDns(query, undefined).toHex(), `abcd85830001000000000000${question}`);
});

Deno.test("a DNS name has labels of up to 63 bytes and 255 bytes in all", () => {
  const header = "abcd01000001000000000000", end = "0000010001";
  const read = (labels: string) => readDns(Uint8Array.fromHex(header + labels + end))?.name;
  const longest = ("3f" + "61".repeat(63)).repeat(3) + "3d" + "61".repeat(61);
  assertEquals(read(longest)?.length, 253);
  for (const labels of ["c00c", "40" + "61".repeat(64), `${longest}0161`, "0120", "012e", "0180"]) {
    assertEquals(read(labels), undefined, labels);
  }
  assertEquals(read(""), "");
});

Deno.test("addresses that are none are refused", () => {
  for (const wrong of ["", "1.2.3", "1.2.3.256", "1.2.3.4.5", "a.b.c.d", "1..2.3"]) {
    assertThrows(() => parseIp(wrong), TypeError, "Expected an IPv4 address");
  }
  for (const wrong of ["", "02:00:00:00:00", "0200:00:00:00:01", "02:00:00:00:00:0g"]) {
    assertThrows(() => parseMac(wrong), TypeError, "Expected a MAC address");
  }
});
