/** `deno task soak` for some seconds: its output, and that it leaves nothing behind. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { spawn } from "../../tools/lib/process.ts";
import { withDirectory } from "./lib/directory.ts";
import { expectNoCommandNames } from "./lib/leftovers.ts";

const MAIN = new URL("../../tools/soak/main.ts", import.meta.url).pathname;

/** The result of the command. */
interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs the command; all of its files are in `directory`. */
async function soak(
  args: string[],
  directory: string,
  onStderr: (text: string, kill: (signal: Deno.Signal) => void) => void = () => {},
): Promise<Ended> {
  const places = [`--tmpfs-dir=${directory}`, `--disk-dir=${directory}`];
  const child = spawn(
    Deno.execPath(),
    ["run", "--quiet", "--allow-all", MAIN, `--plot=${directory}/plot.svg`, ...places, ...args],
    {
      env: { TMPDIR: directory, NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    },
  );
  let stderr = "";
  const reading = (async () => {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
      stderr += text;
      onStderr(stderr, (signal) => child.kill(signal));
    }
  })();
  const stdout = await new Response(child.stdout).text();
  await reading;
  return { code: (await child.status).code, stdout, stderr };
}

/** Expects that no process is left that names a directory, no mount and no file. */
async function expectNothingLeft(directory: string): Promise<void> {
  await expectNoCommandNames(directory);
  const left = [...Deno.readDirSync(directory)].map(({ name }) => name);
  assertEquals(left.filter((name) => name !== "plot.svg"), []);
  assert(!Deno.readTextFileSync("/proc/self/mounts").includes(directory));
}

Deno.test("soak finds nothing wrong in some seconds of faults", () =>
  withDirectory(async (directory) => {
    const { code, stdout, stderr } = await soak(
      ["--minutes=0.1", "--only=tmpfs,disk,rng,input,net"],
      directory,
    );
    assertEquals(code, 0, `${stderr}\n${stdout}`);
    assertMatch(stdout, /^Soak of \d+ s, seed \d+: \d+ requests done, \d+ faults injected, /);
    assertStringIncludes(stdout, "Nothing wrong.");
    const svg = await Deno.readTextFile(`${directory}/plot.svg`);
    assertStringIncludes(svg, "nothing wrong");
    await expectNothingLeft(directory);
  }));

Deno.test("soak finds foreign bytes, and says how to repeat the run", () =>
  withDirectory(async (directory) => {
    // Repeatedly, since the soak's next write repairs the block.
    let spoiling: ReturnType<typeof setInterval> | undefined;
    const { code, stdout, stderr } = await soak(
      ["--minutes=0.1", "--seed=7", "--only=disk"],
      directory,
      (text) => {
        if (!text.includes("all have started")) return;
        spoiling ??= setInterval(() => spoil(directory), 100);
      },
    );
    clearInterval(spoiling);
    assertEquals(code, 1, `${stderr}\n${stdout}`);
    assertMatch(stdout, /^WRONG: disk: Word \d+ of block \d+ is 0x[0-9a-f]+, and should be /m);
    assertStringIncludes(stdout, "repeat it by: deno task soak --minutes=0.1 --seed=7 --only=disk");
    await expectNothingLeft(directory);
  }));

/** Writes something else into the first half of the disk's file. */
function spoil(directory: string): void {
  for (const { name, isDirectory } of Deno.readDirSync(directory)) {
    if (!isDirectory) continue;
    try {
      using file = Deno.openSync(`${directory}/${name}/disk.img`, { write: true });
      file.writeSync(new Uint8Array(2 ** 22).fill(0xa5));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // In another directory.
    }
  }
}

Deno.test("soak ends all that it started on SIGINT", () =>
  withDirectory(async (directory) => {
    let isKilled = false;
    const { code, stderr } = await soak(
      ["--minutes=10", "--only=tmpfs"],
      directory,
      (text, kill) => {
        if (isKilled || !text.includes("started")) return;
        isKilled = true;
        kill("SIGINT");
      },
    );
    assertEquals(code, 130, stderr);
    await expectNothingLeft(directory);
  }));

Deno.test("soak ends all that it started also after a second SIGINT", () =>
  withDirectory(async (directory) => {
    const awaited = ["started", "once more"];
    const { code, stderr } = await soak(
      ["--minutes=10", "--only=tmpfs"],
      directory,
      (text, kill) => {
        if (awaited.length === 0 || !text.includes(awaited[0])) return;
        awaited.shift();
        kill("SIGTERM");
      },
    );
    assertEquals(code, 143, stderr);
    await expectNothingLeft(directory);
  }));

Deno.test("soak reports bad input in one line", () =>
  withDirectory(async (directory) => {
    const { code, stdout, stderr } = await soak(["--minutes=soon"], directory);
    assertEquals({ code, stdout }, { code: 1, stdout: "" });
    assertEquals(stderr, "soak: --minutes=soon: expected a number from 0.1 to 10000\n");
  }));
