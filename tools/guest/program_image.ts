/** Disks with packaged programs and their libraries, which load a device from inside the guest. */
import { Scratch } from "../lib/scratch.ts";
import { unpackPackages } from "./apt.ts";
import { cached, exists } from "./cache.ts";
import { run } from "../lib/process.ts";
import { ToolError } from "../lib/tool_error.ts";
import { makeExt4 } from "./root_image.ts";
import { progress } from "./progress.ts";

/** Sparse, so it costs only what is written to it. */
const SIZE_MIB = 192;

/** Directory of the libraries on the disk. */
const LIBRARIES = "lib";

/** The script that runs a program with the libraries of its disk. */
function startScript(name: string): string {
  return `\
#!/bin/sh
here=\${0%/*}
exec "$here/${LIBRARIES}/ld.so" --library-path "$here/${LIBRARIES}" "$here/${name}.bin" "$@"
`;
}

/**
 * Makes an ext4 image with programs of Debian's in its root, if there is none yet. Guests share it:
 * mount it read-only.
 *
 * @param names The programs, each with the name of its package.
 * @returns The path of the image.
 */
export async function programImage(
  ...names: readonly ("ethtool" | "fio" | "iperf3")[]
): Promise<string> {
  const scripts = names.map((name) => [name, startScript(name)]);
  const key = `${names.join("-")}-image`;
  return await cached(key, JSON.stringify([SIZE_MIB, scripts]), async (path) => {
    progress(`downloading ${names.join(", ")} and what they need`);
    using scratch = new Scratch(`vhostd-${key}-`);
    const directory = scratch.directory();
    const packages = `${directory}/packages`, disk = `${directory}/disk`;
    await unpackPackages([...names], packages, { withDependencies: true });
    await Deno.mkdir(`${disk}/${LIBRARIES}`, { recursive: true });
    for (const [name, script] of scripts) {
      const program = await programOf(name, packages);
      await Deno.copyFile(program, `${disk}/${name}.bin`);
      await Deno.writeTextFile(`${disk}/${name}`, script, { mode: 0o755 });
      for (const library of await librariesOf(program, packages)) {
        const file = library.slice(library.lastIndexOf("/") + 1);
        const to = file.startsWith("ld-linux") ? "ld.so" : file;
        await Deno.copyFile(library, `${disk}/${LIBRARIES}/${to}`);
      }
    }
    await makeExt4(disk, path, SIZE_MIB);
  });
}

/** The path of a program: unpacked, or this machine's, since apt downloads nothing that is there. */
async function programOf(name: string, packages: string): Promise<string> {
  const places = ["/usr/bin", "/usr/sbin", "/sbin"].map((place) => `${place}/${name}`);
  for (const path of [...places.map((place) => packages + place), ...places]) {
    if (await exists(path)) return path;
  }
  throw new ToolError(`Debian's package ${name} has no program of that name`);
}

/** The libraries that a program is linked with: unpacked ones, else this machine's. */
async function librariesOf(program: string, packages: string): Promise<string[]> {
  const triplet = `${Deno.build.arch}-linux-gnu`;
  const unpacked = `${packages}/usr/lib/${triplet}`;
  const listing = await run("env", [
    `LD_LIBRARY_PATH=${unpacked}:${packages}/lib/${triplet}:${unpacked}/ceph`,
    "ldd",
    program,
  ]);
  return [...listing.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path);
}
