/** Runs tshark, this machine's or Debian's. */
import { assertEquals } from "@std/assert";
import { programPath } from "../../../tools/guest/programs.ts";

let path = "";
/** Why there is none, as a suffix for the name of a test; else nothing. */
export let tsharkMissing = "";
try {
  path = await programPath("tshark");
} catch (error) {
  tsharkMissing = ` (needs tshark: ${(error as Error).message})`;
}

/**
 * The output of tshark with these arguments.
 *
 * @param script A dissector in Lua.
 */
export async function tshark(args: readonly string[], script?: string): Promise<string> {
  const home = await Deno.makeTempDir();
  const env: Record<string, string> = { HOME: home };
  const command = [path, ...args];
  if (script !== undefined) {
    command.push("-X", `lua_script:${script}`);
    // Wireshark 4.0 is partly in Lua, which a package that was only unpacked has elsewhere.
    const unpacked = `${path.slice(0, path.lastIndexOf("/"))}/usr/share/wireshark`;
    const { isDirectory = false } = await Deno.stat(unpacked).catch(() => ({}) as Deno.FileInfo);
    if (isDirectory) {
      env.WIRESHARK_DATA_DIR = home;
      // Root is not asked for a directory, so it needs another number.
      if (Deno.uid() === 0) command.unshift("unshare", "--user", "--map-user=1", "--map-group=1");
      await Deno.copyFile(`${unpacked}/../../../etc/wireshark/init.lua`, `${home}/init.lua`);
      for (const name of ["console.lua", "dtd_gen.lua"]) {
        await Deno.copyFile(`${unpacked}/${name}`, `${home}/${name}`);
      }
    }
  }
  try {
    const [program, ...rest] = command;
    const { stdout, stderr, code } = await new Deno.Command(program, { args: rest, env }).output();
    const errors = new TextDecoder().decode(stderr);
    assertEquals([code, /Lua/.test(errors)], [0, false], errors);
    return new TextDecoder().decode(stdout);
  } finally {
    await Deno.remove(home, { recursive: true });
  }
}
