/** Linux's DHCP and DNS clients on a network in TypeScript. */
import { assertEquals, assertMatch } from "@std/assert";
import { qemuFrontend } from "../../src/cli/qemu.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { Backend, expectLiveRecord, ok, steps, temporary } from "./lib/helpers.ts";

const EXAMPLE = new URL("../../examples/dhcp_dns.ts", import.meta.url).pathname;

/** The script that udhcpc calls when it has a lease. */
const BOUND = String.raw`#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
echo "nameserver $dns" >/etc/resolv.conf
echo "$ip/$mask, of $serverid for $lease s" >/tmp/lease
`;

Deno.test("a guest gets its address and names from the example's DHCP and DNS server", async (t) => {
  using directory = temporary();
  const flags = [`--handler=${EXAMPLE}`, "--handler-options=address=10.0.2.77"];
  await using net = await Backend.start("net", flags, directory);
  const frontend = qemuFrontend({ name: "net", deviceId: 1, configBytes: 0, queues: 2 })!;
  const device = { ...net.device({ romfile: "", ...frontend.properties }), frontend };
  await using guest = await Guest.boot({ devices: [device] });
  await steps(t, {
    "it gets the address": async () => {
      await ok(guest, `mkdir -p /etc; cat >/tmp/bound <<'END'\n${BOUND}END\nchmod +x /tmp/bound`);
      await ok(guest, "ip link set eth0 up; udhcpc -n -q -i eth0 -s /tmp/bound");
      assertEquals(await ok(guest, "cat /tmp/lease"), "10.0.2.77/24, of 10.0.2.1 for 3600 s");
    },
    "it pings the server, which it knows by ARP": async () => {
      await ok(guest, "ping -c 3 -i 0.2 -s 1000 10.0.2.1");
    },
    "it looks up names": async () => {
      assertMatch(await ok(guest, "nslookup nobody.test"), /Address.*: 10\.0\.2\.99/);
      await ok(guest, "ping -c 1 server.test");
    },
    "the record has no drops": async () => {
      const record = await net.record();
      expectLiveRecord(record, guest);
      // deno-lint-ignore no-explicit-any
      const { sent, received } = record.report as any;
      assertEquals([sent.drops, received.drops], [{}, {}]);
      await guest.powerOff();
      assertEquals((await net.stop()).errors.total, 0);
    },
  });
});
