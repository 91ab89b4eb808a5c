import { assert, assertEquals } from "@std/assert";
import { SelfDescribingDriver } from "../../mod.ts";
import { BlkDriver, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { parseEvents } from "../../backends/input/events.ts";
import { profileModel } from "../../backends/input/profiles.ts";
import { readArp, readIpv4, writeArp, writeIpv4 } from "../../backends/net/handler/mod.ts";
import { CliProcess } from "./lib/cli_process.ts";
import { NetDriver, packet } from "./lib/net_driver.ts";

const readme = Deno.readTextFileSync(new URL("../../README.md", import.meta.url));

/** A module of the README, word for word. */
function readmeModule(name: string): string {
  const [, code] = readme.match(new RegExp(`\`\`\`ts\n(// ${name}\n[^]*?)\`\`\``)) ?? [];
  assert(code !== undefined, `Expected a block of ${name} in README.md`);
  return code;
}

/** Calls a test with the path of a module of the README that has no type errors. */
async function withModule(name: string, test: (module: string) => Promise<void>): Promise<void> {
  // Inside the project, so that `@vhostd/vhostd` resolves.
  const cache = new URL("../../.cache/", import.meta.url).pathname;
  Deno.mkdirSync(cache, { recursive: true });
  const directory = Deno.makeTempDirSync({ dir: cache, prefix: "readme-" });
  try {
    const module = `${directory}/${name}`;
    Deno.writeTextFileSync(module, readmeModule(name));
    const check = await new Deno.Command(Deno.execPath(), {
      args: ["check", "--quiet", module],
      stderr: "piped",
    }).output();
    assert(check.success, new TextDecoder().decode(check.stderr));
    await test(module);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
  await watchesEnded();
}

Deno.test("the README's device runs as it is printed", () =>
  withModule("my_rng.ts", async (module) => {
    const socketPath = `${module}.sock`;
    await using cli = new CliProcess([module, `--socket-path=${socketPath}`, "--chunk=5"]);
    await cli.until("listens");
    await using driver = await VirtioDriver.start(socketPath);
    const first = await driver.request(0, [], [16]);
    const second = await driver.request(0, [], [16]);
    assertEquals([first.written, second.written], [5, 5]);
    assert(first.data[0].some((byte, i) => byte !== second.data[0][i]));
  }));

Deno.test("the README's device has about thirty lines", () => {
  assert(readmeModule("my_rng.ts").trim().split("\n").length <= 35);
});

Deno.test("the README's sensor runs as it is printed", () =>
  withModule("my_sensor.ts", async (module) => {
    const socketPath = `${module}.sock`;
    await using cli = new CliProcess([module, `--socket-path=${socketPath}`]);
    await cli.until("listens");
    await using driver = await VirtioDriver.start(socketPath);
    const fields = new SelfDescribingDriver(driver.config);
    const { data } = (await fields.find(3))!;
    assertEquals(new TextDecoder().decode(data.subarray(0, 5)), "load\0");
  }));

Deno.test("the README's disk runs as it is printed", () =>
  withModule("my_disk.ts", async (module) => {
    const socketPath = `${module}.sock`;
    await using cli = new CliProcess([
      ...["blk", module, `--socket-path=${socketPath}`, "--store-options=size=1M"],
    ]);
    await cli.until("listens");
    await using driver = await VirtioDriver.start(socketPath);
    const disk = new BlkDriver(driver);
    assertEquals(await disk.capacitySectors(), 2048);
    const text = async () => new TextDecoder().decode((await disk.read(6, 1024)).data);
    assertEquals((await text()).match(/Sector \d+/g), ["Sector 6", "Sector 7"]);
    await disk.write(7, new Uint8Array(512).fill(0x61));
    assertEquals((await text()).slice(508), "...." + "a".repeat(512));
  }));

Deno.test("the README's network answers as it is printed", () =>
  withModule("my_net.ts", async (handler) => {
    await using net = await NetDriver.create({ handler });
    const guest = { mac: "52:54:00:12:34:56", ip: "10.0.2.15" };
    const host = { mac: "02:00:00:00:00:01", ip: "10.0.2.1" };
    net.post(2);
    const target = { mac: "00:00:00:00:00:00", ip: host.ip };
    await net.send(packet(writeArp({ operation: "request", sender: guest, target })));
    assertEquals(readArp((await net.receive()).frame)!.sender, host);
    const payload = Uint8Array.of(8, 0, 0xf7, 0xfe, 0, 0, 0, 1);
    const ping = writeIpv4({ source: guest, destination: host, protocol: 1, payload });
    await net.send(packet(ping));
    const pong = readIpv4((await net.receive()).frame)!;
    assertEquals([pong.source, pong.destination, pong.payload[0]], [host, guest, 0]);
  }));

Deno.test("the README's events are taken, each by a keyboard, a mouse or a tablet", () => {
  const [, block] = readme.match(/```jsonc\n(\{ "type"[^]*?)```/) ?? [];
  assert(block !== undefined, "Expected a block of events in README.md");
  const models = (["keyboard", "mouse", "tablet"] as const).map((name) => profileModel(name, {}));
  for (const line of block.trim().split("\n")) {
    const event = JSON.parse(line.replace(/ \/\/.*$/, ""));
    const takers = models.filter((model) => {
      try {
        return parseEvents(event, model).length > 0;
      } catch {
        return false;
      }
    });
    assert(takers.length > 0, line);
  }
});
