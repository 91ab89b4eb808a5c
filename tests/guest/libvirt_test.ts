/**
 * The README's domain, in Debian's libvirt with QEMU 7.2. Without either the test is skipped, and
 * prints why.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Console } from "../../tools/guest/console.ts";
import { bootFiles, PROMPT } from "../../tools/guest/guest.ts";
import { Libvirt, libvirtPackages } from "./lib/libvirt.ts";
import { qemuOfVersion } from "../../tools/guest/programs.ts";
import { Backend, sha256Of, temporary } from "./lib/helpers.ts";
import { ToolError } from "../../tools/lib/tool_error.ts";

const TIMEOUT_MS = 60_000;

const BYTES = 2 ** 24;

const missing = await whatIsMissing();

async function whatIsMissing(): Promise<string | undefined> {
  try {
    await libvirtPackages();
    await qemuOfVersion("7.2");
    return undefined;
  } catch (error) {
    if (!(error instanceof ToolError)) throw error;
    return error.message;
  }
}

/** The README's domain, with our guest's kernel, on TCG. */
async function domain(socketPath: string, serialPath: string): Promise<string> {
  const readme = await Deno.readTextFile(new URL("../../README.md", import.meta.url));
  const [, printed] = readme.match(/```xml\n(<domain [^]*?)```/) ?? [];
  assert(printed !== undefined, "Expected a block with a domain in README.md");
  const { kernel, initrd, commandLine } = await bootFiles({});
  const replaced: [string, string][] = [
    ["<domain type='kvm'>", "<domain type='qemu'>"],
    [
      "</type>",
      `</type><kernel>${kernel}</kernel><initrd>${initrd}</initrd><cmdline>${commandLine}</cmdline>`,
    ],
    ["<devices>", `<devices><emulator>${await qemuOfVersion("7.2")}</emulator>`],
    ["/run/vhostd/disk.sock", socketPath],
    [
      "</devices>",
      `<serial type='unix'><source mode='bind' path='${serialPath}'/></serial></devices>`,
    ],
  ];
  return replaced.reduce((xml, [from, to]) => {
    assertStringIncludes(xml, from);
    return xml.replace(from, to);
  }, printed);
}

Deno.test({
  name: `the README's libvirt domain survives a restart of its back-end${
    missing === undefined ? "" : ` (skipped: ${missing})`
  }`,
  ignore: missing !== undefined,
  async fn() {
    using directory = temporary();
    const image = `${directory.path}/disk.img`;
    await Deno.writeFile(image, new Uint8Array());
    await Deno.truncate(image, BYTES);
    await using disk = await Backend.start("blk", [`--blk-file=${image}`], directory);
    const serialPath = `${directory.path}/serial.sock`;
    const xml = `${directory.path}/domain.xml`;
    await Deno.writeTextFile(xml, await domain(disk.socketPath, serialPath));
    await Deno.mkdir(`${directory.path}/libvirt`);
    await using libvirt = await Libvirt.start(`${directory.path}/libvirt`);
    await libvirt.run(`create ${xml}`);

    const connection = await Deno.connect({ transport: "unix", path: serialPath });
    await using guest = new Console(
      connection.readable,
      connection.writable,
      () => Promise.resolve("QEMU has ended"),
    );
    await guest.write("\n");
    await guest.readUntil(PROMPT, TIMEOUT_MS);
    /** Runs a command in the guest; the marker at the end of its output differs from the echoed one. */
    async function run(command: string): Promise<string> {
      await guest.write(`${command}; echo status'='$?\n`);
      const output = await guest.readUntil(/status=\d+\r\n/, TIMEOUT_MS);
      await guest.readUntil(PROMPT, TIMEOUT_MS);
      return output;
    }
    const write = "dd if=/dev/urandom of=/dev/vda bs=64k count=64 conv=fsync";
    assertStringIncludes(await run(write), "64+0 records out");
    await disk.crash();
    assertStringIncludes(await run(write), "64+0 records out");
    const output = await run("dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | sha256sum");
    assertStringIncludes(output, await sha256Of(image));
    const record = await disk.record();
    assertEquals(record.connections.latest.at(-1)!.frontend?.command, "qemu-system-x86");
    assertEquals(record.errors.total, 0);
    assertStringIncludes(await libvirt.run("domstate guest"), "running");
    await libvirt.run("destroy guest");
  },
});
