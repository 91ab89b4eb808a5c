/** The programs that make and run the guest: this machine's, or else Debian's under `.cache/`. */
import { debianRelease, unpackPackages } from "./apt.ts";
import { cached, exists } from "./cache.ts";
import { findProgram, run } from "../lib/process.ts";
import { progress } from "./progress.ts";
import { ToolError } from "../lib/tool_error.ts";

/** Where each program comes from. */
const PACKAGES = {
  "debootstrap": "debootstrap",
  "mke2fs": "e2fsprogs",
  "nbdkit": "nbdkit",
  "openssl": "openssl",
  "passt": "passt",
  "promtool": "prometheus",
  "qemu-img": "qemu-utils",
  "qemu-nbd": "qemu-utils",
  "qemu-storage-daemon": "qemu-utils",
  "qemu-system-x86_64": "qemu-system-x86",
  "systemd-analyze": "systemd",
  "tshark": "tshark",
} as const;

export type Program = keyof typeof PACKAGES;

/**
 * What the devices were tested with. Debian 12 has 7.2, whose vhost-user-input refuses to work
 * without KVM ("vhost initialization failed: requires kvm").
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
  return `${await unpackedPackage(PACKAGES[name])}/${name}`;
}

/** Where a package of this release was unpacked to, with what it needs and this machine lacks. */
async function unpackedPackage(packageName: string): Promise<string> {
  return await cached(
    packageName,
    // It uses the libraries of this release that are installed.
    JSON.stringify([
      packageName,
      WRAPPER,
      await debianRelease(),
      ...programsOf(packageName).slice(1),
    ]),
    (path) => unpack(packageName, path),
  );
}

async function isNewEnough(name: Program, path: string): Promise<boolean> {
  if (name !== "qemu-system-x86_64") return true;
  return Number.parseInt(await versionOf(path) ?? "0") >= QEMU_MAJOR_VERSION;
}

/**
 * The environment in which this machine's programs find a library that some of them load, which is
 * downloaded when it is missing.
 */
export async function libraryEnvironment(packageName: string): Promise<Record<string, string>> {
  const path = await unpackedPackage(packageName);
  const directories = ["usr/lib", "lib"].map((place) => `${path}/${place}/x86_64-linux-gnu`);
  return { LD_LIBRARY_PATH: directories.join(":") };
}

/** Runs a program where it was unpacked to, with the libraries beside it. */
const WRAPPER = `\
#!/bin/sh
here=\${0%/*}
name=\${0##*/}
libraries="$here/usr/lib/x86_64-linux-gnu:$here/lib/x86_64-linux-gnu"
export PATH="$PATH:/usr/sbin:/sbin:$here/usr/bin"
export DEBOOTSTRAP_DIR="$here/usr/share/debootstrap"
case $name in
  qemu-system-*)
    export QEMU_MODULE_DIR="$here/usr/lib/x86_64-linux-gnu/qemu"
    set -- -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" "$@" ;;
esac
for program in "$here/usr/bin/$name" "$here/usr/sbin/$name" "$here/sbin/$name"; do
  [ -x "$program" ] || continue
  # The loader of another release, under the program's name: that is what others see.
  loader="$here/loader/$name"
  [ -x "$loader" ] && exec "$loader" --library-path "$libraries" "$program" "$@"
  LD_LIBRARY_PATH="$libraries" exec "$program" "$@"
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
  if (packageName === "systemd") await linkPrivateLibraries(directory);
  for (const name of programsOf(packageName)) await writeWrapper(directory, name);
}

function programsOf(packageName: string): string[] {
  return Object.entries(PACKAGES).flatMap(([name, from]) => from === packageName ? [name] : []);
}

/** systemd's own libraries are in a directory of their own. */
async function linkPrivateLibraries(directory: string): Promise<void> {
  const libraries = `${directory}/usr/lib/x86_64-linux-gnu`;
  for await (const { name } of Deno.readDir(`${libraries}/systemd`)) {
    if (name.includes(".so")) await Deno.symlink(`systemd/${name}`, `${libraries}/${name}`);
  }
}

async function writeWrapper(directory: string, name: string): Promise<void> {
  await Deno.writeTextFile(`${directory}/${name}`, WRAPPER, { mode: 0o755 });
}

/** Versions of QEMU, and the releases of Debian that have them. */
const QEMU_RELEASES = {
  "5.2": { release: "bullseye", fromBackports: false },
  "7.2": { release: "bookworm", fromBackports: false },
  "10.0": { release: "bookworm", fromBackports: true },
  "11.1": { release: "trixie", fromBackports: true },
} as const;

/** A version of QEMU that some release of Debian has. */
export type QemuVersion = keyof typeof QEMU_RELEASES;

/** The versions, oldest first. */
export const QEMU_VERSIONS = Object.keys(QEMU_RELEASES) as QemuVersion[];

/** The disk tools, with the drivers that are modules: libblkio's is one. */
const DISK_TOOLS = ["qemu-utils", "qemu-block-extra"];

/** QEMU's programs, and the packages that each needs. */
const QEMU_PACKAGES = {
  "qemu-system-x86_64": ["qemu-system-x86"],
  "qemu-storage-daemon": DISK_TOOLS,
  "qemu-img": DISK_TOOLS,
} as const;

export type QemuProgram = keyof typeof QEMU_PACKAGES;

const foundVersions = new Map<string, Promise<string>>();

/**
 * The path of a program of QEMU's in a certain version, which is downloaded when it is missing:
 * with its own C library, so that it runs whatever this machine's release is.
 */
export function qemuOfVersion(
  version: QemuVersion,
  name: QemuProgram = "qemu-system-x86_64",
): Promise<string> {
  const key = `${name} ${version}`;
  const path = foundVersions.get(key) ?? findOrUnpackVersion(version, name);
  foundVersions.set(key, path);
  return path;
}

async function findOrUnpackVersion(version: QemuVersion, name: QemuProgram): Promise<string> {
  const usual = name === "qemu-img" ? [] : [findProgram(name), await programPath(name)];
  for (const path of usual) {
    if (path !== undefined && await versionOf(path) === version) return path;
  }
  const packages = QEMU_PACKAGES[name];
  const place = packages === DISK_TOOLS ? "qemu-utils" : "qemu";
  const directory = await unpackRelease(
    `${place}-${version}`,
    packages,
    Object.entries(QEMU_PACKAGES).filter(([, needed]) => needed === packages).map(([key]) => key),
    QEMU_RELEASES[version],
  );
  const path = `${directory}/${name}`;
  const got = await versionOf(path);
  if (got !== version) {
    throw new ToolError(
      `Expected QEMU ${version} in Debian ${QEMU_RELEASES[version].release}, got ${got}`,
    );
  }
  return path;
}

/** A release of Debian, with or without its newer packages. */
interface Release {
  readonly release: string;
  readonly fromBackports: boolean;
}

/**
 * Unpacks packages of another release of Debian with all that they need.
 *
 * @returns The directory in which the programs of the packages can be run by their names.
 */
function unpackRelease(
  place: string,
  packages: readonly string[],
  programs: readonly string[],
  { release, fromBackports }: Release,
): Promise<string> {
  const recipe = JSON.stringify([packages, WRAPPER, release, fromBackports]);
  return cached(place, recipe, async (path) => {
    progress(`downloading ${packages[0]} of Debian ${release}`);
    await unpackPackages([...packages], path, { release, fromBackports });
    await Deno.mkdir(`${path}/loader`);
    for (const program of programs) {
      await writeWrapper(path, program);
      await Deno.copyFile(await loaderIn(path), `${path}/loader/${program}`);
    }
  });
}

/** Programs for measuring networks, and the packages of Debian 13 that have them. */
const NETWORK_PACKAGES = {
  "dpdk-testpmd": { packages: ["dpdk-dev"], fromBackports: false },
  "iperf3": { packages: ["iperf3"], fromBackports: false },
  "passt": { packages: ["passt"], fromBackports: true },
} as const;

export type NetworkProgram = keyof typeof NETWORK_PACKAGES;

/** The path of a program for measuring networks, which is downloaded when it is missing. */
export async function networkProgram(name: NetworkProgram): Promise<string> {
  const { packages, fromBackports } = NETWORK_PACKAGES[name];
  const release = { release: "trixie", fromBackports };
  const place = fromBackports ? `${name}-backports` : name; // beside this release's own
  const directory = await unpackRelease(place, packages, [name], release);
  return `${directory}/${name}`;
}

/** What a cluster of Ceph is made of, and its clients: QEMU's too, with the same librbd. */
const CEPH_PACKAGES = ["ceph-mon", "ceph-osd", "ceph-common", "qemu-utils", "qemu-block-extra"];

/** The directory with the programs and libraries of Ceph, which are downloaded when it is missing. */
export async function cephDirectory(): Promise<string> {
  const recipe = JSON.stringify([CEPH_PACKAGES, await debianRelease()]);
  return await cached("ceph", recipe, async (path) => {
    progress("downloading Ceph and what it needs");
    await unpackPackages(CEPH_PACKAGES, path, { withDependencies: true, fromBackports: true });
  });
}

/** An environment in which programs of {@linkcode cephDirectory} run, in words for `env`. */
export async function cephEnvironment(): Promise<string[]> {
  const tree = await cephDirectory();
  const libraries = `${tree}/usr/lib/x86_64-linux-gnu`;
  return [
    `LD_LIBRARY_PATH=${libraries}:${libraries}/ceph:${tree}/lib/x86_64-linux-gnu`,
    `PATH=${tree}/usr/bin:${tree}/usr/sbin:${Deno.env.get("PATH")}`,
    `QEMU_MODULE_DIR=${libraries}/qemu`,
  ];
}

async function versionOf(path: string): Promise<string | undefined> {
  return (await run(path, ["--version"])).match(/ version (\d+\.\d+)/)?.[1];
}

/** The loader of an unpacked C library. */
async function loaderIn(directory: string): Promise<string> {
  for (const place of ["usr/lib", "lib"]) {
    const path = `${directory}/${place}/x86_64-linux-gnu/ld-linux-x86-64.so.2`;
    if (await exists(path)) return path;
  }
  throw new ToolError(`No loader in ${directory}`);
}
