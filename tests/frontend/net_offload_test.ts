/** Frames made by software offloads, with Linux's own network stack as the judge. */
import { assertEquals, assertGreater } from "@std/assert";
import { type IpFrame, ipFrame, network } from "../unit/lib/ip_frames.ts";
import { hasPrinted, NetworkNamespace } from "../../tools/lib/network_namespace.ts";
import { packet } from "./lib/net_driver.ts";

const SEGMENTER = new URL("lib/tap_segmenter.ts", import.meta.url).pathname;

/**
 * Two network stacks. What the first sends may need offloads; the second gets frames that
 * `Segmenter` made. `send` gives the second a packet as if from the first.
 */
async function joined(made: AsyncDisposableStack) {
  const [first, second] = [
    made.use(await NetworkNamespace.create()),
    made.use(await NetworkNamespace.create()),
  ];
  const program = first.start(
    `exec ${Deno.execPath()} run -A --quiet ${SEGMENTER} eth0 tap0`,
    "piped",
  );
  if (!await hasPrinted(program)) throw new Error(await new Response(program.stderr).text());
  await first.ip("link", "set", "tap0", "netns", second.path);
  await second.ip("link", "set", "tap0", "address", "02:00:00:00:00:02");
  // The program writes to a TAP that is up.
  await second.address("tap0", 2);
  await first.address("eth0", 1);
  const writer = program.stdin.getWriter();
  made.defer(() => writer.close());
  const send = (packet: Uint8Array) =>
    writer.write(new TextEncoder().encode(packet.toHex() + "\n"));
  return { first, second, send };
}

Deno.test("Segmenter makes frames of which Linux gets whole TCP streams", async () => {
  await using made = new AsyncDisposableStack();
  const { first, second } = await joined(made);
  await first.ok("ping", "-c", "2", "-i", "0.1", "-s", "20000", "10.9.0.2");
  await first.ok("ping6", "-c", "2", "-i", "0.1", "-s", "20000", "fd09::2");
  for (const [near, far] of [["10.9.0.1", "10.9.0.2"], ["fd09::1", "fd09::2"]]) {
    await first.sendTo(second, far, 4_000_000);
    await second.sendTo(first, near, 1_000_000);
  }
  const { TcpInSegs } = await second.counters();
  assertGreater(TcpInSegs, 2 * 4_000_000 / 1448);
  assertEquals([await first.errors(), await second.errors()], [{}, {}]);
});

Deno.test("Segmenter makes UDP datagrams and fragments that Linux takes", async () => {
  await using made = new AsyncDisposableStack();
  const { second, send } = await joined(made);
  const frame: IpFrame = {
    ...{ vlans: 0, ip: 4, options: new Uint8Array(), extensions: [], id: 7, fragment: 0x4000 },
    ...{ protocol: "udp", sequence: 0, flags: 0, tcpOptions: new Uint8Array() },
    payload: crypto.getRandomValues(new Uint8Array(14_000)),
  };
  const before = await second.counters();
  for (const ip of [4, 6] as const) {
    // 10 datagrams of 1400 bytes; 10 fragments and a last one of the 8 bytes of the UDP header
    for (const gsoType of [5, 3]) {
      const one = { ...frame, ip };
      const csumStart = network(one, 0).length;
      const header = { flags: 1, gsoType, gsoSize: 1400, csumStart, csumOffset: 6 };
      await send(packet(ipFrame(one, "partial"), header));
    }
  }
  // Nobody listens. The kernel finds that out when it has checked the checksum. The counters of IPv4
  // are read before those of IPv6, and those of fragments before those of UDP: one more reading has
  // what led to the last.
  let after = before;
  const grown = (name: string) => after[name] - before[name];
  while (grown("UdpNoPorts") < 11 || grown("Udp6NoPorts") < 11) after = await second.counters();
  after = await second.counters();
  assertEquals([grown("UdpNoPorts"), grown("Udp6NoPorts")], [11, 11]);
  assertEquals([grown("IpReasmOKs"), grown("Ip6ReasmOKs")], [1, 1]);
  assertEquals([grown("IpReasmReqds"), grown("Ip6ReasmReqds")], [11, 11]);
  assertEquals(await second.errors(), {});
});
