/** The systemd unit of SECURITY.md: it allows enough, and systemd rates it as safe. */
import { assert, assertEquals } from "@std/assert";
import { UnixListener, watchesEnded } from "../../src/linux/mod.ts";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { run } from "../../tools/lib/process.ts";
import { programPath } from "../../tools/guest/programs.ts";
import { activation } from "./lib/activation.ts";
import { CliProcess } from "./lib/cli_process.ts";
import { ToolError } from "../../tools/lib/tool_error.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

const text = Deno.readTextFileSync(`${ROOT}SECURITY.md`);

const found = await findAnalyzer();

async function findAnalyzer(): Promise<{ analyzer?: string; why: string }> {
  try {
    return { analyzer: await programPath("systemd-analyze"), why: "" };
  } catch (error) {
    if (!(error instanceof ToolError)) throw error;
    return { why: ` (skipped: ${error.message})` };
  }
}

/** A test that asks systemd-analyze. */
function test(name: string, fn: (analyzer: string) => Promise<void>): void {
  const { analyzer, why } = found;
  Deno.test({ name: name + why, ignore: analyzer === undefined, fn: () => fn(analyzer!) });
}

/** A unit, as SECURITY.md prints it. */
function unit(name: string): string {
  const [, unit] = text.match(new RegExp(`\`\`\`ini\n(# \\S+/${name}\n[^]*?)\`\`\``)) ?? [];
  assert(unit !== undefined, `Expected ${name} in SECURITY.md`);
  return unit;
}

/** The system calls that the service may make. */
async function allowedCalls(analyzer: string): Promise<string[]> {
  const allowed = new Set<string>();
  for (
    const [, not, sets] of unit("vhostd-disk.service").matchAll(/^SystemCallFilter=(~?)(.*)$/gm)
  ) {
    for (const set of sets.split(" ")) {
      for (const call of await callsIn(analyzer, set)) {
        if (not) allowed.delete(call);
        else allowed.add(call);
      }
    }
  }
  // systemd also allows the calls that it needs to start a program: systemd.exec(5).
  for (const call of await callsIn(analyzer, "@default")) allowed.add(call);
  return [...allowed];
}

async function callsIn(analyzer: string, name: string): Promise<string[]> {
  if (!name.startsWith("@")) return [name];
  const listing = await run(analyzer, ["syscall-filter", "--no-pager", name]);
  const names = listing.split("\n").slice(1).map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  return (await Promise.all(names.map((name) => callsIn(analyzer, name)))).flat();
}

test("systemd calls the service safe", async (analyzer) => {
  const directory = Deno.makeTempDirSync({ prefix: "vhostd-service-" });
  try {
    const path = `${directory}/vhostd-disk.service`;
    await Deno.writeTextFile(path, unit("vhostd-disk.service"));
    // In tenths: 1.0 of 10 is the best rating of a service without its own root directory.
    await run(analyzer, ["security", "--offline=true", "--no-pager", "--threshold=10", path]);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

for (const flags of [[], ["--cache=none"], ["--io=sync"]]) {
  test(`the service's filter lets a disk work ${flags}`, async (analyzer) => {
    const directory = Deno.makeTempDirSync({ prefix: "vhostd-service-" });
    try {
      const path = `${directory}/disk.sock`;
      const image = `${directory}/disk.img`;
      await Deno.writeFile(image, new Uint8Array(2 ** 20));
      using listener = UnixListener.listen(path);
      await using cli = new CliProcess(["blk", `--blk-file=${image}`, ...flags], {
        permissions: [
          "--allow-ffi",
          `--allow-read=${ROOT}`,
          "--allow-env=LISTEN_FDS,LISTEN_PID,LISTEN_FDNAMES",
        ],
        env: { LISTEN_FDS: "1" },
        through: [
          ...[Deno.execPath(), "run", "--quiet", "--allow-all"],
          ...[`${ROOT}tests/frontend/lib/filtered_start.ts`],
          ...[(await allowedCalls(analyzer)).join(","), "fail"],
          ...activation([listener.fd]),
        ],
      });
      await cli.until("blk serves on file descriptor 3");
      {
        await using driver = await VirtioDriver.start(path);
        const written = crypto.getRandomValues(new Uint8Array(8192));
        for (
          const [type, out, into] of [
            [1, [written], [1]], // OUT: virtio 1.3, 5.2.6
            [4, [], [1]], // FLUSH
            [0, [], [8192, 1]], // IN
            [13, [new Uint8Array(16)], [1]], // WRITE_ZEROES of nothing
          ] as const
        ) {
          const header = new Uint8Array(16);
          header[0] = type;
          const { data } = await driver.request(0, [header, ...out], [...into]);
          assertEquals(data.at(-1)!.at(-1), 0, `Status of request ${type}`);
          if (type === 0) assertEquals(data[0], written);
        }
      }
      assertEquals(await cli.stop(), { status: 0, stderr: "" });
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
    await watchesEnded();
  });
}

test("the service's filter blocks other calls", async (analyzer) => {
  const calls = (await allowedCalls(analyzer)).join(",");
  const launch = [Deno.execPath(), "run", "--quiet", "--allow-all"];
  const start = [...launch, `${ROOT}tests/frontend/lib/filtered_start.ts`, calls];
  for (
    const [action, program, code] of [
      ["fail", ["true"], 0],
      ["fail", ["chroot", "/", "true"], 125],
      ["kill", ["chroot", "/", "true"], 128 + 31], // SIGSYS
    ] as const
  ) {
    const [command, ...args] = [...start, action, ...program];
    const ended = await new Deno.Command(command, { args, stderr: "null" }).output();
    assertEquals(ended.code, code, program.join(" "));
  }
});
