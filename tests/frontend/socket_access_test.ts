import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import rng from "../../backends/rng/mod.ts";
import { EndpointError, serve } from "../../mod.ts";
import {
  groupId,
  LinuxError,
  setSocketAccess,
  UnixListener,
  userId,
  watchesEnded,
} from "../../src/linux/mod.ts";
import { CliProcess, runCli } from "./cli_process.ts";

/** Who may do what with a file, as `660 0:0`. */
function accessOf(path: string): string {
  const { mode, uid, gid } = Deno.lstatSync(path);
  return `${(mode! & 0o7777).toString(8)} ${uid}:${gid}`;
}

async function withDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "vhostd-access-" });
  try {
    await test(directory);
    await watchesEnded();
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

const me = `${Deno.uid()}:${Deno.gid()}`;
const ONLY_ROOT = { ignore: Deno.uid() !== 0 };

Deno.test("the socket has what the umask leaves, or --socket-mode whatever the umask", () =>
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

Deno.test("access that cannot be had leaves no socket", () =>
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

Deno.test("setSocketAccess() leaves alone what is no socket, and what a link leads to", () =>
  withDirectory(async (directory) => {
    const file = `${directory}/file`, link = `${directory}/link`;
    await Deno.writeTextFile(file, "", { mode: 0o640 });
    await Deno.symlink(file, link);
    for (const path of [file, link]) {
      assertThrows(() => setSocketAccess(path, { mode: 0o777 }), TypeError, "Expected a socket");
    }
    assertEquals(accessOf(file), `640 ${me}`);
    const missing = () => setSocketAccess(`${directory}/none`, {});
    assertEquals(assertThrows(missing, LinuxError).code, "ENOENT");
  }));

Deno.test("vhostd says what --socket-mode and --socket-owner take", async () => {
  const socket = "--socket-path=/tmp/never.sock";
  for (
    const [args, line] of [
      [[socket, "--socket-mode=rw"], "--socket-mode takes three octal digits, such as 660, got rw"],
      [[socket, "--socket-mode=668"], "three octal digits, such as 660, got 668"],
      [[socket, "--socket-mode=4755"], "three octal digits, such as 660, got 4755"],
      [[socket, "--socket-owner=:"], "--socket-owner takes USER, USER:GROUP or :GROUP, got :"],
      [[socket, "--socket-owner=no-such-user"], "a user that there is, or its number, got no-such"],
      [[socket, "--socket-owner=0:no-such"], "a group that there is, or its number, got no-such"],
      [
        [socket, "--socket-owner=4294967295"],
        "a user that there is, or its number, got 4294967295",
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
