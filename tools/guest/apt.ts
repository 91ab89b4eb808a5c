/**
 * Debian packages, downloaded and unpacked without being installed. apt gets lists and sources of
 * our own: that needs no root, and changes nothing of this machine's.
 */
import { cached } from "./cache.ts";
import { run } from "../lib/process.ts";
import { progress } from "./progress.ts";
import { ToolError } from "../lib/tool_error.ts";

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** How packages are chosen. */
export interface PackageOptions {
  /** Whether what they depend on, and this machine lacks, comes along. */
  withDependencies?: boolean;
  /** Whether they are newer ones, where the release has such. */
  fromBackports?: boolean;
  /**
   * The release of Debian, such as `bullseye`, by default this machine's. What packages of another
   * one depend on comes along whole, the C library included.
   */
  release?: string;
}

/**
 * What the programs of another release are never to need, though some packages depend on it for
 * their installation.
 */
const FOR_INSTALLATION = [
  ...["adduser", "base-passwd", "debconf", "dpkg", "iso-codes", "passwd", "perl-base", "tar"],
];

/** Where releases go that Debian no longer maintains. */
const ARCHIVE = "http://archive.debian.org";

/** Downloads packages and unpacks them. apt checks each against Debian's signed lists. */
export async function unpackPackages(
  names: string[],
  directory: string,
  { withDependencies = false, fromBackports = false, release }: PackageOptions = {},
): Promise<void> {
  const archives = `${directory}/archives`;
  await Deno.mkdir(`${archives}/partial`, { recursive: true });
  if (withDependencies || release !== undefined) {
    const target = fromBackports ? await backports(release) : undefined;
    const args = [
      ...["-o", `Dir::Cache::Archives=${archives}`],
      ...["install", "-qq", "--yes", "--no-install-recommends"],
      ...target ? ["--target-release", target] : [],
      ...names,
    ];
    const uris = await apt("apt-get", [...args, "--print-uris"], { release });
    const sizes = [...uris.matchAll(/^'\S+' \S+ (\d+)/gm)].map(([, bytes]) => Number(bytes));
    const megabytes = Math.ceil(sizes.reduce((sum, bytes) => sum + bytes, 0) / 1e6);
    progress(`downloading ${sizes.length} packages of Debian, ${megabytes} MB`);
    await apt("apt-get", [...args, "--download-only"], { release });
  } else {
    await apt("apt-get", ["download", "-qq", ...names], { cwd: archives });
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
  fromBackports = false,
): Promise<string | undefined> {
  const newer = fromBackports ? await backports() : undefined;
  const args = [
    ...newer === undefined ? [] : ["-o", `APT::Default-Release=${newer}`],
    ...["show", "--no-all-versions", metaPackage],
  ];
  const description = await apt("apt-cache", args);
  const depends = description.match(/^Depends: (.*)$/m)?.[1] ?? "";
  return depends.match(pattern)?.[0];
}

/** The name of this machine's Debian release, such as `bookworm`. */
export async function debianRelease(): Promise<string> {
  const text = await Deno.readTextFile("/etc/os-release").catch(() => "");
  const [, name] = text.match(/^VERSION_CODENAME=(\w+)$/m) ?? [];
  if (name && /^ID=debian$/m.test(text)) return name;
  throw new ToolError("The guest is made from Debian's packages, on Debian");
}

/** Where this machine gets its Debian packages from: `SITE SUITE main`, the release itself first. */
async function debianArchives(release: string): Promise<string[]> {
  // Before the first `apt-get update` apt knows what is configured, but not what of it is Debian's
  // own.
  const targets = await indexTargets("Origin: Debian") || await indexTargets("--no-release-info");
  const suites = [release, `${release}-updates`, `${release}-security`];
  const archives = suites.flatMap((suite) =>
    targets.split("\n").filter((line) => line.endsWith(` ${suite} main`))
  );
  if (archives.length === 0) {
    throw new ToolError(
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

/** The suite of newer packages of a release; of this machine's if that needs it. */
async function backports(release?: string): Promise<string | undefined> {
  if (release !== undefined) return `${release}-backports`;
  return await debianRelease() === "bookworm" ? "bookworm-backports" : undefined;
}

/** Runs one of apt's tools on our lists, which are at most a day old. */
async function apt(
  tool: "apt-get" | "apt-cache",
  args: string[],
  { release, cwd }: { release?: string; cwd?: string } = {},
): Promise<string> {
  const own = release === undefined ? await listsOfThisRelease() : await listsOf(release);
  return await run(tool, [...own, ...args], cwd);
}

/** apt's settings for lists of this machine's release. */
async function listsOfThisRelease(): Promise<string[]> {
  const release = await debianRelease();
  const archives = await debianArchives(release);
  const newer = await backports();
  if (newer) archives.push(archives[0].replace(` ${release} `, ` ${newer} `));
  return settings(await lists("apt", sourcesList(archives)));
}

/**
 * apt's settings for lists of another release, for which nothing is installed. They come from where
 * this machine's do, or else from Debian's archive.
 */
async function listsOf(release: string): Promise<string[]> {
  const own = await debianRelease();
  const archives = (await debianArchives(own))
    .filter((archive) => !archive.includes("-updates"))
    .map((archive) => archive.replaceAll(own, release));
  // Releases without backports have none to look for.
  const newer = archives[0].replace(` ${release} `, ` ${release}-backports `);
  const maintained = sourcesList(release === "bullseye" ? archives : [...archives, newer]);
  const name = `apt-${release}`;
  let directory: string;
  try {
    directory = await lists(name, maintained);
  } catch (error) {
    if (!(error instanceof ToolError)) throw error;
    progress(`${error.message}; looking in ${ARCHIVE}`);
    const archived = [`${ARCHIVE}/debian ${release} main`];
    // What is archived was signed for a time that is over.
    directory = await lists(name, sourcesList(archived, "check-valid-until=no "));
  }
  return [...settings(directory), "-o", `Dir::State::status=${directory}/status`];
}

function sourcesList(archives: string[], options = ""): string {
  return [...new Set(archives)].map((archive) =>
    `deb [${options}signed-by=${KEYRING}] ${archive}\n`
  ).join("");
}

/** The directory of the lists that belong to sources, fetched once a day. */
async function lists(name: string, sources: string): Promise<string> {
  const today = new Date().toISOString().slice(0, 10);
  return await cached(name, JSON.stringify([sources, today]), async (path) => {
    progress("downloading the lists of Debian's packages");
    await Deno.mkdir(`${path}/lists/partial`, { recursive: true });
    await Deno.writeTextFile(`${path}/sources.list`, sources);
    await Deno.writeTextFile(`${path}/status`, FOR_INSTALLATION.map(installed).join("\n"));
    await run("apt-get", [...settings(path), "update", "-qq", "--error-on=any"]);
  });
}

/** A package as dpkg notes it when it is installed, and newer than any. */
function installed(name: string): string {
  return `Package: ${name}
Status: install ok installed
Version: 99
Architecture: ${Deno.build.arch === "aarch64" ? "arm64" : "amd64"}
Multi-Arch: foreign
Maintainer: nobody
Description: taken as installed
`;
}

function settings(directory: string): string[] {
  return [
    `Dir::Etc::SourceList=${directory}/sources.list`,
    "Dir::Etc::SourceParts=/dev/null",
    `Dir::State::Lists=${directory}/lists`,
    // Read from the lists once, not by each command: that is half of its time.
    `Dir::Cache::pkgcache=${directory}/pkgcache.bin`,
    "Dir::Cache::srcpkgcache=",
    // Nothing here belongs to the system, so there is nothing of it to lock, and the user apt
    // changes to as root may not write to it.
    "Debug::NoLocking=1",
    "APT::Sandbox::User=root",
  ].flatMap((setting) => ["-o", setting]);
}
