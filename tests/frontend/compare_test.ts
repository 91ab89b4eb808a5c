/** `vhostd compare`: records of real devices and drivers. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { BlkDriver, VirtioDriver, type VirtioDriverOptions } from "../../src/frontend/mod.ts";
import { serve } from "../../mod.ts";
import blk from "../../backends/blk/mod.ts";
import { ControlSocket } from "../../src/runtime/control_socket.ts";
import { runCli } from "./lib/cli_process.ts";

Deno.test("vhostd compare tells drivers apart, not runs of the same one", async () => {
  const directory = Deno.makeTempDirSync();
  await using made = new AsyncDisposableStack();
  made.defer(() => Deno.removeSync(directory, { recursive: true }));
  /** Uses a disk with a driver; returns the path of the record. */
  async function record(
    name: string,
    options: VirtioDriverOptions,
    work: (driver: VirtioDriver) => Promise<unknown>,
  ): Promise<string> {
    const [socketPath, path] = [`${directory}/${name}.sock`, `${directory}/${name}.json`];
    await using server = await serve(blk, { socketPath, options: { size: 2 ** 20 } });
    {
      await using driver = await VirtioDriver.start(socketPath, options);
      await work(driver);
    }
    await server.idle();
    await Deno.writeTextFile(path, JSON.stringify(server.record()));
    return path;
  }
  const write = (driver: VirtioDriver) => new BlkDriver(driver).write(0, new Uint8Array(512));
  const [first, second, packed, reader] = [
    await record("first", {}, write),
    await record("second", {}, async (driver) => {
      for (let i = 0; i < 5; i++) await write(driver);
    }),
    await record("packed", { packed: true }, write),
    await record("reader", {}, (driver) => driver.connection.getConfig(0, 60)),
  ];

  const same = await runCli(["compare", first, second]);
  assertEquals([same.status, same.stderr], [0, ""]);
  assertMatch(same.stdout, /^Equal: \d+ facts\n$/);

  const counted = await runCli(["compare", "--counts", first, second]);
  assertEquals(counted.status, 1);
  assertMatch(counted.stdout, /^number of requests of queue 0 +1 +5$/m);

  const rings = await runCli(["compare", first, packed]);
  assertEquals([rings.status, rings.stderr], [1, ""]);
  assertMatch(rings.stdout, /^feature RING_PACKED\(34\) +left +acknowledged$/m);
  assertMatch(rings.stdout, /^\d+ different, \d+ equal$/m);

  const { status, stdout } = await runCli(["compare", "--json", first, reader]);
  assertEquals(status, 1);
  const { differences } = JSON.parse(stdout);
  const subjects = differences.map(({ subject }: { subject: string }) => subject);
  assertStringIncludes(subjects.join(), "queue 0 (requestq) requests");
  assertStringIncludes(subjects.join(), "field size_max");

  await using server = await serve(blk, {
    ...{ socketPath: `${directory}/live.sock`, options: { size: 2 ** 20 } },
  });
  const live = `${directory}/live.ctl`;
  await using _control = new ControlSocket(server.host, live);
  const idle = await runCli(["compare", live, first]);
  assertEquals(idle.status, 1);
  assertMatch(idle.stdout, /^queue 0 \(requestq\) starts +none +yes$/m);
});

Deno.test("vhostd compare says in one line what is wrong with its input", async () => {
  const directory = Deno.makeTempDirSync();
  const file = (name: string, text: string) => {
    Deno.writeTextFileSync(`${directory}/${name}`, text);
    return `${directory}/${name}`;
  };
  const text = file("text", "hello");
  for (
    const [args, line] of [
      [[text], "Expected two records, each a control socket or a record file, got 1"],
      [[text, `${directory}/none`], "Expected"],
      [[text, text], "Expected the JSON of a record"],
      [[file("part", '{"version":1,"queues":[]}'), text], "Expected"],
      [[`${directory}/part`, `${directory}/part`], "Expected an object as device, got nothing"],
    ] as const
  ) {
    const { status, stdout, stderr } = await runCli(["compare", ...args]);
    assertEquals([status, stdout, stderr.trimEnd().split("\n").length], [2, "", 1], stderr);
    assertStringIncludes(stderr, line);
  }
  Deno.removeSync(directory, { recursive: true });
});
