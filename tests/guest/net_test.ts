/** Linux's virtio-net driver on our network card, with Linux's stack on the host's side too. */
import { assertEquals, assertGreater } from "@std/assert";
import type { RecordJson } from "../../src/runtime/record.ts";
import { qemuFrontend } from "../../src/cli/qemu.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { programImage } from "../../tools/guest/program_image.ts";
import { networkProgram } from "../../tools/guest/programs.ts";
import { NetworkNamespace } from "../../tools/lib/network_namespace.ts";
import {
  Backend,
  eventually,
  expectLiveRecord,
  negotiated,
  ok,
  steps,
  temporary,
} from "./lib/helpers.ts";

const PORT = 5000;
/** The sum of what `yes a packet | head -c BYTES` prints, as `sha256sum` prints it. */
async function sumOf(bytes: number): Promise<string> {
  const line = new TextEncoder().encode("a packet\n");
  const content = Uint8Array.from({ length: bytes }, (_, i) => line[i % line.length]);
  return `${new Uint8Array(await crypto.subtle.digest("SHA-256", content)).toHex()}  -`;
}

const VARIANTS: {
  name: string;
  pairs: number;
  packed: boolean;
  properties: Record<string, number | boolean>;
}[] = [
  { name: "split, two pairs", pairs: 2, packed: false, properties: { host_mtu: 1400 } },
  { name: "packed", pairs: 1, packed: true, properties: {} },
  {
    name: "no offloads, not mergeable",
    pairs: 1,
    packed: false,
    properties: Object.fromEntries(
      [
        ...["csum", "host_tso4", "host_tso6", "host_ecn", "host_ufo"],
        ...["guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo", "mrg_rxbuf"],
      ].map((name) => [name, false]),
    ),
  },
];

for (const { name, pairs, packed, properties } of VARIANTS) {
  Deno.test(`a guest is on a network through our TAP (${name})`, async (t) => {
    using directory = temporary();
    await using host = await NetworkNamespace.create();
    // It outlives a back-end that is killed, with its MAC address.
    await host.ip("tuntap", "add", "tap0", "mode", "tap", pairs > 1 ? "multi_queue" : "");
    const flags = ["--tap=tap0", `--queue-pairs=${pairs}`];
    await using net = await Backend.start("net", flags, directory, { through: host.through });
    await host.address("tap0", 1);
    const frontend = qemuFrontend({ name: "net", deviceId: 1, configBytes: 0, queues: 2 * pairs })!;
    const device = {
      ...net.device({ packed, romfile: "", ...frontend.properties, ...properties }),
      ...{ frontend, reconnectMs: 20 },
    };
    const image = await programImage("iperf3", "ethtool");
    await using guest = await Guest.boot({
      ...{ cpus: pairs, devices: [device] },
      qemuArguments: ["-drive", `if=virtio,format=raw,read-only=on,file=${image}`],
    });

    /** Sends bytes by TCP from the guest to the host. */
    async function upload(bytes: number): Promise<void> {
      const sum = await host.receives(PORT);
      await ok(guest, `nc 10.9.0.1 ${PORT} -e sh -c 'yes a packet | head -c ${bytes}'`);
      assertEquals(await sum(), await sumOf(bytes));
    }

    /** Sends bytes by TCP from the host to the guest. */
    async function download(bytes: number): Promise<void> {
      await ok(guest, `nc -l -p ${PORT} -e sh -c 'sha256sum >/tmp/sum' >/dev/null 2>&1 & sleep 0`);
      const port = PORT.toString(16).toUpperCase();
      await eventually(guest, `cat /proc/net/tcp6 /proc/net/tcp | grep -c :${port}.*0A`, "1");
      await host.run(`"$0" nc 10.9.0.2 ${PORT} -e sh -c 'yes a packet | head -c ${bytes}'`);
      await eventually(guest, "cat /tmp/sum", await sumOf(bytes));
    }

    await steps(t, {
      "it pings the host, and the host pings it": async () => {
        await ok(guest, "ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up");
        await ok(guest, "ping -c 3 -i 0.2 -s 1000 10.9.0.1");
        await host.ok("ping", "-c", "3", "-i", "0.1", "10.9.0.2");
        await host.ok("ping", "-c", "2", "-i", "0.1", "-s", "9000", "10.9.0.2");
      },
      "TCP passes both ways": async () => {
        await upload(3_000_000);
        await download(3_000_000);
      },
      "its MTU is what QEMU was told": async () => {
        assertEquals(
          await ok(guest, "cat /sys/class/net/eth0/mtu"),
          `${properties.host_mtu ?? 1500}`,
        );
      },
      ...pairs > 1 && {
        "it uses one pair, and two again": async () => {
          await ok(guest, "mkdir -p /programs; mount -o ro -t ext4 /dev/vda /programs");
          for (const count of [1, 2]) {
            await ok(guest, `/programs/ethtool -L eth0 combined ${count}`);
            // deno-lint-ignore no-explicit-any
            await net.until(({ report }) => (report as any).pairs.enabled === count);
            await upload(100_000);
            await download(100_000);
          }
        },
        "vhostd is killed and started again under iperf3": async () => {
          const server = host.run(`${await networkProgram("iperf3")} --server --one-off`);
          const begun = guest.run(
            "for i in 1 2 3 4 5 6 7 8 9; do /programs/iperf3 --client 10.9.0.1 --time 6 && exit; " +
              "usleep 200000; done; false",
            { timeoutMs: 60_000 },
          );
          const sentBytes = ({ queues }: RecordJson) =>
            queues.reduce((sum, { bytesRead }) => sum + bytesRead, 0);
          const before = sentBytes(await net.record());
          await net.until((record) => sentBytes(record) > before + 2 ** 20);
          await net.crash();
          await net.until((record) => sentBytes(record) > 2 ** 16);
          const { status, output } = await begun;
          assertEquals(status, 0, output);
          await server;
        },
      },
      "the link goes down and up": async () => {
        await guest.qmp("set_link", { name: "device0-netdev", up: false });
        await eventually(guest, "cat /sys/class/net/eth0/carrier", "0");
        await guest.qmp("set_link", { name: "device0-netdev", up: true });
        await eventually(guest, "cat /sys/class/net/eth0/carrier", "1");
        await upload(100_000);
      },
      // QEMU keeps no in-flight records for a network card, and a packed ring cannot resume without.
      ...!packed && {
        "vhostd is killed and started again": async () => {
          await net.crash();
          await net.until(({ queues }) => queues[0].running);
          await eventually(guest, "cat /sys/class/net/eth0/carrier", "1");
          await upload(1_000_000);
          await download(1_000_000);
        },
      },
      "the record says what passed": async () => {
        const record = await net.record();
        expectLiveRecord(record, guest);
        const { acknowledged } = negotiated(record);
        const hasOffloads = properties.csum !== false;
        assertEquals(acknowledged.includes("HOST_TSO4"), hasOffloads);
        assertEquals(acknowledged.includes("MRG_RXBUF"), hasOffloads);
        // deno-lint-ignore no-explicit-any
        const { sent, received } = record.report as any;
        assertEquals([sent.drops, received.drops], [{}, {}]);
        assertGreater(sent.bytes, 1_000_000);
        assertGreater(received.bytes, 1_000_000);
        assertEquals([sent.gso > 0, received.gso > 0], [hasOffloads, hasOffloads]);
        assertEquals(await host.errors(), {});
      },
      "it reboots and is on the network again": async () => {
        await guest.reboot();
        await ok(guest, "ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up");
        await ok(guest, "ping -c 2 -i 0.2 10.9.0.1");
        await upload(100_000);
        await guest.powerOff();
        const { errors } = await net.stop();
        assertEquals(errors.total, 0);
      },
    });
  });
}
