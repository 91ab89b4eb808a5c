/** Linux's virtio-net driver in the default network of `deno task guest`: passt. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { qemuFrontend } from "../../src/cli/qemu.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { hasPrinted } from "../../tools/lib/network_namespace.ts";
import { GATEWAY, UserNetwork } from "../frontend/lib/user_network.ts";
import { Backend, eventually, expectLiveRecord, ok, steps, temporary } from "./lib/helpers.ts";

/** An address of the host that the guest has not got. */
const HOST = "10.9.0.2";

const BYTES = 1_000_000;
const CONTENT = `yes a packet | head -c ${BYTES}`;

Deno.test("a guest is on the host's network through passt", async (t) => {
  using directory = temporary();
  await using network = await UserNetwork.create();
  const { namespace: host } = network;
  await host.run('echo "0 2147483647" >/proc/sys/net/ipv4/ping_group_range');
  await host.ip("addr", "add", `${HOST}/24`, "dev", "out0");
  const responder = new URL("lib/dns_responder.ts", import.meta.url).pathname;
  const script = `exec ${Deno.execPath()} run --no-config --allow-all --unstable-net ${responder}`;
  assert(await hasPrinted(host.start(script)), "The DNS responder does not start");

  const flags = ["--user", "--forward=2222:22"];
  await using net = await Backend.start("net", flags, directory);
  const frontend = qemuFrontend({ name: "net", deviceId: 1, configBytes: 0, queues: 2 })!;
  await using guest = await Guest.boot({
    devices: [{ ...net.device(frontend.properties), frontend }],
    append: "vhostd.dhcp",
  });
  const expected = (await host.run(`${CONTENT} | sha256sum`)).trim();

  await steps(t, {
    "it has an address, a route and a large MTU by DHCP": async () => {
      const banner = await ok(guest, ". /etc/profile");
      assertStringIncludes(banner, "eth0 has 10.9.0.1\n");
      assertStringIncludes(banner, `${GATEWAY} leads to the host and beyond\n`);
      assertMatch(await ok(guest, "cat /etc/resolv.conf"), /^nameserver /);
      assertEquals(await ok(guest, "cat /sys/class/net/eth0/mtu"), "65520");
    },
    "it pings the host": async () => {
      await ok(guest, `ping -c 3 -i 0.2 -s 5000 ${HOST}`);
    },
    "it looks up names": async () => {
      assertStringIncludes(await ok(guest, `nslookup server.test ${GATEWAY}`), "10.9.0.77");
    },
    "TCP passes to the host": async () => {
      const sum = await host.receives(5000);
      await ok(guest, `nc ${GATEWAY} 5000 -e sh -c '${CONTENT}'`);
      assertEquals(await sum(), expected);
    },
    "TCP passes from the host, by a forwarded port": async () => {
      await ok(guest, "nc -l -p 22 -e sh -c 'sha256sum >/tmp/sum' >/dev/null 2>&1 & sleep 0");
      await eventually(guest, "cat /proc/net/tcp6 /proc/net/tcp | grep -c :0016.*0A", "1");
      await host.run(`"$0" nc 127.0.0.1 2222 -e sh -c '${CONTENT}'`);
      await eventually(guest, "cat /tmp/sum", expected);
    },
    "it has an IPv6 address, and TCP passes by it": async () => {
      await eventually(guest, "ip -6 addr show dev eth0 scope global | grep -c fd09:", "1");
      const sum = await host.receives(5000);
      await ok(guest, `nc fd09::fe 5000 -e sh -c '${CONTENT}'`);
      assertEquals(await sum(), expected);
    },
    "it is on the network again when passt was killed": async () => {
      for (const pid of network.passtPids()) Deno.kill(pid, "SIGKILL");
      await net.until(({ report }) => report?.connections === 2);
      await eventually(guest, `ping -c 1 -W 1 ${HOST} | grep -c "1 packets received"`, "1");
    },
    "passt ends with the device": async () => {
      expectLiveRecord(await net.record(), guest);
      await guest.powerOff();
      net.kill("SIGKILL");
      await network.passtEnded();
    },
  });
});
