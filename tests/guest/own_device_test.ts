import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { qemuFrontend } from "../../src/cli/qemu.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { expectNothingLeft, guest } from "./lib/guest_command.ts";
import { Backend, eventually, expectLiveRecord, ok, steps, temporary } from "./lib/helpers.ts";

const LOUD_CONSOLE = new URL("./lib/loud_console.ts", import.meta.url).pathname;

Deno.test("the README's device serves a guest as it is printed", async () => {
  using directory = temporary();
  using own = temporary();
  const readme = await Deno.readTextFile(new URL("../../README.md", import.meta.url));
  const [, code] = readme.match(/```ts\n(\/\/ my_rng\.ts\n[^]*?)```/) ?? [];
  await Deno.writeTextFile(`${own.path}/my_rng.ts`, code);
  // A shell splits the words; `npx -y deno` is this program.
  const [, words] = readme.match(/deno task guest (--device=\.\/my_rng\.ts .*)\n/) ?? [];
  const args = [...words.matchAll(/(?:[^\s']|'([^']*)')+/g)].map(([word]) =>
    word.replaceAll("'", "")
  );
  const { code: status, stdout, stderr } = await guest(args, directory, { calledIn: own.path });
  assertEquals(status, 0, stderr);
  assertMatch(stdout, /^virtio_rng\.0\s*\n[0-9a-f]{16}/);
  await expectNothingLeft(directory);
});

Deno.test("a device type that QEMU has no front-end for serves a guest", async (t) => {
  using directory = temporary();
  await using console = await Backend.start(LOUD_CONSOLE, [], directory);
  const frontend = qemuFrontend({ name: "console", deviceId: 3, configBytes: 12, queues: 2 });
  await using machine = await Guest.boot({ devices: [{ ...console.device(), frontend }] });
  await steps(t, {
    "its requests go both ways": async () => {
      const line = await ok(
        machine,
        "exec 3<>/dev/hvc0; stty raw -echo <&3; echo 'hello there' >&3; timeout 20 head -n1 <&3",
      );
      assertEquals(line, "HELLO THERE");
    },

    "each of the driver's reads of config space is seen, and said to be": async () => {
      await console.post("widen");
      await console.until(({ config }) => config.fields[0].reads > 0);
      await eventually(machine, "exec 3<>/dev/hvc0; stty size <&3", "43 132");
      const record = await console.record();
      expectLiveRecord(record, machine);
      assertEquals(record.config.reads.source, "reported");
      assertEquals(record.config.writes.source, "reported");
    },
  });
});

Deno.test("guest says what is wrong with a device's module, and shows the records when a guest fails", async () => {
  using directory = temporary();
  using own = temporary();
  const write = (name: string, text: string) => Deno.writeTextFile(`${own.path}/${name}`, text);
  await write("broken.ts", "export default {;\n");
  await write("empty.ts", "export default 1;\n");
  const device = (deviceId: number, handler: string) => `
    import { defineDevice } from "@vhostd/vhostd";
    export default defineDevice({
      name: "mine", deviceId: ${deviceId}, about: "Mine", module: import.meta.url,
      queues: { requestq: { about: "Requests" } },
      handlers: () => ({ queues: { requestq() { ${handler} } } }),
    });`;
  await write("unknown.ts", device(60, "return 0;"));
  await write("faulty.ts", device(4, 'throw new Error("No entropy today");'));
  const calledIn = { calledIn: own.path };
  for (
    const [name, reason] of [
      ["broken.ts", "Cannot load the device ./broken.ts"],
      ["empty.ts", "Expected a device as the default export of ./empty.ts"],
      ["missing.ts", "Cannot load the device ./missing.ts"],
      ["unknown.ts", "--device=./unknown.ts: no QEMU has a front-end for virtio device 60"],
    ]
  ) {
    const { code, stderr } = await guest([`--device=./${name}`, "--run=true"], directory, calledIn);
    assertEquals(code, 1, stderr);
    assertStringIncludes(stderr, reason);
    assertEquals(stderr.includes("    at "), false, stderr);
  }
  const { code, stdout, stderr } = await guest(
    ["--device=./faulty.ts", "--run=echo begun; timeout 5 head -c1 /dev/hwrng; poweroff -f"],
    directory,
    calledIn,
  );
  assertEquals([code, stdout], [1, ""], stderr);
  assertStringIncludes(stderr, "No entropy today");
  assert(/^mine {2}Mine \(virtio device 4\)$/m.test(stderr), stderr);
  await expectNothingLeft(directory);
});
