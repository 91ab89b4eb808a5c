/**
 * A network of one server: it gives the guest an address by DHCP, answers its DNS queries and pings.
 * Names that it does not know it looks up on the host.
 *
 *     vhostd net --socket-path=/tmp/net.sock --handler=examples/dhcp_dns.ts
 *
 * @module
 */

import {
  defineNetwork,
  DNS_A,
  readArp,
  readDhcp,
  readDns,
  readUdp,
  writeArp,
  writeDhcp,
  writeDns,
  writePong,
  writeUdp,
} from "@vhostd/vhostd/net";

const SERVER = { mac: "02:00:00:00:00:01", ip: "10.0.2.1" };
const NAMES: Record<string, string> = { "server.test": SERVER.ip, "nobody.test": "10.0.2.99" };

export default defineNetwork({
  options: {
    address: { type: "text", placeholder: "IP", about: "The guest's", default: "10.0.2.15" },
  },

  async packet(frame, { options }) {
    const arp = readArp(frame);
    if (arp?.operation === "request" && arp.target.ip === SERVER.ip) {
      return writeArp({ operation: "reply", sender: SERVER, target: arp.sender });
    }
    const datagram = readUdp(frame);
    if (datagram === undefined) return writePong(frame);
    const { source, destination } = datagram;
    if (destination.port === 67) {
      const payload = dhcp(datagram.payload, options.address);
      const target = { mac: source.mac, ip: "255.255.255.255", port: 68 };
      return payload && writeUdp({ source: { ...SERVER, port: 67 }, destination: target, payload });
    }
    if (destination.port === 53) {
      const payload = await dns(datagram.payload);
      return payload && writeUdp({ source: destination, destination: source, payload });
    }
  },
});

/** Answers a DHCP client. */
function dhcp(payload: Uint8Array, address: string): Uint8Array | undefined {
  const request = readDhcp(payload);
  if (request === undefined || (request.server ?? SERVER.ip) !== SERVER.ip) return;
  const { ip: server } = SERVER;
  const lease = { server, address, mask: "255.255.255.0", dns: server, leaseSeconds: 3600 };
  if (request.type === "discover") return writeDhcp(request, { type: "offer", ...lease });
  if (request.type !== "request") return;
  if (request.address === address) return writeDhcp(request, { type: "ack", ...lease });
  return writeDhcp(request, { type: "nak", server });
}

/** Answers a DNS client. */
async function dns(payload: Uint8Array): Promise<Uint8Array | undefined> {
  const query = readDns(payload);
  if (query === undefined) return;
  const own = NAMES[query.name];
  if (own !== undefined) return writeDns(query, query.type === DNS_A ? [own] : []);
  if (query.type !== DNS_A) return writeDns(query, []);
  try {
    return writeDns(query, await Deno.resolveDns(query.name, "A"));
  } catch {
    return writeDns(query, undefined);
  }
}
