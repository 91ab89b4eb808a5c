/**
 * Debian packages, downloaded and unpacked without being installed.
 *
 * apt is given lists and sources of our own: that needs no root, and neither
 * this machine's packages nor apt's configuration change.
 *
 * @module
 */

import { cached } from "./cache.ts";
import { GuestError, progress, run } from "./process.ts";

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** How packages are chosen. */
export interface PackageOptions {
  /** Whether what they depend on, and this machine lacks, comes along. */
  withDependencies?: boolean;
  /** Whether they are newer ones, where the release has such. */
  fromBackports?: boolean;
}

/**
 * Downloads packages and unpacks them. apt checks each against Debian's signed
 * lists.
 *
 * @param names The names of the packages.
 * @param directory Where their files go; made when it is missing.
 */
export async function unpackPackages(
  names: string[],
  directory: string,
  { withDependencies = false, fromBackports = false }: PackageOptions = {},
): Promise<void> {
  const archives = `${directory}/archives`;
  await Deno.mkdir(`${archives}/partial`, { recursive: true });
  if (withDependencies) {
    const target = fromBackports ? await backports() : undefined;
    await apt("apt-get", [
      ...["-o", `Dir::Cache::Archives=${archives}`],
      ...["install", "-qq", "--yes", "--download-only"],
      "--no-install-recommends",
      ...target ? ["--target-release", target] : [],
      ...names,
    ]);
  } else {
    await apt("apt-get", ["download", "-qq", ...names], archives);
  }
  for await (const { name } of Deno.readDir(archives)) {
    if (!name.endsWith(".deb")) continue;
    await run("dpkg", ["-x", `${archives}/${name}`, directory]);
  }
  await Deno.remove(archives, { recursive: true });
}

/** The package that a meta-package stands for, such as the newest kernel's. */
export async function dependencyOf(
  metaPackage: string,
  pattern: RegExp,
): Promise<string | undefined> {
  const args = ["show", "--no-all-versions", metaPackage];
  const description = await apt("apt-cache", args);
  const depends = description.match(/^Depends: (.*)$/m)?.[1] ?? "";
  return depends.match(pattern)?.[0];
}

/** The name of this machine's Debian release, such as `bookworm`. */
export async function debianRelease(): Promise<string> {
  const text = await Deno.readTextFile("/etc/os-release").catch(() => "");
  const [, name] = text.match(/^VERSION_CODENAME=(\w+)$/m) ?? [];
  if (name && /^ID=debian$/m.test(text)) return name;
  throw new GuestError("The guest is made from Debian's packages, on Debian");
}

/** Where this machine gets its Debian packages from: `SITE SUITE main`, the release itself first. */
async function debianArchives(release: string): Promise<string[]> {
  // Before the first `apt-get update` apt knows what is configured, but not
  // what of it is Debian's own.
  const targets = await indexTargets("Origin: Debian") || await indexTargets("--no-release-info");
  const suites = [release, `${release}-updates`, `${release}-security`];
  const archives = suites.flatMap((suite) =>
    targets.split("\n").filter((line) => line.endsWith(` ${suite} main`))
  );
  if (archives.length === 0) {
    throw new GuestError(
      `apt knows no archive of Debian ${release}: add one to /etc/apt/sources.list`,
    );
  }
  return archives;
}

async function indexTargets(choice: string): Promise<string> {
  const format = "$(SITE) $(RELEASE) $(COMPONENT)";
  const args = ["indextargets", "--format", format, "Identifier: Packages", choice];
  return await run("apt-get", args);
}

/** The suite of newer packages that the release needs, if it does. */
async function backports(): Promise<string | undefined> {
  const release = await debianRelease();
  return release === "bookworm" ? "bookworm-backports" : undefined;
}

/** Runs one of apt's tools on our lists, which are at most a day old. */
async function apt(
  tool: "apt-get" | "apt-cache",
  args: string[],
  cwd?: string,
): Promise<string> {
  const release = await debianRelease();
  const archives = await debianArchives(release);
  const newer = await backports();
  if (newer) archives.push(archives[0].replace(` ${release} `, ` ${newer} `));
  const sources = [...new Set(archives)].map((archive) => `deb [signed-by=${KEYRING}] ${archive}\n`)
    .join("");

  const today = new Date().toISOString().slice(0, 10);
  const recipe = JSON.stringify([sources, today]);
  const directory = await cached("apt", recipe, async (path) => {
    progress("downloading the lists of Debian's packages");
    await Deno.mkdir(`${path}/lists/partial`, { recursive: true });
    await Deno.writeTextFile(`${path}/sources.list`, sources);
    await run("apt-get", [...settings(path), "update", "-qq", "--error-on=any"]);
  });
  return await run(tool, [...settings(directory), ...args], cwd);
}

function settings(directory: string): string[] {
  return [
    `Dir::Etc::SourceList=${directory}/sources.list`,
    "Dir::Etc::SourceParts=/dev/null",
    `Dir::State::Lists=${directory}/lists`,
    "Dir::Cache::pkgcache=",
    "Dir::Cache::srcpkgcache=",
    // Nothing here belongs to the system, so there is nothing of it to lock,
    // and the user apt changes to as root may not write to it.
    "Debug::NoLocking=1",
    "APT::Sandbox::User=root",
  ].flatMap((setting) => ["-o", setting]);
}
