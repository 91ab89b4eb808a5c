/** Networks through a real passt, which sees the network of a namespace. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import net from "../../backends/net/mod.ts";
import { OptionError, serve } from "../../mod.ts";
import { readArp, readUdp, writeArp, writeUdp } from "../../backends/net/handler/mod.ts";
import { NetDriver, packet } from "./lib/net_driver.ts";
import { NetworkNamespace } from "../../tools/lib/network_namespace.ts";
import { GATEWAY, UserNetwork } from "./lib/user_network.ts";

/** An ARP request for an address of four bytes. */
function arpRequest(address: number[]): Uint8Array {
  const sender = [0x52, 0x54, 0, 0, 0, 1];
  return Uint8Array.of(
    ...[255, 255, 255, 255, 255, 255, ...sender, 8, 6],
    ...[0, 1, 8, 0, 6, 4, 0, 1, ...sender, 10, 9, 0, 1, 0, 0, 0, 0, 0, 0, ...address],
  );
}

/** Asks passt for an address; it sends other frames too. */
async function resolves(setUp: NetDriver): Promise<void> {
  const address = GATEWAY.split(".").map(Number);
  setUp.post(20);
  for (;;) {
    // The queue thread learns of a connection after it was counted.
    const { packets } = setUp.report.sent;
    while (setUp.report.sent.packets === packets) await setUp.send(packet(arpRequest(address)));
    const { frame } = await setUp.receive();
    const isReply = frame[12] === 8 && frame[13] === 6 && frame[21] === 2;
    if (isReply) return assertEquals([...frame.subarray(28, 32)], address);
  }
}

Deno.test("net starts passt, starts it again when it was killed, and it ends with the device", async () => {
  await using network = await UserNetwork.create();
  {
    const said = Promise.withResolvers<string>();
    const setup = { buffer: [12 + 1514] };
    await using setUp = await NetDriver.create({ user: true }, setup, said.resolve);
    await resolves(setUp);
    assertEquals([setUp.report.port, setUp.report.mtu], ["passt", 65_520]);
    const [pid, ...others] = network.passtPids();
    assertEquals(others, []);
    Deno.kill(pid, "SIGKILL");
    assertStringIncludes(await said.promise, "The peer of the network is gone");
    while (setUp.report.connections < 2) await setUp.send(packet(arpRequest([10, 9, 0, 1])));
    await resolves(setUp);
    assertEquals(network.passtPids().length, 1);
  }
  await network.passtEnded();
});

Deno.test("net --forward passes UDP datagrams and their answers through passt", async () => {
  await using network = await UserNetwork.create();
  const options = { user: true, forward: "udp:5353:53" };
  await using setUp = await NetDriver.create(options, { buffer: [12 + 1514] });
  await resolves(setUp); // passt now knows the guest's MAC address
  const script = "exec 3<>/dev/udp/127.0.0.1/5353; echo ping >&3; head -c 5 <&3";
  const answered = network.namespace.run(`bash -c '${script}'`);
  for (;;) {
    setUp.post(1);
    const { frame } = await setUp.receive();
    const arp = readArp(frame);
    if (arp?.operation === "request") {
      const sender = { mac: "52:54:00:00:00:01", ip: arp.target.ip };
      await setUp.send(packet(writeArp({ operation: "reply", sender, target: arp.sender })));
    }
    const udp = readUdp(frame);
    if (udp?.destination.port !== 53) continue;
    const { source, destination, payload } = udp;
    assertEquals(new TextDecoder().decode(payload), "ping\n");
    const answer = new TextEncoder().encode("pong\n");
    const reply = writeUdp({ source: destination, destination: source, payload: answer });
    await setUp.send(packet(reply));
    break;
  }
  assertEquals(await answered, "pong\n");
});

Deno.test("net says in one line why passt cannot start", async () => {
  await using network = await UserNetwork.create();
  const open = (options: Record<string, unknown>, number = 1) =>
    serve(net, {
      socketPath: network.path(`net${number}.sock`),
      options: { user: true, ...options },
      log: () => {},
    });
  await assertRejects(() => open({ queuePairs: 2 }), OptionError, "--user has one pair of queues");
  await assertRejects(() => open({ forward: "ssh" }), OptionError, "--forward takes");
  {
    await using _first = await open({ forward: "5000:22" });
    const { message } = await assertRejects(() => open({ forward: "5000:22" }, 2), OptionError);
    assertEquals(
      message,
      "passt does not start: Failed to bind any port for '-t 127.0.0.1/5000:22', exiting",
    );
  }
  await network.passtEnded();
  await using empty = await NetworkNamespace.create();
  await network.enter(empty);
  await assertRejects(() => open({}), OptionError, "passt does not start: ");
  network.leaveOut();
  await assertRejects(() => open({}), OptionError, "--user needs passt, which is not on PATH");
});
