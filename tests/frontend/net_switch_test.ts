/** Guests on a switch, each with a driver of ours. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { MAX_QUEUED_PACKETS } from "../../backends/net/switch/packet_queue.ts";
import { rarpPacket } from "../../backends/net/rarp.ts";
import { driverProtocolFeatures } from "../../src/frontend/mod.ts";
import { protocolFeatureMask } from "../../src/vhost_user/mod.ts";
import { readArp, readIpv4, writeArp, writeIpv4 } from "../../backends/net/handler/mod.ts";
import { type IpFrame, ipFrame } from "../unit/lib/ip_frames.ts";
import type { PortJson } from "../../backends/net/switch/switch.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { splitRing } from "./lib/raw_rings.ts";
import { concat } from "@std/bytes";
import { record, StreamPeer } from "../../tools/lib/stream_peer.ts";
import { NetDriver, type NetSetup, packet } from "./lib/net_driver.ts";
import { from, mac, Switched, timeoutMs } from "./lib/switched.ts";

const ALL = Array(6).fill(0xff);

const UDP: IpFrame = {
  ...{ vlans: 0, ip: 4, options: new Uint8Array(), extensions: [], id: 7, fragment: 0 },
  ...{ protocol: "udp", sequence: 0, flags: 0, tcpOptions: new Uint8Array() },
  payload: new Uint8Array(),
};

Deno.test("a router in TypeScript is the uplink of guests in two subnets", async () => {
  const router = new URL("../../examples/router.ts", import.meta.url).pathname;
  const options = { uplink: `handler:${router}` };
  await using switched = await Switched.create([{}, {}], undefined, options);
  const [one, two] = switched.guests;
  const hosts = [1, 2].map((i) => ({ mac: `02:00:00:00:01:0${i}`, ip: `10.0.${i}.7` }));
  const gateways = [1, 2].map((i) => ({ mac: "02:00:00:00:00:01", ip: `10.0.${i}.1` }));
  const seek = (i: number) => {
    const target = { mac: "00:00:00:00:00:00", ip: gateways[i].ip };
    return packet(writeArp({ operation: "request", sender: hosts[i], target }));
  };
  one.post(20);
  two.post(200);
  // The first may be lost: the uplink is not open then.
  while (one.report.received.packets === 0) await one.send(seek(0));
  assertEquals(readArp((await one.receive()).frame)?.sender, gateways[0]);
  await two.send(seek(1));
  const { mac } = gateways[0];
  const payload = Uint8Array.of(1, 2, 3);
  const destination = { mac, ip: hosts[1].ip };
  await one.send(packet(writeIpv4({ source: hosts[0], destination, protocol: 17, payload })));
  let routed;
  while (routed === undefined) routed = readIpv4((await two.receive()).frame);
  assertEquals([routed.source.mac, routed.destination], [mac, hosts[1]]);
});

for (const packed of [false, true]) {
  const name = packed ? "packed" : "split";
  Deno.test(`switch floods what it does not know, and forwards what it knows (${name})`, async () => {
    await using switched = await Switched.create([{ packed }, { packed }, { packed }]);
    const [a, b, c] = switched.guests;
    for (const guest of switched.guests) guest.post(20);
    await a.send(from(0, ALL));
    for (const guest of [b, c]) {
      assertEquals((await guest.receive()).frame, from(0, ALL).subarray(12));
    }
    await b.send(from(1, mac(0), 1514));
    assertEquals((await a.receive()).frame, from(1, mac(0), 1514).subarray(12));
    await a.send(from(0, mac(1), 100));
    assertEquals((await b.receive()).frame, from(0, mac(1), 100).subarray(12));
    assertEquals(c.report.received.packets, 1);
    assert(a.report.received.packets === 1 && b.report.received.packets === 2);
  });
}

Deno.test("switch learns where a guest is that migrated, and tells the others", async () => {
  const protocolFeatures = driverProtocolFeatures | protocolFeatureMask("RARP");
  await using switched = await Switched.create([{ protocolFeatures }, {}, {}]);
  const [a, b, c] = switched.guests;
  for (const guest of switched.guests) guest.post(5);
  const address = BigInt(`0x${Uint8Array.from(mac(0)).toReversed().toHex()}`);
  await a.driver.connection.sendRarp(address);
  const announced = rarpPacket(address).subarray(12);
  for (const guest of [b, c]) assertEquals((await guest.receive()).frame, announced);
  await b.send(from(1, mac(0)));
  assertEquals((await a.receive()).frame, from(1, mac(0)).subarray(12));
  assertEquals(c.report.received.packets, 1);
});

Deno.test("switch queues packets for a guest without buffers, drops the oldest, and others notice nothing", async () => {
  await using switched = await Switched.create([{}, {}, {}]);
  const [a, b, c] = switched.guests;
  c.post(300);
  await b.send(from(1, mac(9)));
  await c.receive();
  const count = MAX_QUEUED_PACKETS + 100;
  for (let i = 0; i < count; i++) {
    await a.send(from(0, mac(1), 100, i));
    if (i % 10 !== 0) continue;
    await a.send(from(0, mac(2), 100, i));
    if (i === 0) await c.send(from(2, mac(0)));
    assertEquals((await c.receive()).frame, from(0, mac(2), 100, i).subarray(12));
  }
  // The first packet for the other guest was flooded.
  assertEquals(b.report.received.drops, { queue: 101 });
  b.post(200);
  for (let i = 100; i < 300; i++) {
    assertEquals((await b.receive()).frame, from(0, mac(1), 100, i).subarray(12));
  }
  assertEquals([a.report.sent.drops, c.report.received.drops], [{}, {}]);
  // What is queued for a driver that stops is not for the next one.
  for (let i = 0; i < 3; i++) await a.send(from(0, mac(1)));
  await b.driver.stop();
  assert(b.report.received.drops.down > 0);
});

Deno.test("switch divides large packets, and completes checksums, for a guest that takes none", async () => {
  const plain: NetSetup = {
    without: ["GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6", "GUEST_ECN", "GUEST_UFO"],
  };
  plain.without!.push("GUEST_USO4", "GUEST_USO6");
  await using switched = await Switched.create([{}, plain, { buffer: [65_600] }]);
  const [a, b, c] = switched.guests;
  b.post(10);
  c.post(10);
  const content: IpFrame = {
    ...{ ...UDP, protocol: "tcp", sequence: 1000, flags: 0x10 },
    payload: Uint8Array.from({ length: 4000 }, (_, i) => i * 7),
  };
  const large = ipFrame(content, "partial");
  large.set(ALL);
  const header = { flags: 1, gsoType: 1, gsoSize: 1448, csumStart: 34, csumOffset: 16, hdrLen: 54 };
  await a.send(packet(large, header), { parts: [12, 20, 2000, large.length - 2020] });
  const whole = await c.receive();
  assertEquals(whole.frame, large);
  assertEquals([whole.flags, whole.gsoType, whole.gsoSize], [1, 1, 1448]);
  for (let i = 0; i < 3; i++) {
    const payload = content.payload.subarray(1448 * i, 1448 * (i + 1));
    const expected = ipFrame(
      { ...content, id: 7 + i, sequence: 1000 + 1448 * i, payload },
      "complete",
    );
    expected.set(ALL);
    const { frame, flags, gsoType } = await b.receive();
    assertEquals([frame, flags, gsoType], [expected, 0, 0]);
  }
});

Deno.test("switch: a guest that breaks its queues or leaves harms no other, and can come back", async () => {
  const lines: string[] = [];
  let wake = () => {};
  const said = async (text: string) => {
    while (!lines.some((line) => line.includes(text))) {
      await new Promise<void>((resolve) => wake = resolve);
    }
  };
  await using switched = await Switched.create([{}, { buffer: [11] }, {}, {}], (line) => {
    lines.push(line);
    wake();
  });
  const [a, b, c, d] = switched.guests;
  const talk = async (seed: number) => {
    c.post(1);
    await a.send(from(0, mac(2), 200, seed));
    assertEquals((await c.receive()).frame, from(0, mac(2), 200, seed).subarray(12));
  };
  c.post(2);
  await c.send(from(2, mac(0)));
  await talk(1);
  // A receive buffer without room for a header breaks its queue in the middle of another's packet.
  b.post(1);
  await a.send(from(0, ALL));
  await c.receive();
  await assertRejects(() => b.receive(), Error, "broken");
  await talk(2);
  const raw = splitRing(d.driver, 1);
  raw.setDescriptor(0, { gpa: 2n ** 40n, bytes: 60, flags: 0, next: 0 });
  raw.push(0);
  d.driver.queues[1].kick();
  await said("A buffer is at 0x10000000000");
  await talk(3);
  await b.driver.disconnect();
  await talk(4);
  await b.driver.reconnect();
  await talk(5);
  assertEquals([b, c].map(({ server }) => server.record().connections.total), [2, 1]);
  assertEquals(c.report.received.drops, {});
});

Deno.test("vhostd switch: a guest has its own address only, its name in the record, and goes on after kill -9", async () => {
  const directory = await Deno.makeTempDir();
  const [one, two, control] = ["one.sock", "two.sock", "control"].map((name) =>
    `${directory}/${name}`
  );
  const args = [
    ...["switch", `--port=${one},mac=02:00:00:00:01:00`, `--port=${two}`],
    `--control-path=${control}`,
  ];
  const get = async (path: string) => {
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path: control } });
    return await (await fetch(`http://localhost${path}`, { client })).json();
  };
  {
    const first = new CliProcess(args);
    await using _first = first;
    await first.until("switch/two listens on");
    const before: PortJson[] = await get("/ports");
    assertEquals(before.map(({ isUp, isFiltered }) => [isUp, isFiltered]), [
      [false, true],
      [false, false],
    ]);
    await using a = await NetDriver.join(undefined, one, { timeoutMs });
    await using b = await NetDriver.join(undefined, two, { timeoutMs });
    a.post(4);
    b.post(4);
    await b.send(from(0, ALL)); // the other's address
    await b.send(from(1, ALL));
    assertEquals((await a.receive()).frame, from(1, ALL).subarray(12));
    await a.send(from(0, mac(1), 70));
    assertEquals((await b.receive()).frame, from(0, mac(1), 70).subarray(12));
    const { device, instances } = await get("/");
    assertEquals([device.name, instances], ["switch", ["one", "two"]]);
    const { instances: records } = await get("/record");
    assertEquals(records.two.report.sent.drops, { source: 1 });
    const { at, process } = records.two;
    assertEquals(records.two, { ...await get("/two/record"), at, process });
    assertEquals(
      (await get("/macs")).map(({ mac, port }: { mac: string; port: string }) => [mac, port]),
      [["02:00:00:00:01:00", "one"], ["02:00:00:00:01:01", "two"]],
    );
    const ports: PortJson[] = await get("/ports");
    assertEquals(
      ports.map(({ port, isUp, isIsolated, isFiltered, sent: { packets, drops } }) => [
        ...[port, isUp, isIsolated, isFiltered, packets, drops],
      ]),
      [["one", true, false, true, 1, {}], ["two", true, false, false, 1, { source: 1 }]],
    );
    assertEquals(ports.map(({ received }) => received.packets), [1, 1]);
    const { stdout } = await runCli(["inspect", control]);
    assertStringIncludes(stdout, "switch/one");
    assertStringIncludes(stdout, "switch/two");
    first.kill("SIGKILL");
    await first.end();
    await using second = new CliProcess(args);
    await second.until("switch/two listens on");
    await Promise.all([a, b].map(({ driver }) => driver.reconnect()));
    await a.send(from(0, mac(1), 80));
    assertEquals((await b.receive()).frame, from(0, mac(1), 80).subarray(12));
    assertEquals((await second.stop()).status, 0);
  }
  await Deno.remove(directory, { recursive: true });
});

Deno.test("switch: frames that a stream's peer sent at once all come", async () => {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/peer`;
  using listener = Deno.listen({ transport: "unix", path });
  await using switched = await Switched.create([{ queues: [1024, 256] }], undefined, {
    uplink: `stream:${path}`,
  });
  using peer = new StreamPeer(await listener.accept());
  const [a] = switched.guests;
  a.post(500);
  await a.send(from(0, ALL));
  await peer.receive();
  const frames = Array.from({ length: 500 }, (_, i) => from(9, mac(0), 100, i).subarray(12));
  await peer.write(concat(frames.map((frame) => record(frame))));
  for (let i = 0; i < 500; i++) {
    assertEquals((await a.receive()).frame, from(9, mac(0), 100, i).subarray(12));
  }
  await Deno.remove(directory, { recursive: true });
});

Deno.test("switch joins guests to a stream, for which it divides large packets", async () => {
  const directory = await Deno.makeTempDir();
  {
    using listener = Deno.listen({ transport: "unix", path: `${directory}/peer` });
    const flags = { uplink: `stream:${directory}/peer`, isolate: true };
    await using switched = await Switched.create([{}, {}], () => {}, flags);
    using peer = new StreamPeer(await listener.accept());
    const [a, b] = switched.guests;
    a.post(4);
    b.post(4);
    await peer.send(from(9, ALL).subarray(12));
    for (const guest of [a, b]) {
      assertEquals((await guest.receive()).frame, from(9, ALL).subarray(12));
    }
    await a.send(from(0, mac(9), 600));
    assertEquals(await peer.receive(), from(0, mac(9), 600).subarray(12));
    await a.send(from(0, ALL, 61));
    assertEquals(await peer.receive(), from(0, ALL, 61).subarray(12));
    // UDP in two datagrams, by a guest that leaves the checksum and the division to others.
    const large = ipFrame({ ...UDP, payload: new Uint8Array(1500) }, "partial");
    large.set([...mac(9), ...mac(1)]);
    await b.send(
      packet(large, { flags: 1, gsoType: 5, gsoSize: 1000, csumStart: 34, csumOffset: 6 }),
    );
    const lengths = [await peer.receive(), await peer.receive()].map((frame) => frame?.length);
    assertEquals(lengths, [1042, 542]);
    await peer.send(from(9, mac(1), 70).subarray(12));
    assertEquals((await b.receive()).frame, from(9, mac(1), 70).subarray(12));
    assertEquals([a, b].map(({ report }) => report.received.packets), [1, 2]);
    assertEquals([a, b].map(({ report }) => report.sent.drops), [{}, {}]);
  }
  await Deno.remove(directory, { recursive: true });
});
