/** The guest's kernel: Debian's own, with its modules. */
import { busybox } from "./file_tree.ts";
import { cached, exists } from "./cache.ts";
import { dependencyOf, unpackPackages } from "./apt.ts";
import { run } from "../lib/process.ts";
import { progress } from "./progress.ts";
import { ToolError } from "../lib/tool_error.ts";

/** Kernels, the one that boots fastest first. */
const META_PACKAGES = ["linux-image-cloud-amd64", "linux-image-amd64"];

/** What the kernel must have, built in or as a module. */
const NEEDED = [
  ...["VIRTIO_PCI", "VIRTIO_MMIO", "VIRTIO_BLK", "HW_RANDOM_VIRTIO", "VIRTIO_INPUT"],
  ...["INPUT_EVDEV", "EXT4_FS", "SERIAL_8250_CONSOLE"],
];

export interface Kernel {
  /** The kernel's version, such as `6.1.0-56-cloud-amd64`. */
  version: string;
  image: string;
  /** The directory of its modules, with a `modules.dep`. */
  modules: string;
}

/**
 * Debian's kernel for virtual machines, downloaded when it is missing.
 *
 * @param isNewer Whether it is that of the release's backports, where it has such.
 */
export async function debianKernel(isNewer = false): Promise<Kernel> {
  const directory = await cached(
    isNewer ? "newer-kernel" : "kernel",
    JSON.stringify([META_PACKAGES, NEEDED]),
    (path) => unpackKernel(path, isNewer),
  );
  return await readKernel(directory);
}

async function unpackKernel(directory: string, isNewer: boolean): Promise<void> {
  for (const metaPackage of META_PACKAGES) {
    const name = await dependencyOf(metaPackage, /linux-image-\d\S*/, isNewer);
    if (!name) continue;
    progress(`downloading ${name}`);
    await unpackPackages([name], directory);
    const { version, modules } = await readKernel(directory);
    const config = (await Deno.readTextFile(`${directory}/boot/config-${version}`)).split("\n");
    const missing = NEEDED.filter((option) =>
      !["y", "m"].some((value) => config.includes(`CONFIG_${option}=${value}`))
    );
    if (missing.length > 0) {
      progress(`${name} lacks ${missing.join(", ")}`);
      await Deno.remove(directory, { recursive: true });
      continue;
    }
    await indexModules(directory, modules, version);
    return;
  }
  throw new ToolError(
    `apt has no kernel that serves the guest; looked for ${META_PACKAGES.join(" and ")}`,
  );
}

async function indexModules(directory: string, modules: string, version: string): Promise<void> {
  const tool = await busybox();
  // From Debian 13 on modules are compressed, which busybox does not index.
  await run("find", [modules, ..."-name *.ko.xz -exec".split(" "), ...[tool, "unxz", "{}", "+"]]);
  const base = modules.slice(0, -`/lib/modules/${version}`.length);
  await run(tool, ["depmod", "-b", base, version], directory);
}

async function readKernel(directory: string): Promise<Kernel> {
  for await (const { name } of Deno.readDir(`${directory}/boot`)) {
    if (!name.startsWith("vmlinuz-")) continue;
    const version = name.slice("vmlinuz-".length);
    const merged = `${directory}/usr/lib/modules/${version}`;
    return {
      version,
      image: `${directory}/boot/${name}`,
      modules: await exists(merged) ? merged : `${directory}/lib/modules/${version}`,
    };
  }
  throw new ToolError(`No kernel in ${directory}/boot`);
}
