import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import rng from "../../backends/rng/mod.ts";
import { activatedSocket, type Environment } from "../../src/cli/activation.ts";
import { permissionsOf } from "../../src/cli/permissions.ts";
import { UsageError } from "../../src/cli/usage_error.ts";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { UnixConnection, UnixListener } from "../../src/linux/mod.ts";
import { activation } from "./lib/activation.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";

/** Environment variables apart from this process's. */
function environment(
  variables: Record<string, string>,
): Environment & { left: Map<string, string> } {
  const left = new Map(Object.entries(variables));
  return { left, get: (name) => left.get(name), delete: (name) => left.delete(name) };
}

/** A listening socket and its path, removed at the end of the block. */
function listening(): { listener: UnixListener; path: string } & Disposable {
  const directory = Deno.makeTempDirSync({ prefix: "vhostd-activation-" });
  const path = `${directory}/device.sock`;
  const listener = UnixListener.listen(path);
  return {
    path,
    listener,
    [Symbol.dispose]() {
      listener[Symbol.dispose]();
      Deno.removeSync(directory, { recursive: true });
    },
  };
}

Deno.test("vhostd serves on the socket that systemd passes, and leaves its file", async () => {
  using socket = listening();
  const needs = permissionsOf(rng).filter((need) =>
    ["always", "queue threads", "a socket from systemd"].includes(need.for)
  );
  await using cli = new CliProcess(["rng"], {
    permissions: needs.flatMap(({ flags }) => flags),
    env: { LISTEN_FDS: "1", LISTEN_FDNAMES: "rng.socket" },
    through: activation([socket.listener.fd]),
  });
  await cli.until("rng serves on file descriptor 3");
  for (let i = 0; i < 2; i++) {
    await using driver = await VirtioDriver.start(socket.path);
    assertEquals((await driver.request(0, [], [16])).written, 16);
  }
  assertEquals(await cli.stop(), { status: 0, stderr: "" });
  // Like systemd's, the socket stays for the next process.
  UnixConnection.connect(socket.path)[Symbol.dispose]();
});

Deno.test("vhostd serves the one connection that systemd accepted", async () => {
  const [ours, theirs] = UnixConnection.pair();
  await using cli = new CliProcess(["rng"], {
    env: { LISTEN_FDS: "1" },
    through: activation([theirs.fd]),
  });
  theirs[Symbol.dispose]();
  {
    await using driver = await VirtioDriver.start(ours);
    assertEquals((await driver.request(0, [], [16])).written, 16);
  }
  await cli.until("serves");
  assertEquals(await cli.end(), { status: 0, stderr: "" });
});

Deno.test("a device's children have neither the socket nor the variables", async () => {
  using socket = listening();
  const root = new URL("../../", import.meta.url).href;
  const module = `${socket.path}.ts`;
  await Deno.writeTextFile(
    module,
    `import { defineDevice } from "${root}mod.ts";
    export default defineDevice({
      name: "mine", deviceId: 42, about: "Mine", module: import.meta.url,
      queues: { q: { about: "Requests" } },
      open({ log }) {
        const { stdout } = new Deno.Command("sh", {
          args: ["-c", "echo vars: $(env | grep LISTEN_); readlink /proc/$$/fd/3; echo end"],
        }).outputSync();
        log(new TextDecoder().decode(stdout));
        return {};
      },
      handlers: () => ({ queues: { q: () => 0 } }),
    });`,
  );
  await using cli = new CliProcess([module], {
    env: { LISTEN_FDS: "1", LISTEN_FDNAMES: "a" },
    through: activation([socket.listener.fd]),
  });
  assertStringIncludes(await cli.until("\n"), "mine: vars: end");
  await cli.until("mine serves on file descriptor 3");
});

Deno.test("flags override a socket from systemd", async () => {
  using socket = listening();
  const path = `${socket.path}.own`;
  await using cli = new CliProcess(["rng", `--socket-path=${path}`], {
    env: { LISTEN_FDS: "1" },
    through: activation([socket.listener.fd]),
  });
  await cli.until(`listens on ${path}`);
});

Deno.test("vhostd says what it expected from systemd", async () => {
  using socket = listening();
  const { fd } = socket.listener;
  using other = UnixListener.listen(`${socket.path}.other`);
  const cases = [
    [{ LISTEN_FDS: "1" }, [fd], "1", 2, "got LISTEN_PID=1; have systemd start deno itself"],
    [
      { LISTEN_FDS: "2", LISTEN_FDNAMES: "a:b" },
      [fd, other.fd],
      "$$",
      2,
      "got 2 (a, b); give each",
    ],
    [{ LISTEN_FDS: "1" }, [], "$$", 1, "descriptor 3"],
  ] as const;
  for (const [env, sockets, pid, status, line] of cases) {
    const through = sockets.length > 0
      ? activation(sockets, pid)
      : ["bash", "-c", `export LISTEN_PID=$$; exec "$@" 3</dev/null`, "bash"];
    const result = await runCli(["rng"], { env, through });
    assertEquals(result.status, status, result.stderr);
    assertStringIncludes(result.stderr, line);
  }
});

Deno.test("activatedSocket() deletes the variables, whatever their values", () => {
  assertEquals(activatedSocket(environment({}), 7), undefined);
  assertEquals(activatedSocket(environment({ LISTEN_PID: "7" }), 7), undefined);
  for (const count of ["", "0", "-1", "x", "1.5", "1e9", "99999999999999999999"]) {
    const env = environment({ LISTEN_FDS: count, LISTEN_PID: "7", LISTEN_FDNAMES: "a", HOME: "/" });
    assertThrows(() => activatedSocket(env, 7), UsageError, `to be 1 to 1024, got ${count}`);
    assertEquals([...env.left.keys()], ["HOME"]);
  }
});
