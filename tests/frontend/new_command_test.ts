import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { denoConfig } from "../../src/cli/new_command.ts";
import { vhostdCommand } from "../../tools/lib/backend.ts";
import { runCli } from "./lib/cli_process.ts";

/** Nothing listens there, so any download fails. */
const UNREACHABLE = "http://127.0.0.1:9";

async function withDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "vhostd-new test-" });
  try {
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Runs Deno in a folder, from an empty cache and without any registry; returns what it prints. */
async function deno(cwd: string, args: string[], isToSucceed = true): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd,
    env: {
      NO_COLOR: "1",
      DENO_DIR: `${cwd}/../cache`,
      JSR_URL: UNREACHABLE,
      NPM_CONFIG_REGISTRY: UNREACHABLE,
    },
  }).output();
  const decoder = new TextDecoder();
  const output = decoder.decode(stdout) + decoder.decode(stderr);
  assertEquals(success, isToSucceed, `deno ${args.join(" ")}: ${output}`);
  return output;
}

for (const kind of ["entropy", "console", "network"]) {
  Deno.test(`vhostd new --kind=${kind} makes a folder that passes its check and its test, without any registry`, () =>
    withDirectory(async (directory) => {
      const folder = `${directory}/my-${kind}`;
      const { status, stdout, stderr } = await runCli(["new", folder, `--kind=${kind}`]);
      assertEquals([status, stderr], [0, ""]);
      assertStringIncludes(stdout, "deno task test");
      assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name), [`my-${kind}`]);
      await deno(folder, ["task", "check"]);
      await deno(folder, ["task", "test"]);
      await deno(folder, ["fmt", "--check"]);
      await deno(folder, ["lint"]);
      await deno(folder, ["task", "vhostd", "--help"]);
      // The module may import a name that only the folder's deno.json maps.
      const { imports, ...others } = JSON.parse(await Deno.readTextFile(`${folder}/deno.json`));
      const config = { ...others, imports: { ...imports, "own-name": "./own.ts" } };
      await Deno.writeTextFile(`${folder}/deno.json`, JSON.stringify(config));
      await Deno.writeTextFile(`${folder}/own.ts`, "export const own = 1;");
      const module = await Deno.readTextFile(`${folder}/mod.ts`);
      await Deno.writeTextFile(`${folder}/mod.ts`, `import "own-name";\n${module}`);
      await deno(folder, ["task", "test"]);
      const isNetwork = kind === "network";
      // A network has no description; its options are known once it is loaded.
      const words = isNetwork
        ? ["net", "--socket-path=no", `--handler=${folder}/mod.ts`, "--handler-options=no"]
        : ["describe", `${folder}/mod.ts`];
      const [program, ...args] = vhostdCommand(words);
      assertEquals(program, Deno.execPath());
      const output = await deno(folder, args, !isNetwork);
      assertStringIncludes(output, isNetwork ? "no option no; it has address" : `my-${kind}`);
      const without = await runCli(words);
      assertMatch(
        without.stderr,
        /^vhostd: [^\n]*has no say here: start it there by deno task vhostd/,
      );
      const { tasks } = JSON.parse(await Deno.readTextFile(`${folder}/deno.json`));
      const device = isNetwork ? "net --handler=./mod.ts" : "./mod.ts";
      assertStringIncludes(tasks.vhostd, `/main ${device}`);
      assertMatch(tasks.guest, /tools\/guest\/main\.ts'? '?--device=/);
      assertStringIncludes(tasks.guest, `--device=${device}`);
    }));
}

Deno.test("vhostd new overwrites nothing, and leaves nothing half made", () =>
  withDirectory(async (directory) => {
    Deno.mkdirSync(`${directory}/empty`);
    Deno.writeTextFileSync(`${directory}/file`, "mine");
    Deno.symlinkSync("nowhere", `${directory}/link`);
    const cases: [folder: string, status: number, message: string][] = [
      [`${directory}/empty`, 1, "exists already; remove it, or name another folder"],
      [`${directory}/file`, 1, "exists already"],
      [`${directory}/link`, 1, "exists already"],
      [`${directory}/no/sensor`, 1, "the directory that it would be in does not exist"],
      [`${directory}/file/sensor`, 1, "Not a directory"],
      [`${directory}/Sensor`, 2, "Expected a folder named as a device, of a-z, 0-9 and -"],
      [`${directory}/..`, 2, "Expected a folder named as a device"],
    ];
    for (const [folder, status, message] of cases) {
      const result = await runCli(["new", folder]);
      assertEquals(result.status, status, result.stderr);
      assertMatch(result.stderr, /^vhostd: [^\n]*\n$/);
      assertStringIncludes(result.stderr, message);
    }
    assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name).sort(), [
      "empty",
      "file",
      "link",
    ]);
  }));

Deno.test("denoConfig() imports from the registry if vhostd came from there", () => {
  const own = { name: "@x/y", version: "1.2.3", imports: { "@std/assert": "jsr:@std/assert@^1" } };
  assertEquals(denoConfig(own, undefined), {
    imports: { "@std/assert": "jsr:@std/assert@^1", "@x/y": "jsr:@x/y@^1.2.3" },
    tasks: {
      check: "deno check --quiet",
      test: "deno test --quiet --no-check --allow-all",
      vhostd: "deno run --quiet --allow-all @x/y/main ./mod.ts",
    },
    fmt: { lineWidth: 100 },
  });
});
