/**
 * A network of one host, which answers pings.
 *
 * @module
 */

import { defineNetwork, readArp, writeArp, writePong } from "@vhostd/vhostd/net";

export default defineNetwork({
  options: {
    address: { type: "text", placeholder: "IP", about: "The host's address", default: "10.0.2.1" },
  },

  packet(frame, { options }) {
    const host = { mac: "02:00:00:00:00:01", ip: options.address };
    const arp = readArp(frame);
    if (arp?.operation === "request" && arp.target.ip === host.ip) {
      return writeArp({ operation: "reply", sender: host, target: arp.sender });
    }
    return writePong(frame); // nothing, if the frame is no ping
  },
});
