/** The newest QEMU starts with the arguments that vhostd prints for each device type. */
import { assert, assertEquals } from "@std/assert";
import { bytes, defineDevice, packed, serve } from "../../mod.ts";
import { qemuHint } from "../../src/cli/qemu.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { spawn, withTimeout } from "../../tools/lib/process.ts";
import { QEMU_VERSIONS, qemuOfVersion } from "../../tools/guest/programs.ts";
import { Qmp } from "../../src/cli/watch/qmp.ts";
import { temporary } from "./lib/helpers.ts";

const NET = 1, GPU = 16;

/** The types with printed arguments, except gpu, for which QEMU needs a display's socket. */
const TYPES = Array.from({ length: 64 }, (_, id) => id).filter((id) => id !== GPU && hasHint(id));

function hasHint(deviceId: number): boolean {
  return deviceId > 0 && qemuHint(device(deviceId), "/s", 4).startsWith("QEMU");
}

function device(deviceId: number) {
  return defineDevice({
    name: `type-${deviceId}`,
    deviceId,
    about: "Anything",
    module: import.meta.url,
    threads: "main",
    queues: {
      first: { about: "Requests" },
      second: { about: "Requests" },
      third: { about: "Requests" },
      fourth: { about: "Requests" },
    },
    // QEMU serves the config space of a network card itself.
    ...deviceId !== NET && { config: packed({ all: bytes(128, "All of it") }) },
    handlers: () => ({
      queues: { first: () => 0, second: () => 0, third: () => 0, fourth: () => 0 },
    }),
  });
}

/** The printed arguments for the device, without those for memory. */
function words(hint: string): string[] {
  const [, line] = hint.match(/^QEMU[^:]*: (.*) -object memory-backend-memfd/) ?? [];
  assert(line !== undefined, hint);
  return line.split(" ");
}

/** Each device reserves much of this process's addresses. */
const AT_ONCE = 8;

for (let at = 0; at < TYPES.length; at += AT_ONCE) {
  const types = TYPES.slice(at, at + AT_ONCE);
  Deno.test(`QEMU starts with the printed arguments for the device types ${types.join(", ")}`, async () => {
    using directory = temporary();
    {
      await using stack = new AsyncDisposableStack();
      const args: string[] = [];
      for (const type of types) {
        const socketPath = `${directory.path}/${type}.sock`;
        stack.use(await serve(device(type), { socketPath }));
        args.push(...words(qemuHint(device(type), socketPath, 4)));
      }
      const path = `${directory.path}/qmp.sock`;
      using listener = Deno.listen({ transport: "unix", path });
      const end = new AbortController();
      const qemu = spawn(await qemuOfVersion(QEMU_VERSIONS.at(-1)!), [
        ...["-no-user-config", "-nodefaults", "-display", "none", "-S"],
        ...["-object", "memory-backend-memfd,id=mem,size=64M,share=on"],
        ...["-m", "64M", "-machine", "q35,memory-backend=mem"],
        ...["-qmp", `unix:${path}`, ...args],
      ], { stdin: "null", stdout: "null", stderr: "piped", signal: end.signal });
      const stderr = new Response(qemu.stderr).text();
      stack.defer(async () => {
        end.abort();
        await Promise.all([qemu.status, stderr]);
      });
      const ended = qemu.status.then(async ({ code }) => {
        throw new Error(`QEMU ended with status ${code}: ${await stderr}`);
      });
      ended.catch(() => {});
      await using qmp = await withTimeout(
        Promise.race([Qmp.accept(listener), ended]),
        60_000,
        () => "QEMU does not answer",
      );
      // It answers once it has created every device.
      assertEquals(await qmp.execute("query-status"), {
        status: "prelaunch",
        running: false,
      });
    }
    await watchesEnded();
  });
}
