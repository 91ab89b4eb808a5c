/** The initramfs: loads the drivers and hands over to the root disk. */
import { Scratch } from "../lib/scratch.ts";
import { busybox, type FileTree, SYSTEM, writeTree } from "./file_tree.ts";
import { cached } from "./cache.ts";
import type { Kernel } from "./kernel.ts";
import { run } from "../lib/process.ts";
import { progress } from "./progress.ts";

/** The drivers that every guest loads; what they depend on comes along. */
const DRIVERS = [
  ...["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_rng", "virtio_input", "evdev"],
  // ext4 asks for the first at run time, so no dependency names it.
  ...["crc32c_generic", "ext4"],
];

/** What goes with the driver of a device type. */
const COMPANIONS: Record<string, string[]> = { virtio_scsi: ["sd_mod"] };

const INIT = `\
#!/bin/sh
export PATH=/sbin:/bin:/usr/sbin:/usr/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

while read -r module; do
  insmod "/lib/modules/$module"
done </lib/modules/order

# The drivers of the other devices that there are.
for device in /sys/bus/virtio/devices/*/device; do
  order=/lib/modules/device-$(cat "$device" 2>/dev/null)
  [ -e "$order" ] || continue
  while read -r module; do
    [ -e "/tmp/$module" ] && continue
    insmod "/lib/modules/$module"
    : >"/tmp/$module"
  done <"$order"
done

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
    [ -d /files ] && cp -a /files/. /mnt/root/
    for directory in dev proc sys; do mount --move /$directory /mnt/$directory; done
    exec switch_root /mnt "$init"
  fi
  echo "The root disk $root cannot be mounted: this is the initramfs." >&2
fi
[ -d /files ] && cp -a /files/. /root/
exec /sbin/init
`;

/** The path of an initramfs for a kernel, made when it is missing. */
export async function initramfs(kernel: Kernel): Promise<string> {
  const tree: FileTree = { ...SYSTEM, init: INIT };
  const recipe = JSON.stringify([kernel.version, DRIVERS, COMPANIONS, tree]);
  return await cached("initramfs", recipe, async (path) => {
    progress("making the initramfs");
    using scratch = new Scratch("vhostd-initramfs-");
    const directory = scratch.directory();
    const modules = new Modules(await Deno.readTextFile(`${kernel.modules}/modules.dep`));
    const always = modules.inOrder(DRIVERS);
    tree["lib/modules/order"] = lines(always);
    const all = new Set(always);
    const aliases = await Deno.readTextFile(`${kernel.modules}/modules.alias`);
    for (const [deviceId, driver] of virtioDrivers(aliases)) {
      const order = modules.inOrder([driver, ...COMPANIONS[driver] ?? []])
        .filter((module) => !always.includes(module));
      if (order.length === 0) continue;
      for (const module of order) all.add(module);
      tree[`lib/modules/device-0x${deviceId}`] = lines(order);
    }
    const tool = await busybox();
    await writeTree(directory, tree, tool);
    for (const module of all) {
      await Deno.copyFile(
        `${kernel.modules}/${module}`,
        `${directory}/lib/modules/${baseName(module)}`,
      );
    }
    // Not compressed: an emulated processor would take longer to unpack it.
    const pack = 'find . | "$0" cpio -o -H newc -R 0:0 >"$1"';
    await run("sh", ["-ec", pack, tool, path], directory);
  });
}

/** The drivers of virtio devices, with the device type as sysfs writes it, such as `001a`. */
function virtioDrivers(modulesAlias: string): [deviceId: string, driver: string][] {
  return [...modulesAlias.matchAll(/^alias virtio:d0000([0-9A-F]{4})v\S* (\S+)$/gm)]
    .map(([, id, driver]) => [id.toLowerCase(), driver]);
}

function lines(modules: string[]): string {
  return modules.map((module) => `${baseName(module)}\n`).join("");
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** What a kernel has as modules, and what each depends on. */
class Modules {
  readonly #dependencies = new Map<string, string[]>();
  readonly #byName = new Map<string, string>();

  constructor(modulesDep: string) {
    for (const line of modulesDep.trim().split("\n")) {
      const [module, needed] = line.split(":");
      this.#dependencies.set(module, needed.split(" ").filter((name) => name));
      this.#byName.set(baseName(module).replace(".ko", "").replaceAll("-", "_"), module);
    }
  }

  /** Drivers and what they depend on, each after what it needs. What is no module is built in. */
  inOrder(drivers: string[]): string[] {
    const ordered = new Set<string>();
    const add = (module: string) => {
      for (const needed of this.#dependencies.get(module) ?? []) add(needed);
      ordered.add(module);
    };
    for (const driver of drivers) {
      const module = this.#byName.get(driver);
      if (module) add(module);
    }
    return [...ordered];
  }
}
