/**
 * The initramfs: loads the drivers and hands over to the root disk.
 *
 * @module
 */

import { busybox } from "./busybox.ts";
import { cached } from "./cache.ts";
import { type FileTree, SYSTEM, writeTree } from "./file_tree.ts";
import type { Kernel } from "./kernel.ts";
import { progress, run } from "./process.ts";

/** The drivers; what they depend on comes along. */
const DRIVERS = [
  "virtio_pci",
  "virtio_mmio",
  "virtio_blk",
  "virtio_rng",
  "virtio_input",
  "evdev",
  // ext4 asks for this one at run time, so no dependency names it.
  "crc32c_generic",
  "ext4",
];

const INIT = `\
#!/bin/sh
export PATH=/sbin:/bin:/usr/sbin:/usr/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

while read -r module; do
  insmod "/lib/modules/$module"
done </lib/modules/order

root= init=/sbin/init
for word in $(cat /proc/cmdline); do
  case $word in
    root=*) root=\${word#root=} ;;
    init=*) init=\${word#init=} ;;
  esac
done

if [ -n "$root" ]; then
  tries=0
  until [ -b "$root" ] || [ $tries = 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
  if mount "$root" /mnt; then
    for directory in dev proc sys; do mount --move /$directory /mnt/$directory; done
    exec switch_root /mnt "$init"
  fi
  echo "The root disk $root cannot be mounted: this is the initramfs." >&2
fi
exec /sbin/init
`;

/** The path of an initramfs for a kernel, made when it is missing. */
export async function initramfs(kernel: Kernel): Promise<string> {
  const tree: FileTree = { ...SYSTEM, init: INIT };
  const recipe = JSON.stringify([kernel.version, DRIVERS, tree]);
  return await cached("initramfs", recipe, async (path) => {
    progress("making the initramfs");
    const directory = await Deno.makeTempDir({ prefix: "vhostd-initramfs-" });
    try {
      const modules = inDependencyOrder(
        await Deno.readTextFile(`${kernel.modules}/modules.dep`),
      );
      const names = modules.map((module) => module.split("/").at(-1)!);
      tree["lib/modules/order"] = names.join("\n") + "\n";
      const tool = await busybox();
      await writeTree(directory, tree, tool);
      for (const [index, module] of modules.entries()) {
        await Deno.copyFile(
          `${kernel.modules}/${module}`,
          `${directory}/lib/modules/${names[index]}`,
        );
      }
      // Not compressed: an emulated processor would take longer to unpack it.
      const pack = 'find . | "$0" cpio -o -H newc -R 0:0 >"$1"';
      await run("sh", ["-ec", pack, tool, path], directory);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  });
}

/** The drivers and what they depend on, each after what it needs. */
function inDependencyOrder(modulesDep: string): string[] {
  const dependencies = new Map<string, string[]>();
  for (const line of modulesDep.trim().split("\n")) {
    const [module, needed] = line.split(":");
    dependencies.set(module, needed.split(" ").filter((name) => name));
  }
  const byName = new Map(
    [...dependencies.keys()].map((module) => [
      module.split("/").at(-1)!.replace(".ko", "").replaceAll("-", "_"),
      module,
    ]),
  );
  const ordered = new Set<string>();
  function add(module: string) {
    for (const needed of dependencies.get(module) ?? []) add(needed);
    ordered.add(module);
  }
  for (const driver of DRIVERS) {
    // What is not a module is built in.
    const module = byName.get(driver);
    if (module) add(module);
  }
  return [...ordered];
}
