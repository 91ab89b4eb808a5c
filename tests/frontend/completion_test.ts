import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { unpackPackages } from "../../tools/guest/apt.ts";
import { cached } from "../../tools/guest/cache.ts";
import { findProgram } from "../../tools/lib/process.ts";
import { runCli } from "./lib/cli_process.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** A directory with the command vhostd, the shells' scripts, and files to complete. */
async function withCommand(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "vhostd-completion-" });
  try {
    const command = `#!/bin/sh\nexec '${Deno.execPath()}' run --quiet -A ${ROOT}main.ts "$@"\n`;
    await Deno.writeTextFile(`${directory}/vhostd`, command, { mode: 0o755 });
    for (const shell of ["bash", "zsh", "fish"]) {
      const { stdout } = await runCli(["completion", shell]);
      await Deno.writeTextFile(`${directory}/script.${shell}`, stdout);
    }
    await Deno.writeTextFile(`${directory}/my disk.img`, "");
    await Deno.mkdir(`${directory}/my directory`);
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function runShell(directory: string, command: readonly string[]): Promise<string> {
  const [program, ...args] = command;
  // An unpacked program has its libraries beside it.
  const [, unpacked] = /^(.*\.cache\/guest\/[^/]*\/[^/]*)\//.exec(program) ?? [];
  const { stdout, stderr } = await new Deno.Command(program, {
    args,
    cwd: directory,
    env: {
      PATH: `${directory}:${Deno.env.get("PATH")}`,
      NO_COLOR: "1",
      ...unpacked !== undefined && {
        LD_LIBRARY_PATH: `${unpacked}/usr/lib/${Deno.build.arch}-linux-gnu`,
      },
    },
    stdin: "null",
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals(err, "");
  return out;
}

/** This machine's shell, or else Debian's; undefined if it cannot be downloaded. */
async function shell(name: "zsh" | "fish"): Promise<string | undefined> {
  const installed = findProgram(name);
  if (installed !== undefined) return installed;
  try {
    const directory = await cached(
      name,
      JSON.stringify([name, "shell"]),
      (path) => unpackPackages([name], path, { withDependencies: true }),
    );
    for (const place of ["bin", "usr/bin"]) {
      const path = `${directory}/${place}/${name}`;
      if (await Deno.stat(path).then(() => true, () => false)) return path;
    }
  } catch {
    // No network, for example.
  }
  console.log(`skipped: ${name} is not there and cannot be had; install it to have this tested`);
  return undefined;
}

Deno.test("bash completes devices, flags, values and paths", () =>
  withCommand(async (directory) => {
    const complete = async (line: string) => {
      const script = `
        source ./script.bash
        COMP_LINE=$1 COMP_POINT=\${#1} COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
        _vhostd
        printf '%s\\n' "\${COMPREPLY[@]}"`;
      const out = await runShell(directory, ["bash", "--norc", "-c", script, "bash", line]);
      return out.trimEnd().split("\n");
    };
    assertEquals(await complete("vhostd b"), ["blk"]);
    assertEquals(await complete("vhostd rng --max"), ["--max-bytes="]);
    assertEquals(await complete("vhostd blk --io="), ["auto", "uring", "sync"]);
    assertEquals(await complete("vhostd blk --io=u"), ["uring"]);
    assertEquals((await complete("vhostd blk --blk-file=my")).sort(), [
      "my directory",
      "my disk.img",
    ]);
    assertEquals(await complete("vhostd describe r"), ["rng"]);
  }));

Deno.test("bash completes on Tab in a terminal", () =>
  withCommand(async (directory) => {
    // On its own terminal, which echoes the completed line.
    const child = new Deno.Command("script", {
      args: ["-qec", "bash --norc --noprofile -i", "/dev/null"],
      cwd: directory,
      env: { PATH: `${directory}:${Deno.env.get("PATH")}`, PS1: "> ", TERM: "dumb" },
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const writer = child.stdin.getWriter();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let seen = "";
    const until = async (text: string) => {
      while (!seen.includes(text)) {
        const { value, done } = await reader.read();
        assert(!done, seen);
        seen += value;
      }
      seen = seen.slice(seen.indexOf(text) + text.length);
    };
    const type = (text: string) => writer.write(new TextEncoder().encode(text));
    await type("source ./script.bash; echo rea''dy\n");
    await until("ready");
    await type("echo vhostd blk; vhostd blk --blk-f\t");
    await until("--blk-file=");
    await type("my\\ di\t\t");
    await type("\x15exit\n");
    while (!(await reader.read()).done);
    await writer.close();
    await child.status;
  }));

Deno.test("zsh completes devices, flags, values and paths", () =>
  withCommand(async (directory) => {
    const zsh = await shell("zsh");
    if (zsh === undefined) return;
    // Replaces the function that gets the words to offer.
    const script = `
      compdef() { :; }
      _describe() { print -rl -- \${(P)3}; }
      compset() { :; }
      _files() { print -r -- files; }
      source ./script.zsh
      words=("$@") CURRENT=$#
      _vhostd`;
    const complete = async (...words: string[]) =>
      (await runShell(directory, [zsh, "-f", "-c", script, "zsh", ...words])).trimEnd().split("\n");
    assertEquals(await complete("vhostd", "b"), ["blk:A disk"]);
    assertMatch((await complete("vhostd", "rng", "--max"))[0], /^--max-bytes=:Give at most N/);
    assertEquals(await complete("vhostd", "blk", "--io=u"), ["--io=uring:"]);
    assertEquals(await complete("vhostd", "blk", "--blk-file=my"), ["files"]);
  }));

Deno.test("fish completes devices, flags, values and paths", () =>
  withCommand(async (directory) => {
    const fish = await shell("fish");
    if (fish === undefined) return;
    const complete = async (line: string) => {
      const script = `source ./script.fish; complete -C '${line}'`;
      return (await runShell(directory, [fish, "--no-config", "-c", script])).trimEnd().split("\n");
    };
    assertEquals(await complete("vhostd b"), ["blk\tA disk"]);
    assertStringIncludes((await complete("vhostd rng --max"))[0], "--max-bytes=\tGive at most N");
    assertEquals(await complete("vhostd blk --io=u"), ["--io=uring"]);
    assertEquals((await complete("vhostd blk --blk-file=my")).sort(), [
      "--blk-file=my directory/",
      "--blk-file=my disk.img",
    ]);
  }));
