/**
 * The programs that make and run the guest: this machine's, or else Debian's
 * under `.cache/`.
 *
 * @module
 */

import { debianRelease, unpackPackages } from "./apt.ts";
import { cached } from "./cache.ts";
import { findProgram, progress, run } from "./process.ts";

/** Where each program comes from. */
const PACKAGES = {
  "debootstrap": "debootstrap",
  "mke2fs": "e2fsprogs",
  "qemu-storage-daemon": "qemu-utils",
  "qemu-system-x86_64": "qemu-system-x86",
} as const;

/** The name of a program. */
export type Program = keyof typeof PACKAGES;

/**
 * What the devices were tested with. Debian 12 has 7.2, whose vhost-user-input
 * refuses to work without KVM ("vhost initialization failed: requires kvm").
 */
const QEMU_MAJOR_VERSION = 10;

const found = new Map<Program, Promise<string>>();

/** The path of a program, which is downloaded when it is missing. */
export function programPath(name: Program): Promise<string> {
  const path = found.get(name) ?? findOrUnpack(name);
  found.set(name, path);
  return path;
}

async function findOrUnpack(name: Program): Promise<string> {
  const installed = findProgram(name);
  if (installed && await isNewEnough(name, installed)) return installed;
  const packageName = PACKAGES[name];
  const directory = await cached(
    packageName,
    // It uses the libraries of this release that are installed.
    JSON.stringify([packageName, WRAPPER, await debianRelease()]),
    (path) => unpack(packageName, path),
  );
  return `${directory}/${name}`;
}

async function isNewEnough(name: Program, path: string): Promise<boolean> {
  if (name !== "qemu-system-x86_64") return true;
  const [, major] = (await run(path, ["--version"])).match(/ (\d+)\./) ?? [];
  return Number(major) >= QEMU_MAJOR_VERSION;
}

/** Runs a program where it was unpacked to, with the libraries beside it. */
const WRAPPER = `\
#!/bin/sh
here=\${0%/*}
name=\${0##*/}
export LD_LIBRARY_PATH="$here/usr/lib/x86_64-linux-gnu:$here/lib/x86_64-linux-gnu"
export PATH="$PATH:/usr/sbin:/sbin:$here/usr/bin"
export DEBOOTSTRAP_DIR="$here/usr/share/debootstrap"
case $name in
  qemu-system-*)
    export QEMU_MODULE_DIR="$here/usr/lib/x86_64-linux-gnu/qemu"
    set -- -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" "$@" ;;
esac
for program in "$here/usr/bin/$name" "$here/usr/sbin/$name" "$here/sbin/$name"; do
  [ -x "$program" ] && exec "$program" "$@"
done
echo "$name: not in the package" >&2
exit 127
`;

async function unpack(packageName: string, directory: string): Promise<void> {
  progress(`downloading ${packageName} and what it needs`);
  await unpackPackages([packageName], directory, {
    withDependencies: true,
    fromBackports: packageName.startsWith("qemu-"),
  });
  for (const [name, from] of Object.entries(PACKAGES)) {
    if (from !== packageName) continue;
    await Deno.writeTextFile(`${directory}/${name}`, WRAPPER, { mode: 0o755 });
  }
}
