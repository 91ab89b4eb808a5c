import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import rng from "../../backends/rng/mod.ts";
import { type DeviceServer, EndpointError, serve } from "../../mod.ts";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { UnixListener, watchesEnded } from "../../src/linux/mod.ts";
import { LAST_RETRY_MS, retryDelayMs } from "../../src/runtime/connector.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import echo, { Answer } from "./lib/echo_device.ts";

/** Runs a test with a path for a socket, and expects that nothing leaks. */
async function withPath(test: (path: string) => Promise<void>): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "vhostd-connect-" });
  try {
    await test(`${directory}/frontend.sock`);
    await watchesEnded();
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** A device that connects to a path, and its log lines. */
async function connecting(
  connectPath: string,
): Promise<{ server: DeviceServer; said: (line: string) => Promise<void>; lines: string[] }> {
  const lines: string[] = [];
  let onLine = () => {};
  const server = await serve(echo, {
    connectPath,
    plane: "main",
    log(line) {
      lines.push(line);
      onLine();
    },
  });
  async function said(text: string): Promise<void> {
    while (!lines.some((line) => line.includes(text))) {
      await new Promise<void>((resolve) => onLine = resolve);
    }
  }
  return { server, said, lines };
}

/** Listens as a front-end does, takes one connection, and starts a driver on it. */
async function acceptDriver(path: string): Promise<VirtioDriver> {
  using listener = UnixListener.listen(path);
  const connection = await listener.accept();
  Deno.removeSync(path);
  return await VirtioDriver.start(connection!, { queues: [16, 16] });
}

async function expectEcho(driver: VirtioDriver, byte: number): Promise<void> {
  const { data } = await driver.request(0, [Uint8Array.of(Answer.NOW, byte)], [2]);
  assertEquals([...data[0]], [Answer.NOW, byte]);
}

Deno.test("a device connects once a front-end listens, and reconnects when it is gone", () =>
  withPath(async (path) => {
    const { server, said, lines } = await connecting(path);
    await using _server = server;
    await said("Waits");
    for (let round = 1; round <= 3; round++) {
      await using driver = await acceptDriver(path);
      await expectEcho(driver, round);
    }
    // The connection may have ended before the device noticed it.
    while (
      server.record().connections.latest.some(({ disconnectedAt }) => disconnectedAt === null)
    ) {
      await server.idle();
    }
    assertEquals(server.record().connections.total, 3);
    const connected = lines.filter((line) => line === `Connected to the front-end on ${path}`);
    assertEquals(connected.length, 3);
    assertEquals(lines[0], `Waits for a front-end on ${path}: there is no socket yet`);
    // It logs this once each time, however often it retries.
    const waits = lines.filter((line) => line.startsWith("Waits"));
    assert(waits.length <= 4, lines.join("\n"));
  }));

Deno.test("a device waits while no process listens on the socket", () =>
  withPath(async (path) => {
    UnixListener.listen(path).fd.close();
    const { server, said } = await connecting(path);
    await using _server = server;
    await said("it has no listener yet");
    Deno.removeSync(path);
    await using driver = await acceptDriver(path);
    await expectEcho(driver, 1);
  }));

Deno.test("close() ends a device that waits, or whose front-ends close at once", () =>
  withPath(async (path) => {
    {
      const { server, said } = await connecting(path);
      await said("Waits");
      await server.close();
    }
    using listener = UnixListener.listen(path);
    const { server } = await connecting(path);
    for (let i = 0; i < 3; i++) await (await listener.accept())!.close();
    await server.close();
    await server.finished;
  }));

Deno.test("serve() says what is wrong with a path to connect to", () =>
  withPath(async (path) => {
    await assertRejects(
      () => serve(rng, { connectPath: `/tmp/${"x".repeat(110)}`, plane: "main" }),
      EndpointError,
      "107 bytes",
    );
    await using server = await serve(rng, { connectPath: `${path}/x`, plane: "main" });
    Deno.writeTextFileSync(path, ""); // a file where a directory should be
    const error = await assertRejects(() => server.finished, EndpointError);
    assertStringIncludes(error.message, `Cannot connect to ${path}/x: `);
  }));

Deno.test("retryDelayMs() doubles up to its limit, less a random part of up to a half", () => {
  for (let failures = 1; failures < 2000; failures++) {
    const longest = retryDelayMs(failures, 0);
    assert(longest <= LAST_RETRY_MS && longest >= retryDelayMs(Math.max(failures - 1, 1), 0));
    assertEquals(retryDelayMs(failures, 0.5), longest * 0.75);
    assert(retryDelayMs(failures, 1 - Number.EPSILON) >= longest / 2);
  }
});

Deno.test("vhostd --connect waits, serves, and ends by SIGTERM at any moment", () =>
  withPath(async (path) => {
    {
      await using cli = new CliProcess(["rng", `--connect=${path}`]);
      // It connects when its threads run, which may be before or after it logs its state.
      const said = await cli.until("\n") + await cli.until("\n");
      assertStringIncludes(said, "rng: Waits for a front-end");
      assertStringIncludes(
        said,
        `rng connects to ${path}; QEMU 7.2 or later: -chardev socket,id=rng,path=${path},server=on -device`,
      );
      assertEquals(await cli.stop(), { status: 0, stderr: "" });
    }
    using listener = UnixListener.listen(path);
    await using cli = new CliProcess(["rng", `--connect=${path}`]);
    const driver = await VirtioDriver.start((await listener.accept())!);
    assertEquals((await driver.request(0, [], [16])).written, 16);
    const said = await cli.until("\n") + await cli.until("\n");
    assertStringIncludes(said, "rng connects to");
    assertStringIncludes(said, "rng: Connected to the front-end");
    assertEquals(await cli.stop(), { status: 0, stderr: "" });
    await driver.close();
    assert(Deno.lstatSync(path).isSocket, "the front-end's socket is left alone");
  }));

Deno.test("vhostd --connect ends with an error that no retry can remedy", () =>
  withPath(async (path) => {
    Deno.writeTextFileSync(path, "");
    const { status, stderr } = await runCli(["rng", `--connect=${path}/x`]);
    assertEquals(status, 1);
    assertStringIncludes(stderr, `Cannot connect to ${path}/x: connect: Not a directory`);
  }));
