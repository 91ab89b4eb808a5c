/** `vhostd watch` on bad input, and with a QEMU that is none. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { findServed } from "../../src/cli/watch/control_client.ts";
import { Qmp, QmpError } from "../../src/cli/watch/qmp.ts";
import { makeFifo } from "../../src/linux/file/fifo.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { LyingSocket } from "./lib/lying_socket.ts";

const SOCKET_PATH = "/tmp/no such/blk.sock";

/** Instead of an answer that never comes. */
const SILENCE = Symbol();

/** Answers by command; undefined closes the connection. */
type Answers = (command: string, line: string) => unknown;

/** A QMP server with one device, whose answers may be changed. */
function fakeQemu(path: string, answers: Answers = () => null): Deno.Listener {
  const listener = Deno.listen({ transport: "unix", path });
  void serve(listener, answers);
  return listener;
}

async function serve(listener: Deno.Listener, answers: Answers): Promise<void> {
  for await (const connection of listener) {
    const send = (message: unknown) =>
      connection.write(new TextEncoder().encode(`${JSON.stringify(message)}\r\n`));
    await send({ QMP: { version: {}, capabilities: [] } });
    let rest = "";
    try {
      for await (const text of connection.readable.pipeThrough(new TextDecoderStream())) {
        const lines = (rest + text).split("\n");
        rest = lines.pop()!;
        for (const line of lines) {
          const { execute, arguments: given, id } = JSON.parse(line);
          const changed = answers(
            execute,
            String(given?.["command-line"] ?? given?.path ?? given?.enable ?? ""),
          );
          if (changed === undefined) return connection.close();
          if (changed === SILENCE) continue;
          const answer = changed ?? answerOf(execute, given);
          await send(
            answer === undefined ? { error: { desc: "none" }, id } : {
              return: answer,
              id,
            },
          );
        }
      }
    } catch {
      // The other side has ended
    }
  }
}

function answerOf(command: string, given: Record<string, string>): unknown {
  switch (command) {
    case "query-chardev":
      return [{ label: "c", filename: `unix:${SOCKET_PATH}` }];
    case "qom-list":
      if (given.path === "/machine/peripheral") return [{ name: "d", type: "child<blk>" }];
      return given.path.endsWith("/d") ? [{ name: "virtio-backend", type: "" }] : undefined;
    case "qom-get":
      return { chardev: "c", parent_bus: "/machine/peripheral/d/virtio-bus" }[given.property];
    case "human-monitor-command":
      return "";
    default:
      return {};
  }
}

/** A control socket of a device that QEMU uses. */
function fakeDevice(path: string, status = 200, pid?: number): Deno.HttpServer {
  return Deno.serve({ transport: "unix", path, onListen() {} }, (request) => {
    if (request.method === "POST") {
      return Response.json(status === 200 ? {} : { error: "one is attached already" }, { status });
    }
    return Response.json(
      new URL(request.url).pathname === "/record"
        ? { connections: { latest: pid === undefined ? [] : [{ frontend: { pid } }] } }
        : { device: { name: "blk" }, socketPath: SOCKET_PATH },
    );
  });
}

Deno.test("bad arguments of vhostd watch get one line and status 2", async () => {
  const directory = Deno.makeTempDirSync();
  const file = `${directory}/file`;
  Deno.writeTextFileSync(file, "");
  for (
    const [args, expected] of [
      [[], "Expected --qmp=PATH"],
      [["--qmp"], "--qmp"],
      [["--qnp=/x"], "Unknown flag --qnp; did you mean --qmp"],
      [[`--qmp=${file}`, `${directory}/none`], "found nothing at"],
      [[`--qmp=${file}`, file], "got a file"],
    ] as const
  ) {
    const { status, stderr, stdout } = await runCli(["watch", ...args]);
    assertEquals([status, stdout, stderr.trim().split("\n").length], [2, "", 1], stderr);
    assertStringIncludes(stderr, expected);
  }
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("what is no QEMU, or not the right one, gets one line and status 1", async () => {
  const directory = Deno.makeTempDirSync();
  const at = (name: string) => `${directory}/${name}`;
  Deno.writeTextFileSync(at("file"), "");
  await using stack = new AsyncDisposableStack();
  stack.use(fakeDevice(at("blk.ctl")));
  stack.use(fakeDevice(at("held.ctl"), 400));
  const qemu = (name: string, answers?: Answers) => stack.use(fakeQemu(at(name), answers));
  qemu("without", (command) => command === "query-chardev" ? [] : null);
  qemu("untraced", (command) => command === "trace-event-get-state" ? [] : null);
  qemu(
    "mute",
    (command) => command === "trace-event-get-state" ? [{ state: "unavailable" }] : null,
  );
  qemu("odd", (command) => command === "query-chardev" ? { label: 1 } : null);
  qemu("mumbles", (command) => command === "human-monitor-command" ? 7 : null);
  stack.use(
    new LyingSocket(at("liar.ctl"), { "/": () => ['{"device":{"name":"x"},"instances":7}'] }),
  );
  const traced = (command: string) =>
    command === "trace-event-get-state" ? [{ state: "disabled" }] : null;
  qemu("refuses", (command, line) => line.startsWith("logfile") ? "no room\r\n" : traced(command));
  qemu("dies", (command, line) => line.startsWith("info network") ? undefined : traced(command));
  const other = stack.use(Deno.listen({ transport: "unix", path: at("other") }));
  void (async () => {
    for await (const connection of other) {
      await connection.write(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"));
      connection.close();
    }
  })();
  for (
    const [qmp, device, expected] of [
      ["none", "blk.ctl", "there is nothing"],
      ["file", "blk.ctl", "nothing listens there"],
      ["other", "blk.ctl", "Expected JSON from QMP"],
      ["without", "blk.ctl", "Expected a QEMU with vhost-user devices"],
      ["odd", "blk.ctl", "Expected a list as what QEMU answers to query-chardev"],
      ["mumbles", "blk.ctl", "Expected a text as what QEMU answers to info network"],
      ["untraced", "other", "Expected a control socket"],
      ["untraced", "liar.ctl", "Expected a list as instances, got 7"],
      ["untraced", "held.ctl", "one is attached already"],
      ["untraced", "blk.ctl", "Expected a QEMU with the trace event memory_region_ops_read"],
      ["mute", "blk.ctl", "Expected a QEMU with the trace event memory_region_ops_read"],
      ["refuses", "blk.ctl", "no room"],
      ["dies", "blk.ctl", "QEMU has closed the connection"],
    ]
  ) {
    const { status, stderr } = await runCli(["watch", `--qmp=${at(qmp)}`, at(device)]);
    assertEquals([status, stderr.trim().split("\n").length], [1, 1], stderr);
    assertStringIncludes(stderr, expected);
  }
  await stack.disposeAsync();
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("a QEMU that does not answer is waited for a limited time", async () => {
  const directory = Deno.makeTempDirSync();
  using _qemu = fakeQemu(`${directory}/qmp`, (command) => command === "x" ? SILENCE : null);
  await using qmp = await Qmp.connect(`${directory}/qmp`, 3000);
  await assertRejects(() => qmp.execute("x"), QmpError, "QEMU does not answer within 3 s");
  assertEquals(await qmp.execute("y"), {});
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("control sockets of other users count only where others cannot make any", async () => {
  const directory = Deno.makeTempDirSync();
  await using _own = fakeDevice(`${directory}/own.ctl`);
  await using _other = fakeDevice(`${directory}/other.ctl`);
  Deno.chownSync(`${directory}/other.ctl`, 4711, 4711);
  assertEquals((await findServed([], [directory])).length, 2);
  Deno.chmodSync(directory, 0o1777);
  assertEquals((await findServed([], [directory])).length, 1);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("a watch that was killed leaves nothing once there was another; one that runs is left alone", async () => {
  const directory = Deno.makeTempDirSync();
  const left = Deno.makeTempDirSync({ prefix: "vhostd-watch-" });
  // This process is QEMU, whose log goes to the FIFO of the first watch
  await using _device = fakeDevice(`${directory}/blk.ctl`, 200, Deno.pid);
  const said: string[] = [];
  using _qemu = fakeQemu(`${directory}/qmp`, (command, line) => {
    if (command === "trace-event-set-state") said.push(line);
    return command === "trace-event-get-state" ? [{ state: "enabled" }] : null;
  });
  const start = () => new CliProcess(["watch", `--qmp=${directory}/qmp`, `${directory}/blk.ctl`]);
  const { fd: both } = makeFifo(`${left}/trace`);
  {
    await using cli = start();
    await cli.until("Expected a QEMU without another watch");
    assertEquals((await cli.end()).status, 1);
  }
  using _log = await Deno.open(`${left}/trace`, { write: true });
  both.close();
  await using cli = start();
  await cli.until("watches blk");
  assertEquals((await cli.stop("SIGHUP")).status, 0);
  assertEquals(said, Array.from({ length: 6 }, (_, i) => i < 3 ? "true" : "false"));
  assertEquals(await Deno.stat(left).catch(() => undefined), undefined);
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("a watch ends with QEMU, and ends on SIGINT after it put QEMU's log back", async () => {
  const directory = Deno.makeTempDirSync();
  await using _device = fakeDevice(`${directory}/blk.ctl`);
  const said: string[] = [];
  using _qemu = fakeQemu(`${directory}/qmp`, (command, line) => {
    if (line.startsWith("logfile")) said.push(line);
    return command === "trace-event-get-state" ? [{ state: "disabled" }] : null;
  });
  await using cli = new CliProcess(["watch", `--qmp=${directory}/qmp`, `${directory}/blk.ctl`]);
  assertStringIncludes(await cli.until("watches blk"), "its process is not known");
  // The trace of QEMU 5.2
  const fifo = said[0].split(" ")[1];
  Deno.writeTextFileSync(fifo, "1@1.5:memory_region_ops_read cpu -1 mr 0x5 addr 0xfec0 size 4\n");
  await cli.until("does not name the regions");
  assertEquals((await cli.stop("SIGINT")).status, 0);
  assertEquals([said.length, said[1]], [2, "logfile /dev/stderr"]);
  Deno.removeSync(directory, { recursive: true });
});
