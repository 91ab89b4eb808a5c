import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import rng from "../../backends/rng/mod.ts";
import { EndpointError, serve } from "../../mod.ts";
import { LinuxError, UnixConnection, UnixListener } from "../../src/linux/mod.ts";
import { groupId, userId } from "../../src/linux/account.ts";
import { replaceFile, SocketFile } from "../../src/linux/file/path.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { withDirectory } from "./lib/directory.ts";

/** The permissions and owner of a file, such as `660 0:0`. */
function accessOf(path: string): string {
  const { mode, uid, gid } = Deno.lstatSync(path);
  return `${(mode! & 0o7777).toString(8)} ${uid}:${gid}`;
}

const me = `${Deno.uid()}:${Deno.gid()}`;
const ONLY_ROOT = { ignore: Deno.uid() !== 0 };

Deno.test("the socket has 777 less the umask, or --socket-mode whatever the umask", () =>
  withDirectory(async (directory) => {
    const socket = `${directory}/rng.sock`, control = `${directory}/control.sock`;
    const command = ["rng", `--socket-path=${socket}`, `--control-path=${control}`];
    for (
      const [umask, flag, expected] of [
        ["022", [], "755"],
        ["077", [], "700"],
        ["077", ["--socket-mode=660"], "660"],
        ["000", ["--socket-mode=0600"], "600"],
        ["022", ["--socket-mode=777"], "777"],
        ["777", ["--socket-mode=660"], "660"],
        ["777", [], "0"],
      ] as const
    ) {
      await using cli = new CliProcess([...command, ...flag], {
        through: ["sh", "-c", `umask ${umask}; exec "$@"`, "sh"],
      });
      await cli.until("listens");
      assertEquals(accessOf(socket), `${expected} ${me}`);
      assertEquals(accessOf(control), `600 ${me}`, "the control socket is its owner's alone");
      assertEquals((await cli.stop()).status, 0);
    }
  }));

Deno.test(
  "--socket-owner takes names and numbers",
  ONLY_ROOT,
  () =>
    withDirectory(async (directory) => {
      const path = `${directory}/rng.sock`;
      const uid = userId("nobody"), gid = groupId("daemon");
      assert(uid !== undefined && gid !== undefined);
      for (
        const [owner, expected] of [
          ["nobody", `${uid}:0`],
          ["nobody:daemon", `${uid}:${gid}`],
          [":daemon", `0:${gid}`],
          ["1234:5678", "1234:5678"],
        ]
      ) {
        await using cli = new CliProcess([
          ...["rng", `--socket-path=${path}`, `--socket-owner=${owner}`, "--socket-mode=660"],
        ]);
        await cli.until("listens");
        assertEquals(accessOf(path), `660 ${expected}`);
        assertEquals((await cli.stop()).status, 0);
      }
    }),
);

Deno.test("a mode or owner that cannot be set leaves no socket", () =>
  withDirectory(async (directory) => {
    const socketPath = `${directory}/rng.sock`;
    assertThrows(() => UnixListener.listen(socketPath, { uid: 2 ** 32 }), TypeError);
    assertEquals([...Deno.readDirSync(directory)], []);
    if (Deno.uid() !== 0) {
      const refused = serve(rng, { socketPath, socketAccess: { uid: 0 }, plane: "main" });
      const error = await assertRejects(() => refused, EndpointError);
      assertStringIncludes(error.message, "no permission to give the socket");
      assertEquals([...Deno.readDirSync(directory)], []);
    }
    await using _server = await serve(rng, {
      socketPath,
      socketAccess: { mode: 0o606, uid: Deno.uid()!, gid: Deno.gid()! },
      plane: "main",
    });
    assertEquals(accessOf(socketPath), `606 ${me}`);
  }));

Deno.test("SocketFile replaces only sockets, and follows no link", () =>
  withDirectory(async (directory) => {
    const file = `${directory}/file`, link = `${directory}/link`, socket = `${directory}/socket`;
    await Deno.writeTextFile(file, "", { mode: 0o640 });
    using _listener = UnixListener.listen(socket);
    await Deno.symlink(socket, link);
    for (const path of [file, link]) {
      assertThrows(() => new SocketFile(path), TypeError, "Expected a socket");
    }
    const missing = () => new SocketFile(`${directory}/none`);
    assertEquals(assertThrows(missing, LinuxError).code, "ENOENT");
  }));

/** Replaces a server's socket by another listening one. */
function usurp(path: string): UnixListener {
  Deno.removeSync(path);
  return UnixListener.listen(path);
}

Deno.test("close() does not remove another server's socket at its path", () =>
  withDirectory(async (directory) => {
    const socketPath = `${directory}/rng.sock`;
    const server = await serve(rng, { socketPath, plane: "main" });
    using other = usurp(socketPath);
    await server.close();
    using connection = UnixConnection.connect(socketPath);
    assert(connection.fd.isOpen);
    other[Symbol.dispose]();
    assertEquals([...Deno.readDirSync(directory)], [], "each removes its own");
  }));

Deno.test("vhostd neither replaces nor removes foreign files at its paths", () =>
  withDirectory(async (directory) => {
    const socket = `${directory}/rng.sock`, control = `${directory}/control.sock`;
    await using cli = new CliProcess([
      ...["rng", `--socket-path=${socket}`, `--control-path=${control}`],
    ]);
    await cli.until("listens");
    using _socket = usurp(socket);
    Deno.removeSync(control);
    Deno.writeTextFileSync(control, "somebody's notes");
    assertEquals((await cli.stop()).status, 0);
    UnixConnection.connect(socket)[Symbol.dispose]();
    assertEquals(Deno.readTextFileSync(control), "somebody's notes");
  }));

Deno.test("--record is accessible only to its owner, complete at any time, and follows no link", () =>
  withDirectory(async (directory) => {
    const socket = `${directory}/rng.sock`, record = `${directory}/record.json`;
    Deno.writeTextFileSync(record, "an older one", { mode: 0o666 });
    using older = Deno.openSync(record);
    {
      await using cli = new CliProcess(["rng", `--socket-path=${socket}`, `--record=${record}`], {
        through: ["sh", "-c", `umask 777; exec "$@"`, "sh"],
      });
      await cli.until("listens");
      assertEquals(accessOf(record), `600 ${me}`);
      assertEquals((await cli.stop()).status, 0);
    }
    assertEquals(JSON.parse(Deno.readTextFileSync(record)).device.name, "rng");
    const text = new Uint8Array(12);
    assertEquals(older.readSync(text), 12);
    assertEquals(new TextDecoder().decode(text), "an older one");
    assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name), ["record.json"]);

    const link = `${directory}/link`;
    await Deno.symlink(record, link);
    const { status, stderr } = await runCli([
      ...["rng", `--socket-path=${socket}`, `--record=${link}`],
    ]);
    assertEquals(status, 1, stderr);
    assertStringIncludes(stderr, `Expected a file or nothing at ${link}, got a symbolic link`);
    assert(Deno.lstatSync(link).isSymlink);
  }));

Deno.test("replaceFile() keeps the old file when it cannot write, and leaves no temporary one", () =>
  withDirectory((directory) => {
    const inThere = `${directory}/there`;
    Deno.mkdirSync(inThere);
    assertThrows(() => replaceFile(inThere, ""), TypeError, "got a directory");
    assertThrows(() => replaceFile("/dev/null", ""), TypeError, "got a device");
    assertThrows(() => replaceFile(`${directory}/no/such`, ""), LinuxError, "ENOENT");
    assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name), ["there"]);
    return Promise.resolve();
  }));

Deno.test("vhostd explains bad values of --socket-mode and --socket-owner", async () => {
  const socket = "--socket-path=/tmp/never.sock";
  for (
    const [args, line] of [
      [[socket, "--socket-mode=rw"], "--socket-mode takes three octal digits, such as 660, got rw"],
      [[socket, "--socket-mode=668"], "three octal digits, such as 660, got 668"],
      [[socket, "--socket-mode=4755"], "three octal digits, such as 660, got 4755"],
      [[socket, "--socket-owner=:"], "--socket-owner takes USER, USER:GROUP or :GROUP, got :"],
      [[socket, "--socket-owner=no-such-user"], "a user that exists, or its number, got no-such"],
      [[socket, "--socket-owner=0:no-such"], "a group that exists, or its number, got no-such"],
      [
        [socket, "--socket-owner=4294967295"],
        "a user that exists, or its number, got 4294967295",
      ],
      [["--fd=3", "--socket-mode=660"], "Expected --socket-path with --socket-mode"],
      [["--connect=/x", "--socket-owner=0"], "Expected --socket-path with --socket-owner"],
    ] as const
  ) {
    const { status, stderr } = await runCli(["rng", ...args]);
    assertEquals(status, 2, stderr);
    assertStringIncludes(stderr, line);
  }
});
