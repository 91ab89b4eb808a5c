/** TAPs, with Linux's own network stacks on both sides as the judges. */
import { assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { ALL_OFFLOADS } from "../../backends/net/packet.ts";
import { frame, NetDriver, packet } from "./lib/net_driver.ts";
import { NetworkNamespace } from "../../tools/lib/network_namespace.ts";
import type { TapFrontendOptions } from "../../tools/lib/tap_frontend.ts";

/** A host and a machine, each with a network stack of its own, joined by `vhostd net`. */
class Joined implements AsyncDisposable {
  private constructor(
    readonly host: NetworkNamespace,
    readonly directory: string,
    readonly vhostd: CliProcess,
    readonly made: AsyncDisposableStack,
  ) {}

  static async create(flags: string[] = [], setUp = ""): Promise<Joined> {
    await using made = new AsyncDisposableStack();
    const directory = await Deno.makeTempDir();
    made.defer(() => Deno.remove(directory, { recursive: true }));
    const host = made.use(await NetworkNamespace.create());
    if (setUp) await host.run(setUp);
    const args = [
      "net",
      `--socket-path=${directory}/net.sock`,
      `--control-path=${directory}/control`,
      "--tap=tap0",
      ...flags,
    ];
    const vhostd = made.use(new CliProcess(args, { through: host.through }));
    await vhostd.until("listens on");
    return new Joined(host, directory, vhostd, made.move());
  }

  /** Starts a machine with the interface `eth0`, until the block ends. */
  async machine(options: TapFrontendOptions = {}): Promise<NetworkNamespace> {
    const machine = this.made.use(await NetworkNamespace.create());
    await machine.join(`${this.directory}/net.sock`, options);
    await machine.address("eth0", 2);
    return machine;
  }

  async #ask(path: string, request: RequestInit = {}) {
    using client = Deno.createHttpClient({
      proxy: { transport: "unix", path: `${this.directory}/control` },
    });
    return await (await fetch(`http://localhost/${path}`, { client, ...request })).json();
  }

  // deno-lint-ignore no-explicit-any
  async report(): Promise<any> {
    return (await this.#ask("record")).report;
  }

  post(name: string, body: unknown): Promise<unknown> {
    return this.#ask(name, { method: "POST", body: JSON.stringify(body) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.made.disposeAsync();
  }
}

const GUEST_CSUM = ALL_OFFLOADS.filter((name) => name.startsWith("GUEST_"));
const CSUM = ALL_OFFLOADS.filter((name) => !name.startsWith("GUEST_"));

const COMBINATIONS: Record<string, { options: TapFrontendOptions; gso: [boolean, boolean] }> = {
  "all offloads": { options: {}, gso: [true, true] },
  "all offloads, packed": { options: { packed: true }, gso: [true, true] },
  "all offloads, small buffers": { options: { bufferBytes: 300 }, gso: [true, true] },
  "all offloads, not mergeable": { options: { without: ["MRG_RXBUF"] }, gso: [true, true] },
  "no offloads": { options: { without: [...CSUM, ...GUEST_CSUM] }, gso: [false, false] },
  "no offloads, not mergeable": {
    options: { without: [...CSUM, ...GUEST_CSUM, "MRG_RXBUF"] },
    gso: [false, false],
  },
  "checksums only": {
    options: { without: [...CSUM.slice(1), ...GUEST_CSUM.slice(1)] },
    gso: [false, false],
  },
  "large packets from the machine": { options: { without: [...GUEST_CSUM] }, gso: [true, false] },
  "large packets to the machine": { options: { without: [...CSUM] }, gso: [false, true] },
};

for (const [name, { options, gso }] of Object.entries(COMBINATIONS)) {
  Deno.test(`net --tap joins two network stacks: ${name}`, async () => {
    await using joined = await Joined.create();
    const { host } = joined;
    await host.address("tap0", 1);
    const machine = await joined.machine(options);
    await machine.ok("ping", "-c", "3", "-i", "0.1", "10.9.0.1");
    await host.ok("ping", "-c", "3", "-i", "0.1", "-s", "1472", "10.9.0.2");
    await host.ok("ping", "-c", "2", "-i", "0.1", "-s", "20000", "10.9.0.2");
    await host.ok("ping6", "-c", "2", "-i", "0.1", "fd09::2");
    for (const address of [["10.9.0.1", "10.9.0.2"], ["fd09::1", "fd09::2"]]) {
      await machine.sendTo(host, address[0], 4_000_000);
      await host.sendTo(machine, address[1], 4_000_000);
    }
    assertEquals([await host.errors(), await machine.errors()], [{}, {}]);
    const { sent, received, port } = await joined.report();
    assertEquals(port, "tap tap0");
    assertEquals([sent.drops, received.drops], [{}, {}]);
    assertEquals([sent.gso > 0, received.gso > 0], gso);
    assertGreater(sent.bytes, 8_000_000);
    assertGreater(received.bytes, 8_000_000);
    assertGreater(sent.broadcast, 0);
    assertGreater(received.multicast, 0);
  });
}

Deno.test("net --tap: a pair that the driver disables gets no packets", async () => {
  await using joined = await Joined.create(["--queue-pairs=4"]);
  await joined.host.address("tap0", 1);
  const machine = await joined.machine({ pairs: 4, enabled: 1 });
  for (let i = 0; i < 12; i++) await joined.host.sendTo(machine, "10.9.0.2", 1000);
  assertEquals((await joined.report()).received.drops, {});
});

Deno.test("net --tap: the driver gets packets through all of its pairs", async () => {
  await using joined = await Joined.create(["--queue-pairs=3"]);
  await joined.host.address("tap0", 1);
  const machine = await joined.machine({ pairs: 3 });
  for (let i = 0; i < 12; i++) await joined.host.sendTo(machine, "10.9.0.2", 1000);
  await machine.ok("ping", "-c", "2", "-i", "0.1", "10.9.0.1");
});

Deno.test("net --tap takes jumbo frames, and a TAP that was made before outlives it as a port of a bridge", async () => {
  await using joined = await Joined.create(
    ["--bridge=br0", "--mtu=9000"],
    '"$0" brctl addbr br0; ip link set br0 up; ip tuntap add tap0 mode tap',
  );
  const { host, vhostd } = joined;
  await host.address("br0", 1);
  const machine = await joined.machine();
  await machine.ip("link", "set", "eth0", "mtu", "9000");
  await machine.ok("ping", "-c", "2", "-i", "0.1", "-s", "8972", "10.9.0.1");
  const { sent, mtu } = await joined.report();
  assertGreater(sent.bytes, 2 * 9000);
  assertEquals(mtu, 9000);
  vhostd.kill("SIGKILL");
  await vhostd.end();
  assertStringIncludes(await host.ip("link", "show", "tap0"), "master br0");
});

Deno.test("net --tap says what is wrong with a TAP", async () => {
  await using host = await NetworkNamespace.create();
  await host.ip("tuntap", "add", "single", "mode", "tap");
  const cases: [string[], string][] = [
    [["--tap=single", "--queue-pairs=2"], "ip tuntap add single mode tap multi_queue makes"],
    [["--tap=lo"], "--tap=lo: it is no TAP, or one with other properties"],
    [["--tap=sixteen-letters!"], "the name of an interface"],
    [["--tap=tap%d"], "the name of an interface"],
    [
      ["--tap=tap0", "--bridge=none"],
      "--bridge=none: there is no such bridge; make it: ip link add",
    ],
    [["--tap=tap0", "--bridge=lo"], "--bridge=lo: that interface is no bridge"],
    [["--tap=single", "--mtu=65535"], "--mtu=65535: a TAP takes 68 to 65521"],
    [["--tap-fd=0"], "Expected a TAP, or a connected socket"],
    [["--tap-fd=0,1"], "one descriptor per pair"],
  ];
  for (const [flags, text] of cases) await refused(host.through, flags, text);
});

Deno.test("net --tap: without privileges a TAP of the user's is used as it is, or the command for root is told", async () => {
  await using host = await NetworkNamespace.create();
  await host.run('ip tuntap add tap0 mode tap user 0; "$0" brctl addbr br0');
  const through = [...host.through, "setpriv", "--bounding-set=-net_admin"];
  await refused(through, ["--tap=tap0"], "--tap=tap0: not permitted; as root: ip link set tap0 up");
  await host.ip("link", "set", "tap0", "up");
  for (
    const [flags, text] of [
      [["--tap=tap1"], "ip tuntap add tap1 mode tap user $USER && ip link set tap1 up"],
      [["--tap=tap0", "--mtu=9000"], "as root: ip link set tap0 mtu 9000"],
      [["--tap=tap0", "--bridge=br0"], "as root: ip link set tap0 master br0"],
    ] as const
  ) await refused(through, flags, text);
  await using made = new AsyncDisposableStack();
  const directory = await Deno.makeTempDir();
  made.defer(() => Deno.remove(directory, { recursive: true }));
  const args = ["net", `--socket-path=${directory}/net.sock`, "--tap=tap0"];
  await using vhostd = new CliProcess(args, { through });
  await vhostd.until("listens on");
  await refused(through, ["--tap=tap0"], "--tap=tap0: another program has it");
});

/** Expects that `vhostd net` ends with one line. */
async function refused(through: string[], flags: readonly string[], text: string): Promise<void> {
  const args = ["net", "--socket-path=/tmp/never.sock", ...flags];
  const { status, stderr } = await runCli(args, { through });
  assertEquals([status, stderr.trim().split("\n").length], [2, 1]);
  assertStringIncludes(stderr, text);
}

Deno.test("net --tap: POST /link takes the carrier of the TAP away, and gives it back", async () => {
  await using joined = await Joined.create();
  const { host } = joined;
  await host.address("tap0", 1);
  const machine = await joined.machine();
  assertEquals(await joined.post("link", { up: false }), { up: false });
  // The kernel shows it within a second.
  while (!(await host.ip("link", "show", "tap0")).includes("NO-CARRIER"));
  assertEquals((await joined.report()).link, "down");
  assertEquals(await joined.post("link", { up: true }), { up: true });
  await machine.ok("ping", "-c", "1", "-w", "10", "10.9.0.1");
});

for (const pairs of [1, 2]) {
  Deno.test(`net --tap joins its TAP again when it was deleted and is back (${pairs})`, async () => {
    await using joined = await Joined.create([`--queue-pairs=${pairs}`]);
    const { host, vhostd } = joined;
    await host.address("tap0", 1);
    const machine = await joined.machine({ pairs });
    await machine.ok("ping", "-c", "1", "10.9.0.1");
    await host.ip("link", "del", "tap0");
    await vhostd.until("The TAP is gone");
    await machine.run(`! "$0" ping -c 1 -W 1 10.9.0.1`);
    assertGreater((await joined.report()).sent.drops.refused, 0);
    const queues = pairs > 1 ? ["multi_queue"] : [];
    await host.ip("tuntap", "add", "tap0", "mode", "tap", ...queues);
    await vhostd.until("is back, and joined again");
    await host.address("tap0", 1);
    // The new interface has another MAC address.
    await machine.ip("neigh", "flush", "dev", "eth0");
    await machine.ok("ping", "-c", "1", "-w", "10", "10.9.0.1");
    await machine.sendTo(host, "10.9.0.1", 1_000_000);
    await host.sendTo(machine, "10.9.0.2", 1_000_000);
    assertEquals([await host.errors(), await machine.errors()], [{}, {}]);
  });
}

Deno.test("net --tap finds its TAP gone by what a guest without receive buffers sends", async () => {
  await using joined = await Joined.create();
  const { host, vhostd } = joined;
  await using card = await NetDriver.join(undefined, `${joined.directory}/net.sock`);
  await card.send(packet(frame(60)));
  await host.ip("link", "del", "tap0");
  await card.send(packet(frame(60)));
  await vhostd.until("The TAP is gone");
  await host.ip("tuntap", "add", "tap0", "mode", "tap");
  await vhostd.until("is back, and joined again");
  await card.send(packet(frame(60)));
  const { packets, drops } = (await joined.report()).sent;
  assertEquals([packets, drops], [2, { refused: 1 }]);
});

Deno.test("net --tap drops each delayed packet once when it finds its TAP gone by the first", async () => {
  await using joined = await Joined.create(["--delay=tx:60s"]);
  await using card = await NetDriver.join(undefined, `${joined.directory}/net.sock`);
  for (let i = 0; i < 3; i++) await card.send(packet(frame(60)));
  await joined.host.ip("link", "del", "tap0");
  await joined.post("impair", {});
  await joined.vhostd.until("The TAP is gone");
  assertEquals((await joined.report()).sent.drops, { refused: 3 });
});
