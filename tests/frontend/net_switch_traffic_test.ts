/** Impairments and captures of a switch: of all ports, of one, and of the uplink. */
import {
  assert,
  assertEquals,
  assertGreater,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { OptionError } from "../../mod.ts";
import { StreamPeer } from "../../tools/lib/stream_peer.ts";
import type { NetDriver } from "./lib/net_driver.ts";
import { readPcapng } from "./lib/pcapng_reader.ts";
import { runCli } from "./lib/cli_process.ts";
import { from, mac, Switched } from "./lib/switched.ts";

const ALL = Array(6).fill(0xff);

/** A directory, and a listener for the uplink in it. */
async function place(made: AsyncDisposableStack) {
  const directory = await Deno.makeTempDir();
  made.defer(() => Deno.remove(directory, { recursive: true }));
  const path = `${directory}/peer.sock`;
  const listener = Deno.listen({ transport: "unix", path });
  made.defer(() => listener.close());
  return { directory, listener, uplink: `stream:${path}` };
}

/** What the first port's thread reports of the uplink. */
async function uplinkCounts(first: NetDriver): Promise<{ drops: Record<string, number> }> {
  const { report } = await first.server.freshRecord();
  return (report as { threads: { uplink: { drops: Record<string, number> } }[] }).threads[0].uplink;
}

Deno.test("switch --pcap captures all ports and the uplink into one file, or a port into its own", async () => {
  await using made = new AsyncDisposableStack();
  const { directory, listener, uplink } = await place(made);
  const pcap = `${directory}/lan.pcapng`, own = `${directory}/own.pcapng`;
  {
    const ports = [{}, {}, { flags: `,pcap=${own}` }];
    await using switched = await Switched.create(ports, undefined, { uplink, pcap });
    const [a, b, c] = switched.guests;
    using peer = new StreamPeer(await listener.accept());
    for (const guest of switched.guests) guest.post(5);
    await a.send(from(0, ALL));
    for (const guest of [b, c]) await guest.receive();
    assertEquals(await peer.receive(), from(0, ALL).subarray(12));
    await peer.send(from(9, mac(0), 80).subarray(12));
    await a.receive();
  }
  const { names, packets } = readPcapng(await Deno.readFile(pcap));
  assertEquals(names.toSorted(), ["0", "1", "uplink"]);
  const seen = packets.map(({ port, direction, bytes }) => `${port} ${direction} ${bytes.length}`);
  const expected = ["0 out 60", "1 in 60", "uplink out 60", "uplink in 80", "0 in 80"];
  assertEquals(seen.toSorted(), expected.toSorted());
  const alone = readPcapng(await Deno.readFile(own));
  assertEquals([alone.names, alone.packets.length], [["2"], 1]);
});

Deno.test("switch --loss is for all guests, and a port or the uplink can have another one", async () => {
  await using made = new AsyncDisposableStack();
  const { listener, uplink } = await place(made);
  const ports = [{ flags: ",loss=rx:100%,tx:0" }, { flags: ",loss=0" }, {}];
  const options = { uplink, loss: "50%", seed: 3, uplinkOptions: "duplicate=tx:100%,loss=rx:100%" };
  await using switched = await Switched.create(ports, undefined, options);
  const [a, b, c] = switched.guests;
  using peer = new StreamPeer(await listener.accept());
  const count = 200;
  for (const guest of switched.guests) guest.post(2 * count);
  for (let i = 0; i < count; i++) await a.send(from(0, ALL, 60, i));
  for (let i = 0; i < count; i++) await b.receive();
  for (let i = 0; i < 2 * count; i++) {
    assertEquals(await peer.receive(), from(0, ALL, 60, i >> 1).subarray(12));
  }
  assertGreater(c.report.received.drops.loss, count / 4);
  assertGreater(c.report.received.packets, count / 4);
  await b.send(from(1, ALL));
  assertEquals(a.report.received.drops, { loss: 1 });
  assertEquals([a, b, c].map(({ report }) => report.impairment?.seed), [3, undefined, 5]);
  assertEquals(a.report.uplink.impairment.tx, { duplicate: 1 });
  await peer.send(from(9, mac(1), 60, 1).subarray(12));
  while ((await uplinkCounts(a)).drops.loss === undefined);
  assertEquals(await a.command("uplink-impair", { seed: 7 }), { tx: {}, rx: {}, seed: 7 });
  await peer.send(from(9, mac(1), 60, 2).subarray(12));
  assertEquals((await b.receive()).frame, from(9, mac(1), 60, 2).subarray(12));
});

Deno.test("switch keeps packets in order for an uplink that is full or slow, and loses none", async () => {
  await using made = new AsyncDisposableStack();
  const { listener, uplink } = await place(made);
  const options = { uplink, uplinkOptions: "rate=tx:20mbit" };
  await using switched = await Switched.create([{}], undefined, options);
  const [a] = switched.guests;
  using peer = new StreamPeer(await listener.accept());
  const begin = performance.now();
  const sent = Promise.all(
    Array.from({ length: 200 }, (_, i) => a.send(from(0, ALL, 1000, i))),
  );
  for (let i = 0; i < 200; i++) {
    assertEquals(await peer.receive(), from(0, ALL, 1000, i).subarray(12), `frame ${i}`);
  }
  await sent;
  const ms = performance.now() - begin;
  assert(ms > 200 * 8000 / 20_000 - 10, `${ms} ms`);
});

Deno.test("POST /uplink-link unplugs the uplink, and guests still reach each other", async () => {
  await using made = new AsyncDisposableStack();
  const { listener, uplink } = await place(made);
  await using switched = await Switched.create([{}, {}], undefined, { uplink });
  const [a, b] = switched.guests;
  using peer = new StreamPeer(await listener.accept());
  b.post(3);
  assertEquals(await a.command("uplink-link", { up: false }), { up: false });
  await a.send(from(0, ALL, 60, 1));
  assertEquals(await a.command("uplink-link", { up: true }), { up: true });
  await a.send(from(0, ALL, 60, 2));
  for (const seed of [1, 2]) {
    assertEquals((await b.receive()).frame, from(0, ALL, 60, seed).subarray(12));
  }
  assertEquals(await peer.receive(), from(0, ALL, 60, 2).subarray(12));
  assertEquals((await uplinkCounts(a)).drops, { "link down": 1 });
});

Deno.test("switch refuses settings of a port or the uplink that there are not", async () => {
  for (
    const [flags, options, message] of [
      [",nothing", {}, "--port: a port has no option nothing; it has mac (The only address"],
      [",loss=1%,loss=2%", {}, "--port takes loss once"],
      [",mac=52:54", {}, "mac= of --port takes the address of one card"],
      [",mac=00:00:00:00:00:00", {}, "mac= of --port takes the address of one card"],
      [",loss=much", {}, "--loss takes 0 to 100% such as 0.1%"],
      [",delay=tx:1ms,rx:2,seed=1", {}, "--delay takes 0 to 60s such as 20ms"],
      [",pcap=/nowhere/x", {}, "--pcap=/nowhere/x: "],
      [
        "",
        { uplink: "tap:x", uplinkOptions: "mac=02:00:00:00:00:01" },
        "--uplink-options: an uplink has no option mac; it has pcap (",
      ],
      ["", { uplinkOptions: "loss=1%" }, "--uplink-options has no effect without --uplink"],
    ] as const
  ) {
    await assertRejects(
      () => Switched.create([{ flags }], undefined, options),
      OptionError,
      message,
    );
  }
});

Deno.test("vhostd refuses flags of a switch or a card that contradict each other before it opens anything", async () => {
  // Opening would fail, since there is no such directory.
  const port = "--port=/nowhere/a.sock", card = ["net", "--socket-path=/nowhere/net.sock"];
  const ports = Array.from({ length: 17 }, (_, i) => `--port=/nowhere/${i}.sock`);
  for (
    const [args, message] of [
      [["switch", ...ports], "--port is for up to 16 guests, got 17"],
      [
        [
          ...["switch", `${port},mac=52:54:00:00:00:0a`, "--port=/nowhere/b.sock"],
          "--port=/nowhere/c.sock,mac=52:54:00:00:00:0A",
        ],
        "Expected another mac= for each --port, got 52:54:00:00:00:0A for " +
        "/nowhere/a.sock,mac=52:54:00:00:00:0a and /nowhere/c.sock,mac=52:54:00:00:00:0A",
      ],
      [["switch", port, "--port=/nowhere/b.sock,mac=5"], "mac= of --port takes the address of one"],
      [["switch", port, "--port=/nowhere/b.sock,jitter=3ms"], "--jitter may be at most --delay"],
      [["switch", port, "--isolate"], "--isolate has no effect without --uplink"],
      [["switch", port, "--pcap-max=1M"], "--pcap-max has no effect without --pcap"],
      [["switch", port, "--uplink=null"], "--uplink takes tap:NAME"],
      [
        ["switch", port, "--uplink=tap:tap0", "--uplink-options=jitter=3ms"],
        "--jitter may be at most --delay",
      ],
      [card, "got none"],
      [[...card, "--null", "--bridge=br0"], "--bridge is for --tap, got --null"],
      [[...card, "--tap=tap0", "--delay=1ms", "--jitter=2ms"], "--jitter may be at most --delay"],
      [[...card, "--tap-fd=3,3", "--queue-pairs=2"], "--tap-fd takes a descriptor once"],
      [[...card, "--user", "--queue-pairs=2"], "--user has one pair of queues: passt has one"],
      [[...card, "--user", "--forward=ssh"], "--forward takes"],
      [[...card, "--handler=none.ts", "--queue-pairs=2"], "--handler has one pair of queues"],
    ] as const
  ) {
    const { status, stderr } = await runCli(args);
    assertEquals([status, stderr.trimEnd().split("\n").length], [2, 1]);
    assertStringIncludes(stderr, message);
  }
});

Deno.test("serveInstances() refuses options of instances that contradict each other", async () => {
  await assertRejects(
    () => Switched.create([1, 2].map(() => ({ flags: ",mac=52:54:00:00:00:0a" }))),
    OptionError,
    "Expected another mac= for each --port",
  );
});
