import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { run } from "../../tools/lib/process.ts";
import { expectNothingLeft, guest } from "./lib/guest_command.ts";
import { temporary } from "./lib/helpers.ts";

Deno.test("guest --run prints what the command prints, without a network where passt cannot run", async () => {
  using directory = temporary();
  using files = temporary();
  using programs = temporary();
  const script = "#!/bin/sh\necho Not here >&2\nexit 1\n";
  await Deno.writeTextFile(`${programs.path}/passt`, script, { mode: 0o755 });
  await Deno.writeTextFile(`${files.path}/a`, "in a folder\n");
  await Deno.writeTextFile(`${files.path}/b c`, "a file\n");
  const { code, stdout, stderr } = await guest(
    [
      "--cpus=2",
      "--memory=300M",
      "--device=blk --null --size=1G --serial=second",
      "--device=blk --serial=root",
      "--without=input",
      "--append=one.word two.words",
      `--file=${files.path}`,
      `--file=${files.path}/b c`,
      "--run=cat */a 'b c'; echo out; echo err >&2; nproc; cat /sys/block/vda/serial; echo; " +
      'grep -o "one.word two.words" /proc/cmdline; ls /dev/input; mount | grep " / "; ' +
      "ls /sys/class/net; exit 7",
      "--",
      "-name",
      "mine",
    ],
    directory,
    { programs: programs.path },
  );
  assertEquals(code, 7, stderr);
  assertMatch(stderr, /^guest: the guest has no network: .*passt does not start: Not here$/m);
  assertEquals(stdout.trimEnd().split("\n"), [
    "in a folder",
    "a file",
    "out",
    "err",
    "2",
    "second",
    "one.word two.words",
    "ls: /dev/input: No such file or directory",
    "/dev/vdb on / type ext4 (rw,relatime)",
    "lo",
  ]);
  await expectNothingLeft(directory);
});

Deno.test("guest takes commands from a pipe, and prints the records at the end", async () => {
  using directory = temporary();
  const { code, stdout, stderr } = await guest([], directory, {
    stdin: "echo $((40 + 2)) is the answer\n",
  });
  assertEquals(code, 0, stderr);
  assertStringIncludes(stdout, "42 is the answer");
  for (const name of ["blk", "rng", "input", "net"]) {
    assertMatch(stdout, new RegExp(`^${name}\\b`, "m"), name);
  }
  assertStringIncludes(stdout, "EVENT_IDX");
  await expectNothingLeft(directory);
});

Deno.test("guest ends all its processes when a signal ends it", async () => {
  using directory = temporary();
  const early = await guest(["--run=sleep 1000"], directory, {
    signalOn: { text: "starting QEMU", signal: "SIGTERM" },
  });
  assertEquals(early.code, 128 + 15, early.stderr);
  // A user who ends a command that hangs needs the devices' records.
  assertMatch(early.stderr, /^rng {2}Entropy/m);
  await expectNothingLeft(directory);

  const late = await guest(["--without=blk"], directory, {
    stdin: 'echo "I am"" up"; sleep 1000\n', // the guest echoes its input
    signalOn: { text: "I am up", signal: "SIGINT" },
  });
  assertEquals(late.code, 128 + 2, late.stderr);
  await expectNothingLeft(directory);
});

Deno.test("guest --print prints the commands of a shell, and starts nothing", async () => {
  using directory = temporary();
  const { code, stdout, stderr } = await guest([
    "--print",
    "--machine=microvm",
    "--append=it's quoted",
  ], directory);
  assertEquals(code, 0, stderr);
  const lines = stdout.trimEnd().split("\n");
  const passt = lines.findIndex((line) => line.startsWith("PATH="));
  if (passt >= 0) lines.splice(passt, 1);
  assertEquals(lines.length, 7, stdout);
  assertMatch(lines[0], new RegExp(`^mkdir ${directory.path}/vhostd-guest-`));
  assertMatch(lines[1], /^cp .*\/root\.img$/);
  for (const [i, name] of ["blk", "rng", "input", "net"].entries()) {
    assertMatch(lines[2 + i], new RegExp(` ${name} --socket-path=\\S+ .*&$`));
  }
  assertMatch(lines[6], /qemu-system-x86_64 .*-machine microvm.*vhost-user-blk(-device)?,/);
  const script = `${directory.path}/script`;
  await Deno.writeTextFile(script, stdout);
  await run("sh", ["-n", script]);
  await Deno.remove(script);
  await expectNothingLeft(directory);
});

Deno.test("guest reports bad input in one line", async () => {
  using directory = temporary();
  const cases: [args: string[], line: string][] = [
    [["--imgae=x"], "Unknown flag --imgae; did you mean --image?"],
    [["extra"], "Unknown argument extra"],
    [["--image="], "Expected a value after --image"],
    [["--image=/no/such.img"], "--image=/no/such.img: No such file or directory"],
    [["--kernel=/no/kernel"], "--kernel=/no/kernel: No such file or directory"],
    [["--file=/no/file"], "--file=/no/file: No such file or directory"],
    [["--file=a", "--image=b"], "--file is for the small system; leave out --file or --image"],
    [["--memory=lots"], "--memory=lots: expected a size such as 512M or 2G"],
    [["--cpus=0"], "--cpus takes 1 to 255, got 0"],
    [["--machine=pc"], '--machine takes q35, microvm, got "pc"'],
    [["--device=--null"], '--device="--null" has no device'],
    [["--device=blk", "--device=blk"], "Only one blk can be the root disk"],
    [["--without=fs"], "--without=fs: no default device is a fs"],
    [["--without=blk", "--image=/dev/null"], "--image needs a blk without a store"],
  ];
  // A few at a time: each is a process.
  for (let i = 0; i < cases.length; i += 4) {
    const some = cases.slice(i, i + 4);
    const ended = await Promise.all(some.map(([args]) => guest(args, directory)));
    for (const [j, [args, line]] of some.entries()) {
      const { code, stdout, stderr } = ended[j];
      assertEquals({ code, stdout }, { code: 1, stdout: "" }, `${args}: ${stderr}`);
      assertMatch(stderr, /^guest: [^\n]*\n$/);
      assertStringIncludes(stderr, line);
    }
  }
  await expectNothingLeft(directory);
});

Deno.test("guest says why when a device or QEMU cannot be started", async () => {
  using directory = temporary();
  const cases: [args: string[], reason: string][] = [
    [["--device=rgn"], "Unknown device rgn; did you mean rng?"],
    [["--device=blk --serial=far-too-long-for-a-serial"], "--serial takes up to 20"],
    [["--run=true", "--", "-no-such-option"], "-no-such-option: invalid option"],
  ];
  for (const [args, reason] of cases) {
    const { code, stderr } = await guest(args, directory);
    assertEquals(code, 1, stderr);
    const said = stderr.split("\n").filter((line) => line.includes(reason));
    assert(said.length === 1 && said[0].startsWith("guest: "), stderr);
    assertEquals(stderr.includes("    at "), false, stderr);
    await expectNothingLeft(directory);
  }
});
