import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { libc } from "../../src/linux/libc.ts";
import { type Fd, UnixConnection, UnixListener } from "../../src/linux/mod.ts";
import type { RecordJson } from "../../src/runtime/record.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { temporaryDirectory } from "./lib/directory.ts";

const F_SETFD = 2;

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Leaves a stale socket file. */
function makeStale(path: string): void {
  UnixListener.listen(path).fd.close();
  assert(exists(path));
}

/** Makes a descriptor inheritable by children. */
function inheritable(fd: Fd): number {
  assertEquals(libc.fcntl(fd.number, F_SETFD, 0), 0);
  return fd.number;
}

Deno.test("vhostd <device> prints QEMU's arguments, and ends cleanly on signals", async () => {
  using directory = temporaryDirectory();
  const path = `${directory.path}/rng.sock`;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    await using cli = new CliProcess(["rng", `--socket-path=${path}`]);
    const line = await cli.until("\n");
    assertStringIncludes(line, `vhostd: rng listens on ${path}`);
    assertStringIncludes(line, `-chardev socket,id=rng,path=${path}`);
    assertStringIncludes(line, "-device vhost-user-rng-pci,chardev=rng");
    assertStringIncludes(line, "-object memory-backend-memfd,");
    assert(exists(path));
    assertEquals(await cli.stop(signal), { status: 0, stderr: "" });
    assert(!exists(path));
  }
});

Deno.test("vhostd under npx says how to end it, and how to start it without npx", async () => {
  using directory = temporaryDirectory();
  const socket = `--socket-path=${directory.path}/a b.sock`;
  const env = { VHOSTD_TASK: "1", npm_command: "exec" };
  await using cli = new CliProcess(["rng", socket], { env });
  await cli.until("listens");
  const line = await cli.until("\n");
  assertStringIncludes(line, `end this process by kill ${cli.pid}. Without npx it is `);
  assertStringIncludes(line, `main.ts rng '${socket}'`);
  assertEquals(await cli.stop(), { status: 0, stderr: "" });
});

Deno.test("vhostd ends cleanly while a front-end is connected", async () => {
  using directory = temporaryDirectory();
  const path = `${directory.path}/rng.sock`;
  await using cli = new CliProcess(["rng", `--socket-path=${path}`]);
  await cli.until("\n");
  using _connection = UnixConnection.connect(path);
  assertEquals(await cli.stop(), { status: 0, stderr: "" });
  assert(!exists(path));
});

Deno.test("vhostd replaces a stale socket file, and not one with a listener", async () => {
  using directory = temporaryDirectory();
  const path = `${directory.path}/rng.sock`;
  makeStale(path);
  await using cli = new CliProcess(["rng", `--socket-path=${path}`]);
  await cli.until("listens");
  const second = await runCli(["rng", `--socket-path=${path}`]);
  assertEquals(second.status, 1);
  assertMatch(
    second.stderr,
    /^vhostd: Cannot listen on .*: another server is listening there.*\n$/,
  );
  assertEquals((await cli.stop()).status, 0);
});

Deno.test("vhostd reports bad input in one line", async () => {
  using directory = temporaryDirectory();
  const { path } = directory;
  const socket = `--socket-path=${path}/s.sock`;
  await Deno.writeTextFile(`${path}/file`, "not JSON");
  await Deno.create(`${path}/huge`).then((file) => (file.truncateSync(2 ** 30), file.close()));
  await Deno.writeTextFile(`${path}/other.json`, "{}");
  await Deno.writeTextFile(`${path}/nothing.ts`, "export default 1;");
  await Deno.writeTextFile(`${path}/broken.ts`, "throw new Error('no\\nluck');");
  const cases: [args: string[], status: number, line: string][] = [
    [[], 2, "Expected a device or a command; vhostd --help lists them"],
    [["rgn"], 2, "Unknown device rgn; did you mean rng?"],
    [["lsit"], 2, "Unknown device lsit; did you mean list?"],
    [["network"], 2, "Unknown device network; there are blk, input, net, rng, sensor,"],
    [["--hlep"], 2, "got --hlep; did you mean --help?"],
    [["rng"], 2, "Expected --socket-path, --connect or --fd, or a socket from systemd, got none"],
    [["rng", socket, "--fd=3"], 2, "--connect and --fd, got --socket-path and --fd"],
    [["rng", "--connect=/x", "--fd=3"], 2, "--connect and --fd, got --connect and --fd"],
    [["rng", `--connect=/tmp/${"x".repeat(103)}`], 1, "of 1 to 107 bytes, got 108"],
    [["rng", "--sokcet-path=x"], 2, "Unknown flag --sokcet-path; did you mean --socket-path?"],
    [["rng", "--socket-path"], 2, "Expected a value after --socket-path"],
    [["blk", "--socket=x"], 2, "Unknown flag --socket; did you mean --socket-path?"],
    [
      ["blk", socket, "--size=1M", "--cache=none"],
      2,
      "--cache=none is for a file, a block device or",
    ],
    [["rng", socket, "--period=5"], 2, "--period has no effect without --max-bytes; leave it out"],
    [["input", socket, "--threads=2"], 2, "Unknown flag --threads"],
    [["rng", socket, "more"], 2, "Expected only flags after rng, got more"],
    [
      ["rng", socket, "--max-bytes=2Q"],
      2,
      '--max-bytes takes a size such as 4096, 512M or 1G, got "2Q"',
    ],
    [["rng", socket, "--threads=0"], 2, "--threads takes 1 to 256, got 0"],
    [["rng", "--fd=three"], 2, '--fd takes a whole number, got "three"'],
    [
      ["rng", "--fd=99"],
      1,
      "Expected file descriptor 99 to be a Unix stream socket; it is not open",
    ],
    [
      ["rng", "--fd=0"],
      1,
      "Expected file descriptor 0 to be a Unix stream socket; it is not a socket",
    ],
    [["rng", `--socket-path=/tmp/${"x".repeat(103)}`], 1, "of 1 to 107 bytes, got 108"],
    [["rng", `--socket-path=${path}/no/s.sock`], 1, "its directory does not exist"],
    [["rng", `--socket-path=${path}/file`], 1, "it exists and is not a socket"],
    [["rng", socket, `--control-path=${path}/file`], 1, "it exists and is not a socket"],
    [["rng", socket, `--record=${path}/no/r.json`], 1, "Cannot write the record to "],
    [["blk", socket, `--blk-file=${path}/no.img`], 1, `${path}/no.img`],
    [[`${path}/no.ts`, socket], 1, `Cannot load the device ${path}/no.ts: Module not found`],
    [[`${path}/broken.ts`, socket], 1, "no luck"],
    [[`${path}/nothing.ts`, socket], 1, "Expected a device as the default export"],
    [["describe"], 2, "Expected one device to describe, got none"],
    [
      ["describe", "--libvirt", "--binary=x", "rng"],
      2,
      "Expected an absolute path as --binary, got x",
    ],
    [["inspect", "/dev/zero"], 1, "record file at /dev/zero, got a device or a pipe"],
    [["inspect", path], 1, "got a directory"],
    [["inspect", `${path}/huge`], 1, "Expected a record of at most 67108864 bytes"],
    [["inspect"], 2, "Expected the path of a control socket or a record file, got none"],
    [["inspect", `${path}/none`], 1, "found nothing at"],
    [["inspect", `${path}/file`], 1, "Expected the JSON of a record in"],
    [["inspect", `${path}/other.json`], 1, "got other JSON"],
  ];
  // A few at a time: each is a process.
  for (let i = 0; i < cases.length; i += 4) {
    const some = cases.slice(i, i + 4);
    const results = await Promise.all(
      some.map(([args], j) => runCli(args.map((arg) => arg === socket ? `${arg}${i + j}` : arg))),
    );
    some.forEach(([args, status, line], j) => {
      const result = results[j];
      const told = `vhostd ${args.join(" ")}: ${JSON.stringify(result)}`;
      assertEquals(result.status, status, told);
      assertMatch(result.stderr, /^vhostd: [^\n]*\n$/, told);
      assertStringIncludes(result.stderr, line, told);
      assertEquals(result.stdout, "", told);
    });
  }
  const left = [...Deno.readDirSync(path)].filter(({ name }) => name.includes("sock"));
  assertEquals(left, [], "Sockets are left behind");
});

Deno.test("vhostd names a missing permission", async () => {
  using directory = temporaryDirectory();
  const args = ["rng", `--socket-path=${directory.path}/s.sock`];
  const { status, stderr } = await runCli(args, { permissions: [] });
  assertEquals(status, 1, stderr);
  assertMatch(stderr, /^vhostd: [^\n]*--allow-ffi[^\n]*\n$/);
});

Deno.test("VHOSTD_TRACE=1 prints the stack after the message", async () => {
  const { stderr } = await runCli(["rng", "--fd=99"], { env: { VHOSTD_TRACE: "1" } });
  assertMatch(stderr, /^vhostd: Expected file descriptor 99 .*\n.*EndpointError(.|\n)* at /);
});

Deno.test("vhostd serves one connection after another on an inherited listening socket", async () => {
  using directory = temporaryDirectory();
  const path = `${directory.path}/rng.sock`;
  using listener = UnixListener.listen(path);
  await using cli = new CliProcess(["rng", `--fd=${inheritable(listener.fd)}`]);
  assertStringIncludes(await cli.until("\n"), `serves on file descriptor ${listener.fd.number}`);
  for (let i = 0; i < 2; i++) await getFeatures(UnixConnection.connect(path));
  assertEquals((await cli.stop()).status, 0);
});

Deno.test("vhostd on an inherited connection ends with it", async () => {
  const [ours, theirs] = UnixConnection.pair();
  await using cli = new CliProcess(["rng", `--fd=${inheritable(theirs.fd)}`]);
  theirs[Symbol.dispose]();
  await cli.until("serves");
  await getFeatures(ours);
  assertEquals(await cli.end(), { status: 0, stderr: "" });
});

Deno.test("vhostd without free descriptors keeps front-ends waiting until it has some", async () => {
  using directory = temporaryDirectory();
  const path = `${directory.path}/rng.sock`;
  await using cli = new CliProcess(["rng", `--socket-path=${path}`]);
  await cli.until("listens");
  // Once a ring runs, all modules are loaded.
  await (await VirtioDriver.start(path)).close();
  const limit = (descriptors: number) =>
    new Deno.Command("prlimit", { args: [`--pid=${cli.pid}`, `--nofile=${descriptors}:4096`] })
      .output();
  await limit(3);
  let answered = false;
  const waiting = getFeatures(UnixConnection.connect(path)).then(() => answered = true);
  await Promise.race([waiting, new Promise((resolve) => setTimeout(resolve, 200))]);
  assertEquals(answered, false);
  await limit(4096);
  await waiting;
  assertEquals(await cli.stop(), { status: 0, stderr: "" });
});

/** Asks for the features that the device offers, and closes the connection. */
async function getFeatures(connection: UnixConnection): Promise<void> {
  const request = new Uint8Array(12);
  request.set([1, 0, 0, 0, 1]); // GET_FEATURES, version 1
  await connection.send(request);
  const { bytes } = await connection.receive(new Uint8Array(20));
  assertEquals(bytes, 20);
  await connection.close();
}

Deno.test("--record writes the record at exit, and vhostd inspect shows it", async () => {
  using directory = temporaryDirectory();
  const path = `${directory.path}/rng.sock`;
  const file = `${directory.path}/record.json`;
  {
    await using cli = new CliProcess(["rng", `--socket-path=${path}`, `--record=${file}`]);
    await cli.until("listens");
    await getFeatures(UnixConnection.connect(path));
    assertEquals((await cli.stop()).status, 0);
  }
  const record: RecordJson = JSON.parse(await Deno.readTextFile(file));
  assertEquals(record.version, 1);
  assertEquals(record.connections.latest[0].messages, 1);
  assertEquals(record.connections.latest[0].frontend?.pid, Deno.pid);
  const { status, stdout, stderr } = await runCli(["inspect", file]);
  assertEquals([status, stderr], [0, ""]);
  assertMatch(stdout, /^rng {2}Entropy from the host \(virtio device 4\)\n/);
  assertStringIncludes(stdout, `pid ${Deno.pid}`);
});

Deno.test("the control socket serves the record, and vhostd inspect shows it", async () => {
  using directory = temporaryDirectory();
  const [path, control] = [`${directory.path}/rng.sock`, `${directory.path}/control.sock`];
  makeStale(control);
  await using cli = new CliProcess(["rng", `--socket-path=${path}`, `--control-path=${control}`]);
  await cli.until("listens");
  assertEquals(Deno.statSync(control).mode! & 0o777, 0o600);

  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: control } });
  const record: RecordJson = await (await fetch("http://localhost/record", { client })).json();
  assertEquals([record.version, record.device.name], [1, "rng"]);

  const text = await runCli(["inspect", control]);
  assertEquals([text.status, text.stderr], [0, ""]);
  assertMatch(text.stdout, /^rng {2}Entropy from the host/);
  const json = await runCli(["inspect", "--json", control]);
  assertEquals(JSON.parse(json.stdout).device, record.device);

  const wrong = await runCli(["inspect", path]);
  assertEquals(wrong.status, 1);
  assertMatch(wrong.stderr, /^vhostd: Expected a control socket that answers at [^\n]*\n$/);

  assertEquals((await cli.stop()).status, 0);
  assert(!exists(control));
});

Deno.test("vhostd inspect --watch shows the record repeatedly until the server ends", async () => {
  using directory = temporaryDirectory();
  const [path, control] = [`${directory.path}/rng.sock`, `${directory.path}/control.sock`];
  await using cli = new CliProcess(["rng", `--socket-path=${path}`, `--control-path=${control}`]);
  await cli.until("listens");
  await using watch = new CliProcess(["inspect", "--watch", "--json", control]);
  const shows = async (text: string) => {
    for (let shown = ""; !shown.includes(text);) {
      const piece = await watch.readStdout();
      assert(piece !== undefined, shown);
      shown += piece;
    }
  };
  await shows('"connections":{"total":0');
  await getFeatures(UnixConnection.connect(path));
  await shows('"connections":{"total":1');
  assertEquals((await cli.stop()).status, 0);
  assertEquals((await watch.end()).status, 0);
});

Deno.test("SIGUSR1 prints the record, and SIGHUP does not end vhostd", async () => {
  using directory = temporaryDirectory();
  await using cli = new CliProcess(["rng", `--socket-path=${directory.path}/rng.sock`]);
  await cli.until("listens");
  cli.kill("SIGHUP");
  await cli.until("has nothing to reload on SIGHUP");
  cli.kill("SIGUSR1");
  assertStringIncludes(await cli.until("Errors  none"), "\nQueues  ");
  assertEquals((await cli.stop()).status, 0);
});

Deno.test("vhostd serves a device from a module, and says why one does not load", async () => {
  using directory = temporaryDirectory();
  const root = new URL("../../", import.meta.url).href;
  const device = (handlers: string) => `
    import { defineDevice } from "${root}mod.ts";
    export default defineDevice({
      name: "my-device",
      deviceId: 38,
      about: "Mine",
      module: import.meta.url,
      queues: { q: { about: "Requests" } },
      handlers() { ${handlers} },
    });`;
  const file = `${directory.path}/my_device.ts`;
  const socket = `--socket-path=${directory.path}/s.sock`;
  await Deno.writeTextFile(file, device("return { queues: { q: () => 0 } };"));
  {
    await using cli = new CliProcess([file, socket]);
    assertStringIncludes(await cli.until("\n"), "virtio-id=38,num_vqs=1");
    assertEquals((await cli.stop()).status, 0);
  }
  await Deno.writeTextFile(file, device("throw new Error('No handlers today');"));
  {
    await using cli = new CliProcess([file, socket]);
    await cli.until("listens");
    assertEquals(await cli.end(), { status: 1, stderr: "vhostd: No handlers today\n" });
  }
  await Deno.writeTextFile(file, device("return { queues: { p: () => 0 } };"));
  await using cli = new CliProcess([file, socket]);
  await cli.until("listens");
  const { status, stderr } = await cli.end();
  assertEquals(status, 1);
  assertMatch(
    stderr,
    /^vhostd: queues in handlers of my-device: expected q, got p; did you mean q\?\n$/,
  );
});

Deno.test("--print-capabilities ignores other options", async () => {
  const { status, stdout } = await runCli(["blk", "--bogus", "--fd=x", "--print-capabilities"]);
  assertEquals([status, JSON.parse(stdout)], [
    0,
    { type: "block", features: ["read-only", "blk-file"] },
  ]);
});

Deno.test("vhostd list, describe, --help and --version print their output on stdout", async () => {
  const [list, describe, libvirt, help, deviceHelp, version] = await Promise.all([
    ["list"],
    ["describe", "--json", "blk"],
    ["describe", "--libvirt", "--binary=/usr/bin/x", "rng"],
    ["--help"],
    ["rng", "--help"],
    ["--version"],
  ].map((args) => runCli(args)));
  for (const { status, stderr } of [list, describe, libvirt, help, deviceHelp, version]) {
    assertEquals([status, stderr], [0, ""]);
  }
  assertMatch(
    list.stdout,
    /^blk +\S.*\ninput +\S.*\nnet +\S.*\nrng +Entropy from the host\nsensor +\S.*\nswitch +\S.*\n$/,
  );
  assertEquals(JSON.parse(describe.stdout).config.fields[0].name, "capacity");
  assertEquals(JSON.parse(libvirt.stdout).binary, "/usr/bin/x");
  assertStringIncludes(help.stdout, "vhostd inspect PATH");
  assertStringIncludes(deviceHelp.stdout, "--max-bytes=N");
  assertMatch(version.stdout, /^vhostd \d+\.\d+\.\d+\n$/);
});

/** Starts a command line on its own terminal of this size. */
function onTerminal(columns: number, rows: number, args: readonly string[]): Deno.ChildProcess {
  const words = [Deno.execPath(), "run", "--quiet", "-A", "main.ts", ...args];
  const command = `stty cols ${columns} rows ${rows}; exec ${words.join(" ")}`;
  return new Deno.Command("setpriv", {
    args: ["--pdeathsig", "KILL", "--", "script", "-qec", command, "/dev/null"],
    cwd: new URL("../../", import.meta.url),
    env: { NO_COLOR: "1", TERM: "xterm" },
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
}

Deno.test("help fits the terminal's width", async () => {
  for (const columns of [50, 80]) {
    const child = onTerminal(columns, 24, ["blk", "--help"]);
    await child.stdin.close();
    const { stdout } = await child.output();
    const lines = new TextDecoder().decode(stdout).split(/\r?\n/);
    assert(lines.length > 20, lines.join("\n"));
    assertEquals(lines.filter((line) => line.length > columns), []);
  }
});

Deno.test("vhostd inspect --watch shows the queues on a terminal of 80 by 24", async () => {
  using directory = temporaryDirectory();
  const [path, control] = [`${directory.path}/rng.sock`, `${directory.path}/control.sock`];
  await using cli = new CliProcess(["rng", `--socket-path=${path}`, `--control-path=${control}`]);
  await cli.until("listens");
  await (await VirtioDriver.start(path)).close();
  const child = onTerminal(80, 24, ["inspect", "--watch", control]);
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let screen = "";
  while (!screen.includes("\x1b[J")) {
    const { value, done } = await reader.read();
    assert(!done, screen);
    screen += value;
  }
  const lines = screen.slice(screen.indexOf("\x1b[H"), screen.indexOf("\x1b[J")).split(/\r?\n/);
  assert(lines.length <= 24, screen);
  assert(lines.findIndex((line) => line.startsWith("Queues")) < 5, screen);
  const writer = child.stdin.getWriter();
  await writer.write(Uint8Array.of(3)); // Ctrl-C
  while (!(await reader.read()).done);
  await writer.close();
  assertEquals((await child.status).code, 0);
  assertEquals((await cli.stop()).status, 0);
});
