import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import input from "../../backends/input/mod.ts";
import net from "../../backends/net/mod.ts";
import rng from "../../backends/rng/mod.ts";
import sensor from "../../backends/sensor/mod.ts";
import { type AnyDevice, SelfDescribingDriver } from "../../mod.ts";
import { type PermissionNeed, permissionsOf } from "../../src/cli/permissions.ts";
import {
  BlkDriver,
  FrontendConnection,
  FrontendError,
  VirtioDriver,
} from "../../src/frontend/mod.ts";
import { openFile } from "../../src/linux/mod.ts";
import { openRecordSource } from "../../src/cli/record_file.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { withDirectory } from "./lib/directory.ts";
import { frame, packet } from "./lib/net_driver.ts";

/** A device, its options, and a request that shows that it works. */
interface Served {
  device: AnyDevice;
  args: (directory: string) => string[];
  /** Permissions that its options need besides. */
  further?: (directory: string) => string[];
  queues: number;
  use: (driver: VirtioDriver) => Promise<void>;
}

const served: Served[] = [
  {
    device: rng,
    args: () => [],
    queues: 1,
    use: async (driver) => assertEquals((await driver.request(0, [], [16])).written, 16),
  },
  {
    device: blk,
    args(directory) {
      const image = `${directory}/disk.img`;
      Deno.writeFileSync(image, new Uint8Array(1 << 20));
      return [`--blk-file=${image}`];
    },
    queues: 1,
    async use(driver) {
      const disk = new BlkDriver(driver);
      const data = crypto.getRandomValues(new Uint8Array(4096));
      assertEquals((await disk.write(8, data)).status, 0);
      assertEquals((await disk.flush()).status, 0);
      assertEquals((await disk.read(8, 4096)).data, data);
      assertEquals((await disk.discard(8, 8)).status, 0);
    },
  },
  {
    device: input,
    args: () => [],
    queues: 2,
    // An LED, to the status queue
    use: async (driver) =>
      void await driver.request(1, [Uint8Array.of(0x11, 0, 0, 0, 1, 0, 0, 0)], []),
  },
  {
    device: net,
    args: () => ["--null"],
    queues: 2,
    use: async (driver) => void await driver.request(1, [packet(frame(64))], []),
  },
  {
    device: sensor,
    args(directory) {
      Deno.mkdirSync(`${directory}/hwmon`, { recursive: true });
      Deno.writeTextFileSync(`${directory}/hwmon/temp1_input`, "42000\n");
      return [`--hwmon=${directory}/hwmon`];
    },
    further: (directory) => [`--allow-read=${directory}/hwmon`],
    queues: 1,
    async use(driver) {
      const { data } = (await new SelfDescribingDriver(driver.config).find(3))!;
      assertEquals(new TextDecoder().decode(data.subarray(0, 6)), "temp1\0");
    },
  },
];

/** The flags of the permissions that these purposes need. */
function flagsFor(needs: PermissionNeed[], things: string[]) {
  return needs.filter((need) => things.includes(need.for)).flatMap(({ flags }) => flags);
}

for (const { device, args, further, queues, use } of served) {
  Deno.test(`${device.name} works with exactly its documented permissions, and needs each`, () =>
    withDirectory(async (directory) => {
      const socket = `${directory}/device.sock`;
      const command = [device.name, `--socket-path=${socket}`, ...args(directory)];
      const permissions = [
        ...flagsFor(permissionsOf(device), ["always", "queue threads"]),
        ...further?.(directory) ?? [],
      ];
      {
        await using cli = new CliProcess(command, { permissions });
        await cli.until("listens");
        await using driver = await VirtioDriver.start(socket, { queues, inflight: true });
        await use(driver);
        cli.kill("SIGHUP");
        cli.kill("SIGUSR1");
        await cli.until("Errors  none");
        assertEquals((await cli.stop()).status, 0);
      }
      for (const missing of permissions) {
        const { status, stderr } = await runCli(command, {
          permissions: permissions.filter((flag) => flag !== missing),
        });
        assertEquals(status, 1, stderr);
        assertStringIncludes(stderr, missing.split("=")[0]);
      }
    }));
}

Deno.test("a queue thread that fails to load is reported, however long its device takes to open", () =>
  withDirectory(async (directory) => {
    const url = (path: string) => JSON.stringify(import.meta.resolve(path));
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", "--allow-ffi", "--ext=ts", "-"],
      env: { NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(`
      import { serve } from ${url("../../mod.ts")};
      import rng from ${url("../../backends/rng/mod.ts")};
      const open = () => new Promise((resolve) => setTimeout(() => resolve({}), 500));
      const socketPath = ${JSON.stringify(`${directory}/rng.sock`)};
      const server = await serve({ ...rng, open }, { socketPath });
      console.log(await server.host.ready.then(() => "ready", ({ message }) => message));
      await server.close().catch(() => {});
    `));
    await writer.close();
    const { code, stdout } = await child.output();
    assertStringIncludes(new TextDecoder().decode(stdout), "--allow-read");
    assertEquals(code, 0);
  }));

Deno.test("input needs --allow-read only for guest memory that can shrink", () =>
  withDirectory(async (directory) => {
    const socket = `${directory}/input.sock`;
    const [always, toRead] = ["always", "guest memory in files that can shrink"].map((thing) =>
      flagsFor(permissionsOf(input), [thing])
    );
    using memory = await Deno.open(`${directory}/memory`, {
      create: true,
      read: true,
      write: true,
    });
    await memory.truncate(1 << 20);
    using fd = openFile(`${directory}/memory`, { write: true });
    const region = { guestAddress: 0n, userAddress: 0n, mmapOffset: 0n, size: 1n << 20n };
    for (const permissions of [always, [...always, ...toRead]]) {
      await using cli = new CliProcess(["input", `--socket-path=${socket}`], { permissions });
      await cli.until("listens");
      await using connection = await FrontendConnection.connect(socket);
      await connection.setProtocolFeatures(await connection.getProtocolFeatures());
      const given = connection.tell({ request: "ADD_MEM_REG", region }, [fd.number]);
      if (permissions === always) await assertRejects(() => given, FrontendError);
      else await given;
      await connection.getFeatures(); // it continues either way
      await connection.close();
      assertEquals((await cli.stop()).status, 0);
    }
  }));

Deno.test("the control socket and the record need no further permissions", () =>
  withDirectory(async (directory) => {
    const socket = `${directory}/rng.sock`, control = `${directory}/control.sock`;
    const record = `${directory}/record.json`;
    const command = [
      ...["rng", `--socket-path=${socket}`, `--control-path=${control}`, `--record=${record}`],
    ];
    const permissions = flagsFor(permissionsOf(rng), ["always", "queue threads"]);
    await using cli = new CliProcess(command, { permissions });
    await cli.until("listens");
    const source = await openRecordSource(control);
    assertEquals((await source.read()).records[0].device.name, "rng");
    await expectInspection(control);
    assertEquals((await cli.stop()).status, 0);
    assertEquals(JSON.parse(Deno.readTextFileSync(record)).device.name, "rng");
  }));

/** Expects that `vhostd inspect` needs exactly the permissions in SECURITY.md. */
async function expectInspection(control: string): Promise<void> {
  const flags = [
    ...[`--allow-read=${control}`, `--allow-write=${control}`, `--allow-net=unix:${control}`],
  ];
  const inspect = (permissions: string[]) => runCli(["inspect", control], { permissions });
  const { status, stderr } = await inspect(flags);
  assertEquals([status, stderr], [0, ""]);
  for (
    const [fewer, named] of [
      [flags.slice(1), "--allow-read"],
      [flags.filter((flag) => !flag.startsWith("--allow-write")), "--allow-write"],
      [flags.slice(0, -1), "--allow-net"],
    ] as const
  ) {
    const { status, stderr } = await inspect(fewer);
    assertEquals(status, 1, stderr);
    assertStringIncludes(stderr, named);
  }
}

Deno.test("the environment is not read without permission, and no permission is prompted for", async () => {
  const permissions = flagsFor(permissionsOf(rng), ["always"]);
  const env = { VHOSTD_TRACE: "1", LISTEN_FDS: "1", LISTEN_PID: "1" };
  const { status, stderr } = await runCli(["rng"], { permissions, env });
  assertEquals([status, stderr.split("\n").length], [2, 2]);
  assertStringIncludes(stderr, "(which takes --allow-env=LISTEN_FDS,LISTEN_PID,LISTEN_FDNAMES)");
  const leave = flagsFor(permissionsOf(rng), ["a socket from systemd", "VHOSTD_TRACE=1"])
    .map((flag) => flag.split("=")[1]);
  const looked = await runCli(["rng"], {
    permissions: [...permissions, `--allow-env=${leave.join(",")}`],
    env,
  });
  assertStringIncludes(looked.stderr, "got LISTEN_PID=1");
  assert(looked.stderr.split("\n").length > 2, "with its stack");
});
