import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { BlkDriver, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** The files of a checkout that running it needs. */
const RUNNING = ["deno.json", "main.ts", "mod.ts", "src", "backends", "compat"];

/** The user and group `nobody`, who owns no files. */
const NOBODY = 65_534;

/** Nothing listens there, so any download fails. */
const UNREACHABLE = "http://127.0.0.1:9";

async function run(command: string, args: string[], options: Deno.CommandOptions = {}) {
  const { code, stdout, stderr } = await new Deno.Command(command, { args, ...options }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { status: code, stdout: out, stderr: err };
}

/** An ordinary user with an empty home, a checkout of vhostd, Deno, and no registry. */
class Newcomer implements AsyncDisposable {
  readonly home: string;
  readonly checkout: string;
  readonly #options: Deno.CommandOptions;

  private constructor(home: string) {
    this.home = home;
    this.checkout = `${home}/a checkout`;
    this.#options = {
      cwd: home,
      clearEnv: true,
      env: {
        HOME: home,
        NO_COLOR: "1",
        PATH: `${home}/.deno/bin:${home}/bin:/usr/bin:/bin`,
        JSR_URL: UNREACHABLE,
        NPM_CONFIG_REGISTRY: UNREACHABLE,
      },
    };
  }

  static async arrive(): Promise<Newcomer> {
    const home = await Deno.makeTempDir({ prefix: "vhostd-newcomer-" });
    const newcomer = new Newcomer(home);
    Deno.mkdirSync(newcomer.checkout);
    Deno.mkdirSync(`${home}/bin`);
    const files = RUNNING.map((name) => ROOT + name);
    const copies = [
      await run("cp", ["-r", ...files, newcomer.checkout]),
      await run("cp", [Deno.execPath(), `${home}/bin/deno`]),
    ];
    for (const { status, stderr } of copies) assertEquals([status, stderr], [0, ""]);
    if (Deno.uid() === 0) await run("chown", ["-R", `${NOBODY}:${NOBODY}`, home]);
    return newcomer;
  }

  /** Runs a shell command as that user. */
  #words(command: string): [string, string[]] {
    const shell = ["sh", "-c", command];
    if (Deno.uid() !== 0) return ["sh", shell.slice(1)];
    const other = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups", "--pdeathsig=KILL"];
    return ["setpriv", [...other, "--", ...shell]];
  }

  async types(command: string) {
    const [program, args] = this.#words(command);
    return await run(program, args, this.#options);
  }

  starts(command: string): Deno.ChildProcess {
    const [program, args] = this.#words(command);
    return new Deno.Command(program, { args, ...this.#options, stdout: "null", stderr: "piped" })
      .spawn();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.home, { recursive: true });
  }
}

Deno.test("the command is installed, upgraded and removed by an ordinary user, without any registry", async () => {
  await using newcomer = await Newcomer.arrive();
  const { home, checkout } = newcomer;
  const installed = await newcomer.types(`cd '${checkout}' && deno task install`);
  assertEquals(installed.status, 0, installed.stderr);
  const first = await newcomer.types("vhostd --version");
  assertEquals([first.stdout, first.stderr], ["vhostd 0.1.0\n", ""]);
  const list = await newcomer.types("vhostd list");
  assertEquals(list.stderr, "");
  assertStringIncludes(list.stdout, "rng ");

  // A relative path is relative to the working directory of the command.
  await newcomer.types("truncate -s 1M disk.img");
  const child = newcomer.starts("exec vhostd blk --blk-file=disk.img --socket-path=disk.sock");
  const stderr = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  assertStringIncludes((await stderr.read()).value ?? "", "vhostd: blk listens on disk.sock");
  {
    await using driver = await VirtioDriver.start(`${home}/disk.sock`, { timeoutMs: 30_000 });
    assertEquals((await new BlkDriver(driver).flush()).status, 0);
  }
  child.kill("SIGTERM"); // The process is the device itself, not a wrapper.
  assertEquals((await child.status).code, 0);
  await stderr.cancel();
  await watchesEnded();

  // The folder that `new` makes links to the checkout.
  const made = await newcomer.types("vhostd new my-rng && cd my-rng && deno task test");
  assertEquals(made.status, 0, made.stdout + made.stderr);

  // The command runs the checkout, so changing the checkout upgrades it.
  const config = await Deno.readTextFile(`${checkout}/deno.json`);
  await Deno.writeTextFile(`${checkout}/deno.json`, config.replace('"0.1.0"', '"0.2.0"'));
  assertEquals((await newcomer.types("vhostd --version")).stdout, "vhostd 0.2.0\n");

  const removed = await newcomer.types("deno uninstall --global vhostd");
  assertEquals(removed.status, 0, removed.stderr);
  const left = [...Deno.readDirSync(`${home}/.deno/bin`)].map(({ name }) => name);
  assert(!left.includes("vhostd"), `left: ${left}`);
});

Deno.test("--help runs from an empty cache without any registry", async () => {
  await using newcomer = await Newcomer.arrive();
  const { status, stdout, stderr } = await newcomer.types(
    `cd '${newcomer.checkout}' && deno task --quiet vhostd blk --help`,
  );
  assertEquals([status, stderr], [0, ""]);
  assertStringIncludes(stdout, "--blk-file=PATH");
});

Deno.test("the installed configuration maps every import of the program", async () => {
  const read = async (path: string) => JSON.parse(await Deno.readTextFile(ROOT + path));
  const { name, imports } = await read("deno.json");
  const { imports: installed } = await read("compat/install.json");
  assertEquals(
    Object.keys(installed).filter((key) => !key.startsWith(name)).sort(),
    Object.keys(imports).sort(),
  );
});
