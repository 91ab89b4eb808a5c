/** The guest's root disk: a small ext4 image with busybox. */
import { Scratch } from "../lib/scratch.ts";
import { busybox, SYSTEM, writeTree } from "./file_tree.ts";
import { cached } from "./cache.ts";
import { run } from "../lib/process.ts";
import { programPath } from "./programs.ts";
import { progress } from "./progress.ts";

/** Sparse, so it costs only what is written to it. */
const SIZE_MIB = 128;

/** The path of the root image, made when it is missing. Copy it to write. */
export async function rootImage(): Promise<string> {
  const recipe = JSON.stringify([SIZE_MIB, SYSTEM]);
  return await cached("root", recipe, async (path) => {
    progress("making the root image");
    using scratch = new Scratch("vhostd-root-");
    const directory = scratch.directory();
    await writeTree(directory, SYSTEM, await busybox());
    await makeExt4(directory, path, SIZE_MIB);
  });
}

/** Makes an ext4 image that holds what is in a directory. */
export async function makeExt4(directory: string, path: string, sizeMiB: number): Promise<void> {
  await run(await programPath("mke2fs"), [
    ...["-q", "-t", "ext4", "-d", directory, path, `${sizeMiB}M`],
  ]);
}

/** Copies an image; what is empty takes no space. */
export async function copyImage(from: string, to: string): Promise<void> {
  await run("cp", ["--reflink=auto", "--sparse=always", from, to]);
}
