/**
 * Front-ends whose descriptors block the thread that closes them. Other front-ends, other devices,
 * the control socket and SIGTERM must not be affected.
 */
import { assert, assertEquals, assertLess } from "@std/assert";
import { type DeviceServer, serve } from "../../mod.ts";
import {
  type FrontendMessage,
  frontendMessages,
  protocolFeatureMask,
  UnixConnection,
  VirtioDriver,
} from "../../src/frontend/mod.ts";
import { type Fd, watchesEnded } from "../../src/linux/mod.ts";
import { MAX_STUCK, Quarantine } from "../../src/linux/quarantine.ts";
import { LingeringSockets } from "../../tools/fuzz/wire/lingering.ts";
import { CliProcess } from "./lib/cli_process.ts";
import echo from "./lib/echo_device.ts";

/** The most that the main thread may be blocked: less than a call's time limit. */
const MOST_AWAY_MS = 900;

/** The time until now without that for which this thread waited for a processor, in milliseconds. */
function servedMs(): number {
  // The times on a processor and waiting for one, in nanoseconds
  const [, waited] = Deno.readTextFileSync("/proc/thread-self/schedstat").split(" ").map(Number);
  return performance.now() - waited / 1e6;
}

/** Measures the longest time that the event loop was blocked. */
function watchLoop(): { stop(): number } {
  let most = 0;
  let last = servedMs();
  const turn = () => {
    const now = servedMs();
    most = Math.max(most, now - last);
    last = now;
  };
  const timer = setInterval(turn, 5);
  return {
    stop() {
      clearInterval(timer);
      turn();
      return most;
    },
  };
}

/** Attacks a device while another device serves a driver. */
async function attacked(
  attack: (path: string, sockets: LingeringSockets, server: DeviceServer) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  using sockets = new LingeringSockets();
  {
    await using other = await serve(echo, { socketPath: `${directory}/b`, plane: "main" });
    await using bystander = await VirtioDriver.start(`${directory}/b`);
    const server = await serve(echo, { socketPath: `${directory}/a`, plane: "main" });
    const loop = watchLoop();
    await attack(`${directory}/a`, sockets, server);
    assertEquals((await bystander.request(0, [Uint8Array.of(0, 6)], [2])).data[0][1], 6);
    await server.close();
    assertLess(loop.stop(), MOST_AWAY_MS);
    // Calls that are still stuck end with the sockets that block them.
    sockets[Symbol.dispose]();
    await server.host.quarantine.ended();
    assertEquals(other.record().errors.total, 0);
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
}

/** Sends a message with descriptors, and closes this process's own. */
async function give(
  connection: UnixConnection,
  message: FrontendMessage,
  fds: readonly Fd[],
  needReply = false,
): Promise<void> {
  await connection.send(
    frontendMessages.encode(message, { needReply }),
    fds.map(({ number }) => number),
  );
  for (const fd of fds) fd.close();
}

/** Waits until the record has an error with this text. */
async function recorded(server: DeviceServer, text: string): Promise<void> {
  while (!server.record().errors.latest.some(({ message }) => message.includes(text))) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

for (const count of [1, 200]) {
  Deno.test(`${count} lingering sockets with a message that takes none block no other front-end`, () =>
    attacked(async (path, sockets, server) => {
      const connection = UnixConnection.connect(path);
      const fds = Array.from({ length: count }, () => sockets.make());
      await give(connection, { request: "GET_FEATURES" }, fds);
      // The kernel drops descriptors for which there is no room, which may block.
      const { bytes } = await connection.receive(new Uint8Array(12));
      assertEquals(bytes, 0, "the connection is over");
      await connection.close();
      await server.idle();
      const { reason } = server.record().connections.latest.at(-1)!;
      assert(reason?.includes("receiving a message with file descriptors"), reason ?? "none");
      assertEquals(server.host.quarantine.stuck.length, 1);
      // The next front-end is served.
      await using next = await VirtioDriver.start(path);
      assertEquals((await next.request(0, [Uint8Array.of(0, 5)], [2])).data[0][1], 5);
    }));
}

Deno.test("A lingering socket in place of an eventfd is refused, and named in the record", () =>
  attacked(async (path, sockets, server) => {
    const connection = UnixConnection.connect(path);
    const answer = new Uint8Array(20);
    for (const request of ["SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR"] as const) {
      const message = { request, index: 0, noFd: false };
      await give(connection, message, [sockets.make()], true);
      await connection.receive(answer);
      assertEquals(answer[12], 1, "refused");
    }
    await recorded(server, "closing socket:[");
    // The connection continues.
    await give(
      connection,
      { request: "SET_PROTOCOL_FEATURES", value: protocolFeatureMask("MQ") },
      [],
    );
    await give(connection, { request: "GET_QUEUE_NUM" }, []);
    await connection.receive(answer);
    assertEquals(answer[12], 2);
    await connection.close();
    await server.idle();
    const names = server.host.quarantine.stuck;
    assert(names.every((name) => /^closing socket:\[\d+\]$/.test(name)), names.join());
  }));

Deno.test("Lingering sockets that were sent and not received do not block the end of a connection", () =>
  attacked(async (path, sockets, server) => {
    const connection = UnixConnection.connect(path);
    // A broken stream, with more messages than the device reads.
    await connection.send(new Uint8Array(12).fill(255));
    for (let i = 0; i < 8; i++) {
      await give(connection, { request: "SET_OWNER" }, [sockets.make()]).catch(() => {});
    }
    await connection.close();
    await server.idle();
  }));

Deno.test("A back-channel that contains lingering sockets does not block its close", () =>
  attacked(async (path, sockets, server) => {
    const [ours, theirs] = UnixConnection.pair();
    {
      await using driver = await VirtioDriver.start(path);
      await give(ours, { request: "GET_FEATURES" }, [sockets.make()]);
      await driver.connection.setBackendReqFd(theirs.fd);
      theirs[Symbol.dispose]();
      ours[Symbol.dispose]();
    }
    await server.idle();
    await recorded(server, "closing socket:[");
  }));

Deno.test("A front-end with too many stuck calls is disconnected, and the next one waits until they end", () =>
  attacked(async (path, sockets, server) => {
    const { quarantine } = server.host;
    const connection = UnixConnection.connect(path);
    for (let i = 0; i < 2 * MAX_STUCK; i++) {
      const request = { request: "SET_VRING_CALL", index: 0, noFd: false } as const;
      await give(connection, request, [sockets.make()]).catch(() => {});
    }
    assertEquals((await connection.receive(new Uint8Array(12))).bytes, 0);
    await connection.close();
    await server.idle();
    assert(quarantine.isFull);
    const { reason } = server.record().connections.latest.at(-1)!;
    assert(reason?.includes("blocked calls"), reason ?? "none");
    const next = VirtioDriver.start(path, { timeoutMs: 60_000 });
    sockets[Symbol.dispose]();
    await using driver = await next;
    assertEquals((await driver.request(0, [Uint8Array.of(0, 5)], [2])).data[0][1], 5);
  }));

Deno.test("A process with stuck calls answers its control socket, and SIGTERM ends it", async () => {
  const directory = Deno.makeTempDirSync();
  using sockets = new LingeringSockets();
  {
    await using vhostd = new CliProcess([
      "rng",
      `--socket-path=${directory}/s`,
      `--control-path=${directory}/c`,
    ]);
    await vhostd.until("listens on");
    const connection = UnixConnection.connect(`${directory}/s`);
    const waiting = UnixConnection.connect(`${directory}/s`);
    const request = { request: "SET_VRING_CALL", index: 0, noFd: false } as const;
    // If the other process closes them first, closing them here waits.
    const ours = new Quarantine();
    const send = async (connection: UnixConnection, message: FrontendMessage) => {
      const fd = sockets.make();
      await connection.send(frontendMessages.encode(message), [fd.number]);
      await ours.letGo([fd]).catch(() => {});
    };
    for (let i = 0; i < 4; i++) {
      await send(connection, { request: "GET_FEATURES" }).catch(() => {});
      await send(waiting, request);
    }
    using client = Deno.createHttpClient({
      proxy: { transport: "unix", path: `${directory}/c` },
    });
    const { errors } = await (await fetch("http://localhost/record", { client })).json();
    assert(errors.total >= 0);
    assertEquals((await vhostd.stop("SIGTERM")).status, 0);
    for (const one of [connection, waiting]) await one.close();
    sockets[Symbol.dispose]();
    await ours.ended();
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});

Deno.test({
  name: "A file whose FUSE server does not respond blocks only the thread that closes it",
  ignore: Deno.uid() !== 0, // mounts a file system
  async fn() {
    const directory = Deno.makeTempDirSync();
    Deno.mkdirSync(`${directory}/fuse`);
    const attacker = new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--quiet", "--allow-all"],
        new URL("./lib/fuse_frontend.ts", import.meta.url).pathname,
        ...[`${directory}/fuse`, `${directory}/s`],
      ],
      ...{ stdin: "piped", stdout: "piped", stderr: "inherit" },
    });
    {
      await using vhostd = new CliProcess([
        "rng",
        `--socket-path=${directory}/s`,
        `--control-path=${directory}/c`,
      ]);
      await vhostd.until("listens on");
      const child = attacker.spawn();
      const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
      let said = "";
      try {
        while (said.split("\n").length <= 5) {
          const { value, done } = await lines.read();
          assert(!done, said);
          said += value;
        }
        const answers = said.trim().split("\n").map((line) => JSON.parse(line));
        assertEquals(answers.map(({ request, payload }) => [request, payload[0]]), [
          ["GET_FEATURES", undefined],
          ["SET_VRING_KICK", 1],
          ["ADD_MEM_REG", 1],
          ["SET_INFLIGHT_FD", 1],
          ["SET_BACKEND_REQ_FD", 1],
        ]);
        using client = Deno.createHttpClient({
          proxy: { transport: "unix", path: `${directory}/c` },
        });
        const { errors } = await (await fetch("http://localhost/record", { client })).json();
        const names = (errors.latest as { message: string }[]).map(({ message }) => message);
        // An unexpected descriptor was never installed in the process, so it was not flushed.
        const stuck = names.filter((name) => name.includes("closing /"));
        assert(stuck.length >= 3, names.join("\n"));
        {
          await using driver = await VirtioDriver.start(`${directory}/s`);
          assertEquals((await driver.request(0, [], [8])).written, 8);
        }
        vhostd.kill("SIGTERM");
        // Only threads inside the kernel are left; they wait for the server.
        const state = () => Deno.readTextFileSync(`/proc/${vhostd.pid}/stat`).split(") ")[1][0];
        while (state() !== "Z") await new Promise((resolve) => setTimeout(resolve, 10));
      } finally {
        await child.stdin.close();
        await child.status;
        await lines.cancel();
      }
      assertEquals((await vhostd.end()).status, 0);
    }
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  },
});
