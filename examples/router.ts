/**
 * A router of several subnets on one wire, which counts packets by protocol: `vhostd inspect` shows
 * the counts.
 *
 *     vhostd net --socket-path=/tmp/net.sock --handler=examples/router.ts
 *
 * @module
 */

import {
  defineNetwork,
  forwardIpv4,
  Protocol,
  readArp,
  readIpv4,
  writeArp,
  writePong,
} from "@vhostd/vhostd/net";

const MAC = "02:00:00:00:00:01";
/** The router's address in each subnet. */
const GATEWAYS = ["10.0.1.1", "10.0.2.1"];
const NAMES = Object.fromEntries(Object.entries(Protocol).map(([name, number]) => [number, name]));
const MAX_NEIGHBOURS = 256;

/** The MAC addresses of neighbours by IP address; the one that was heard longest ago comes first. */
const neighbours = new Map<string, string>();
const counts: Record<string, { packets: number; bytes: number }> = {};

export default defineNetwork({
  packet(frame) {
    const arp = readArp(frame);
    if (arp !== undefined) {
      learn(arp.sender.ip, arp.sender.mac);
      if (arp.operation === "reply" || !GATEWAYS.includes(arp.target.ip)) return;
      const sender = { mac: MAC, ip: arp.target.ip };
      return writeArp({ operation: "reply", sender, target: arp.sender });
    }
    const ip = readIpv4(frame);
    if (ip === undefined || ip.destination.mac !== MAC) return;
    count(NAMES[ip.protocol] ?? "other", ip.payload.length);
    if (GATEWAYS.includes(ip.destination.ip)) return writePong(frame);
    const next = neighbours.get(ip.destination.ip);
    if (next !== undefined) return forwardIpv4(frame, MAC, next);
    // The packet is lost; its sender tries again, and the neighbour is known then.
    const target = { mac: "00:00:00:00:00:00", ip: ip.destination.ip };
    return GATEWAYS.map((ip) =>
      writeArp({ operation: "request", sender: { mac: MAC, ip }, target })
    );
  },

  report: () => ({ routed: counts }),
});

function learn(ip: string, mac: string): void {
  neighbours.delete(ip);
  neighbours.set(ip, mac);
  if (neighbours.size > MAX_NEIGHBOURS) neighbours.delete(neighbours.keys().next().value!);
}

function count(protocol: string, bytes: number): void {
  const total = counts[protocol] ??= { packets: 0, bytes: 0 };
  total.packets++;
  total.bytes += bytes;
}
