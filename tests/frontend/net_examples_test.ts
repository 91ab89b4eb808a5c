/** The examples, as they are printed. */
import { assert, assertEquals, assertGreater } from "@std/assert";
import {
  BROADCAST_MAC,
  type Host,
  Protocol,
  readArp,
  readIpv4,
  readUdp,
  writeArp,
  writeIpv4,
  writeUdp,
} from "../../backends/net/handler/mod.ts";
import { Random } from "../../tools/lib/random.ts";
import { CliProcess } from "./lib/cli_process.ts";
import { NetDriver, packet } from "./lib/net_driver.ts";
import { hasPrinted, NetworkNamespace } from "../../tools/lib/network_namespace.ts";
import { GATEWAY, UserNetwork } from "./lib/user_network.ts";

const SERVER_MAC = "02:00:00:00:00:01";

class Example implements AsyncDisposable {
  private constructor(readonly net: NetDriver) {}

  static async create(name: string): Promise<Example> {
    const handler = new URL(`../../examples/${name}`, import.meta.url).pathname;
    return new Example(await NetDriver.create({ handler }));
  }

  /** Sends a frame; returns the frames with which it is answered. */
  async ask(frame: Uint8Array, answers = 1): Promise<Uint8Array[]> {
    this.net.post(answers);
    await this.net.send(packet(frame));
    const frames: Uint8Array[] = [];
    for (let i = 0; i < answers; i++) frames.push((await this.net.receive()).frame);
    return frames;
  }

  /** Sends a frame that is not answered. */
  async tell(frame: Uint8Array): Promise<void> {
    await this.ask(frame, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.net[Symbol.asyncDispose]();
  }
}

/** An ARP request for a gateway, by which a host tells of itself. */
function seek(sender: Host, ip: string): Uint8Array {
  return writeArp({ operation: "request", sender, target: { mac: "00:00:00:00:00:00", ip } });
}

/** A DHCP message with a request for an address, as a client sends it. */
function dhcpRequest(mac: string, type: number, address: string): Uint8Array {
  const payload = new Uint8Array(300);
  payload.set([1, 1, 6, 0, 1, 2, 3, 4]);
  payload.set(mac.split(":").map((byte) => parseInt(byte, 16)), 28);
  payload.set([0x63, 0x82, 0x53, 0x63, 53, 1, type], 236);
  payload.set([50, 4, ...address.split(".").map(Number), 255], 243);
  return writeUdp({
    source: { mac, ip: "0.0.0.0", port: 68 },
    destination: { mac: BROADCAST_MAC, ip: "255.255.255.255", port: 67 },
    payload,
  });
}

for (const name of ["dhcp_dns.ts", "router.ts"]) {
  Deno.test(`${name} fails on no frame`, async () => {
    const seed = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);
    const random = new Random(seed);
    await using example = await Example.create(name);
    const valid = [
      seek({ mac: "52:54:00:12:34:56", ip: "10.0.2.15" }, "10.0.2.1"),
      dhcpRequest("52:54:00:12:34:56", 1, "10.0.2.15"),
    ];
    const sent: Promise<void>[] = [];
    for (let i = 0; i < 2000; i++) {
      const frame = random.chance(1, 4)
        ? Uint8Array.from({ length: random.between(14, 200) }, () => random.below(256))
        : random.pick(valid).slice(0, random.between(14, 400));
      for (let changes = random.below(4); changes > 0; changes--) {
        frame[random.below(frame.length)] = random.below(256);
      }
      sent.push(example.net.send(packet(frame)));
    }
    await Promise.all(sent);
    assertEquals(example.net.report.sent.drops, {}, `SEED=${seed}`);
  });
}

Deno.test("dhcp_dns.ts offers an address, grants it, and grants no other", async () => {
  await using example = await Example.create("dhcp_dns.ts");
  const mac = "52:54:00:12:34:56";
  const answer = async (type: number, address: string) => {
    const [frame] = await example.ask(dhcpRequest(mac, type, address));
    const { source, destination, payload } = readUdp(frame)!;
    assertEquals(source, { mac: SERVER_MAC, ip: "10.0.2.1", port: 67 });
    assertEquals(destination, { mac, ip: "255.255.255.255", port: 68 });
    assertEquals([...payload.subarray(4, 8)], [1, 2, 3, 4]);
    return [payload[242], payload.subarray(16, 20).join(".")];
  };
  assertEquals(await answer(1, "10.9.9.9"), [2, "10.0.2.15"]);
  assertEquals(await answer(3, "10.0.2.15"), [5, "10.0.2.15"]);
  assertEquals(await answer(3, "10.9.9.9"), [6, "0.0.0.0"]);
});

Deno.test("dhcp_dns.ts answers DNS queries of types that it has not", async () => {
  await using example = await Example.create("dhcp_dns.ts");
  const guest = { mac: "52:54:00:12:34:56", ip: "10.0.2.15", port: 4000 };
  const server = { mac: SERVER_MAC, ip: "10.0.2.1", port: 53 };
  const question = "067365727665720474657374" + "00001c0001"; // server.test, AAAA
  const payload = Uint8Array.fromHex(`abcd01000001000000000000${question}`);
  const [frame] = await example.ask(writeUdp({ source: guest, destination: server, payload }));
  const answer = readUdp(frame)!;
  assertEquals([answer.source, answer.destination], [server, guest]);
  assertEquals(
    new Uint8Array(answer.payload).toHex(),
    `abcd85800001000000000000${question}`,
  );
});

Deno.test("router.ts routes between hosts of two subnets, and counts by protocol", async () => {
  await using example = await Example.create("router.ts");
  const one = { mac: "52:54:00:00:00:01", ip: "10.0.1.7" };
  const two = { mac: "52:54:00:00:00:02", ip: "10.0.2.7" };
  const [reply] = await example.ask(seek(one, "10.0.1.1"));
  assertEquals(readArp(reply), {
    operation: "reply",
    sender: { mac: SERVER_MAC, ip: "10.0.1.1" },
    target: one,
  });
  await example.tell(seek(one, two.ip)); // for another host
  const router = { mac: SERVER_MAC, ip: two.ip };
  const data = { source: one, destination: router, payload: Uint8Array.of(1, 2, 3) };
  const udp = writeUdp({
    source: { ...one, port: 1 },
    destination: { ...router, port: 2 },
    payload: data.payload,
  });
  // The router does not know the second host yet, and asks for it in each subnet.
  const asked = (await example.ask(udp, 2)).map(readArp);
  assertEquals(asked.map((arp) => [arp?.sender.ip, arp?.target.ip]), [
    ["10.0.1.1", two.ip],
    ["10.0.2.1", two.ip],
  ]);
  await example.tell(writeArp({ operation: "reply", sender: two, target: router }));
  const [routed] = await example.ask(udp);
  assertEquals(readUdp(routed)!.payload, data.payload);
  const { source, destination, ttl } = readIpv4(routed)!;
  assertEquals([source, destination, ttl], [{ mac: SERVER_MAC, ip: one.ip }, two, 63]);
  await example.ask(writeIpv4({ ...data, protocol: Protocol.TCP }));
  await example.tell(writeIpv4({ ...data, protocol: Protocol.TCP, ttl: 1 }));
  await example.ask(writeIpv4({ ...data, protocol: 47 }));
  const gateway = { mac: SERVER_MAC, ip: "10.0.1.1" };
  const ping = Uint8Array.of(8, 0, 0xf7, 0xfe, 0, 0, 0, 1);
  const [pong] = await example.ask(
    writeIpv4({ source: one, destination: gateway, protocol: Protocol.ICMP, payload: ping }),
  );
  assertEquals(readIpv4(pong)!.payload[0], 0);
  const { report } = await example.net.server.freshRecord();
  assertEquals(report.threads, [{
    routed: {
      UDP: { packets: 2, bytes: 22 },
      TCP: { packets: 2, bytes: 6 },
      other: { packets: 1, bytes: 3 },
      ICMP: { packets: 1, bytes: 8 },
    },
  }]);
});

Deno.test("web_server.ts serves a machine behind passt", async () => {
  await using network = await UserNetwork.create();
  const socket = network.path("net.sock"), control = network.path("net.ctl");
  const flags = [`--socket-path=${socket}`, `--control-path=${control}`, "--user"];
  await using vhostd = new CliProcess(["net", ...flags]);
  await vhostd.until("listens on");
  const deno = `exec ${Deno.execPath()} run -A`;
  const example = new URL("../../examples/web_server.ts", import.meta.url).pathname;
  const server = network.namespace.start(`${deno} ${example} ${control} 2>&1`);
  assert(await hasPrinted(server)); // Deno says where it listens
  // It has a network stack of its own, as a guest has.
  await using machine = await NetworkNamespace.create();
  await machine.join(socket);
  await machine.address("eth0", 1);
  await machine.ip("route", "add", "default", "via", GATEWAY);
  const client = new URL("lib/web_client.ts", import.meta.url).pathname;
  const answers = JSON.parse(await machine.run(`${deno} ${client} http://${GATEWAY}:8000`));
  const { card: { sent, received }, ...others } = answers;
  assertEquals(others, {
    kept: "Kept 60000 bytes\n",
    refused: "A note has up to 65536 bytes\n",
    bytes: 60_000,
    missing: [404, "There is no note long\n"],
    other: [404, "There are /card and /notes/NAME\n"],
  });
  assertGreater(sent.bytes, 120_000);
  assertGreater(received.bytes, 60_000);
});
