/**
 * Debian packages: programs to install, and files to take out of packages.
 *
 * @module
 */

import { sha256 } from "./cache.ts";
import { findProgram, GuestError, progress, run } from "./process.ts";

/** The Debian package of each program that the guest or its tests need. */
const PACKAGES = {
  "cpio": "cpio",
  "debootstrap": "debootstrap",
  "mke2fs": "e2fsprogs",
  "qemu-storage-daemon": "qemu-system-common",
  "qemu-system-x86_64": "qemu-system-x86",
} as const;

/** A program that {@linkcode ensurePrograms} can install. */
export type Program = keyof typeof PACKAGES;

/** Whether this process may install packages. */
export function isRoot(): boolean {
  return Deno.uid() === 0;
}

/**
 * Installs the programs that are missing.
 *
 * @throws {GuestError} When something is missing and this is not root; the
 * message is the command to run.
 */
export async function ensurePrograms(...programs: Program[]): Promise<void> {
  const missing = programs.filter((program) => !findProgram(program));
  if (missing.length === 0) return;
  const packages = missing.map((program) => PACKAGES[program]);
  const install = ["install", "-y", "--no-install-recommends", ...packages];
  if (!isRoot()) {
    throw new GuestError(
      `Missing ${missing.join(", ")}. Run as root: ` +
        `apt-get update && apt-get ${install.join(" ")}`,
    );
  }
  await updateLists();
  progress(`installing ${packages.join(", ")}`);
  await run("apt-get", ["-q", ...install], { visible: true });
}

let lists: Promise<unknown> | undefined;

/** Makes apt's lists current, once; only root may do that. */
async function updateLists(): Promise<void> {
  if (!isRoot()) return;
  if (!lists) progress("updating the lists of Debian packages");
  await (lists ??= run("apt-get", ["-q", "update"]));
}

/**
 * Downloads a package, checks it and unpacks it, without installing it.
 *
 * @param name The package's name.
 * @param directory Where the package's files go; made when it is missing.
 */
export async function unpackPackage(
  name: string,
  directory: string,
): Promise<void> {
  await updateLists();
  const uri = await run("apt-get", ["download", "--print-uris", name]);
  // 'http://…' FILE SIZE SHA256:…
  const [, file, size, checksum] = uri.trim().split(" ");
  if (!checksum?.startsWith("SHA256:")) {
    throw new GuestError(
      `apt has no SHA-256 of the package ${name}: ${uri.trim()}`,
    );
  }
  progress(`downloading ${name} (${(Number(size) / 1e6).toFixed(1)} MB)`);
  await Deno.mkdir(directory, { recursive: true });
  await run(
    "apt-get",
    // As root, apt would download as a user who may not write there.
    ["-q", "-o", "APT::Sandbox::User=root", "download", name],
    { cwd: directory },
  );
  const path = `${directory}/${file}`;
  const actual = await sha256(await Deno.readFile(path));
  if (checksum !== `SHA256:${actual}`) {
    throw new GuestError(
      `The package ${file} has SHA-256 ${actual}, expected ${checksum}`,
    );
  }
  await run("dpkg", ["-x", path, directory]);
  await Deno.remove(path);
}

/** The package that a meta-package stands for, such as the newest kernel's. */
export async function dependencyOf(
  metaPackage: string,
  pattern: RegExp,
): Promise<string | undefined> {
  await updateLists();
  const description = await run("apt-cache", [
    "show",
    "--no-all-versions",
    metaPackage,
  ]);
  const depends = description.match(/^Depends: (.*)$/m)?.[1] ?? "";
  return depends.match(pattern)?.[0];
}
