/** Two guests with Linux's virtio-net driver, and the host, on one switch. */
import { assertEquals, assertGreater } from "@std/assert";
import { qemuFrontend } from "../../src/cli/qemu.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { CliProcess } from "../frontend/lib/cli_process.ts";
import { NetworkNamespace } from "../../tools/lib/network_namespace.ts";
import { eventually, ok, steps, temporary } from "./lib/helpers.ts";

const PORT = 5000;

Deno.test("two guests talk to each other and to the host through a switch", async (t) => {
  using directory = temporary();
  await using host = await NetworkNamespace.create();
  const [control, ...sockets] = ["control", "a.sock", "b.sock"].map((name) =>
    `${directory.path}/${name}`
  );
  const macs = ["52:54:00:00:00:0a", "52:54:00:00:00:0b"];
  const args = [
    ...["switch", "--uplink=tap:tap0", `--control-path=${control}`],
    ...sockets.map((path, i) => `--port=${path},mac=${macs[i]}`),
  ];
  await using vhostd = new CliProcess(args, { through: host.through });
  await vhostd.until("switch/b listens on");
  await host.address("tap0", 1);
  const frontend = qemuFrontend({ name: "net", deviceId: 1, configBytes: 0, queues: 2 })!;
  // The second guest lacks all offloads: large packets are divided for it.
  const plain = Object.fromEntries(
    ["csum", "guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo"]
      .map((name) => [name, false]),
  );
  const boot = (i: number, properties: Record<string, boolean>) =>
    Guest.boot({
      devices: [{
        ...{ kind: "net", socketPath: sockets[i], frontend, reconnectMs: 20 },
        qemuProperties: { romfile: "", mac: macs[i], ...frontend.properties, ...properties },
      }],
    });
  const guests = await Promise.all([boot(0, {}), boot(1, plain)]);
  await using a = guests[0];
  await using b = guests[1];

  const send = async (from: Guest, to: Guest, address: string) => {
    await ok(to, `nc -l -p ${PORT} -e sh -c 'sha256sum >/tmp/sum' >/dev/null 2>&1 & sleep 0`);
    const port = PORT.toString(16).toUpperCase();
    await eventually(to, `cat /proc/net/tcp6 /proc/net/tcp | grep -c :${port}.*0A`, "1");
    await ok(from, `nc ${address} ${PORT} -e sh -c 'yes a packet | head -c 3000000'`);
    await eventually(
      to,
      "cat /tmp/sum",
      await ok(to, "yes a packet | head -c 3000000 | sha256sum"),
    );
  };

  await steps(t, {
    "they ping each other and the host": async () => {
      await ok(a, "ip addr add 10.9.0.10/24 dev eth0; ip link set eth0 up");
      await ok(b, "ip addr add 10.9.0.11/24 dev eth0; ip link set eth0 up");
      await ok(a, "ping -c 3 -i 0.2 -s 1000 10.9.0.11");
      await ok(b, "ping -c 2 -i 0.2 10.9.0.1");
      await host.ok("ping", "-c", "2", "-i", "0.1", "-s", "9000", "10.9.0.10");
    },
    "TCP passes both ways, and large packets for the guest that takes none are divided":
      async () => {
        await send(a, b, "10.9.0.11");
        await send(b, a, "10.9.0.10");
      },
    "the switch knows their addresses, and the records what passed": async () => {
      using client = Deno.createHttpClient({ proxy: { transport: "unix", path: control } });
      const get = async (path: string) =>
        await (await fetch(`http://localhost/${path}`, { client })).json();
      const known = (await get("macs")).map((entry: Record<string, unknown>) =>
        [entry.mac, entry.port].join(" ")
      );
      assertEquals(known.slice(0, 2), macs.map((mac, i) => `${mac} ${["a", "b"][i]}`));
      const { instances } = await get("record");
      assertGreater(instances.a.report.sent.gso, 0);
      assertEquals(instances.b.report.received.gso, 0);
      for (const { report } of [instances.a, instances.b]) {
        assertEquals([report.sent.drops, report.received.drops], [{}, {}]);
        assertGreater(report.received.bytes, 3_000_000);
      }
      assertEquals(await host.errors(), {});
    },
    "one that goes does not disturb the other": async () => {
      await a.powerOff();
      await ok(b, "ping -c 2 -i 0.2 10.9.0.1");
      await b.powerOff();
      assertEquals((await vhostd.stop()).status, 0);
    },
  });
});
