import { assertEquals } from "@std/assert";
import { readArp, writeArp } from "@vhostd/vhostd/net";
import network from "./mod.ts";

Deno.test("my-device tells where its host is", () => {
  const port = { options: { address: "10.0.2.7" }, mtu: 1500, send: () => true };
  const guest = { mac: "52:54:00:12:34:56", ip: "10.0.2.15" };
  const target = { mac: "00:00:00:00:00:00", ip: "10.0.2.7" };
  const answer = network.packet(writeArp({ operation: "request", sender: guest, target }), port);
  assertEquals(readArp(answer as Uint8Array), {
    operation: "reply",
    sender: { mac: "02:00:00:00:00:01", ip: "10.0.2.7" },
    target: guest,
  });
});
