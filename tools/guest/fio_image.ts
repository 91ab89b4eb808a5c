/**
 * A disk with fio (the packaged one) and the libraries it needs, for tests that load a disk from
 * inside the guest.
 */
import { Scratch } from "../lib/scratch.ts";
import { unpackPackages } from "./apt.ts";
import { cached } from "./cache.ts";
import { run } from "../lib/process.ts";
import { makeExt4 } from "./root_image.ts";
import { progress } from "./progress.ts";

/** Sparse, so it costs only what is written to it. */
const SIZE_MIB = 192;

/** Where libraries are on the disk; `/fio` on it runs fio with them. */
const LIBRARIES = "lib";

const START = `\
#!/bin/sh
here=\${0%/*}
exec "$here/${LIBRARIES}/ld.so" --library-path "$here/${LIBRARIES}" "$here/fio.bin" "$@"
`;

/**
 * The path of an ext4 image with `/fio` on it, made when it is missing. It is only read: mount it
 * read-only.
 */
export async function fioImage(): Promise<string> {
  return await cached("fio", JSON.stringify([SIZE_MIB, START]), async (path) => {
    progress("downloading fio and what it needs");
    using scratch = new Scratch("vhostd-fio-");
    const directory = scratch.directory();
    const packages = `${directory}/packages`, disk = `${directory}/disk`;
    await unpackPackages(["fio"], packages, { withDependencies: true });
    await Deno.mkdir(`${disk}/${LIBRARIES}`, { recursive: true });
    const program = await programIn(packages);
    await Deno.copyFile(program, `${disk}/fio.bin`);
    await Deno.writeTextFile(`${disk}/fio`, START, { mode: 0o755 });
    for (const library of await librariesOf(program, packages)) {
      const name = library.slice(library.lastIndexOf("/") + 1);
      const to = name.startsWith("ld-linux") ? "ld.so" : name;
      await Deno.copyFile(library, `${disk}/${LIBRARIES}/${to}`);
    }
    await makeExt4(disk, path, SIZE_MIB);
  });
}

/** fio: the unpacked one, or this machine's, as nothing is downloaded that is installed. */
async function programIn(packages: string): Promise<string> {
  const [unpacked, installed] = [`${packages}/usr/bin/fio`, "/usr/bin/fio"];
  return await Deno.stat(unpacked).then(() => unpacked, () => installed);
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
