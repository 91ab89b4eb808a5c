/**
 * A small tmpfs of one's own, to fill up.
 *
 * @module
 */

import { findProgram, run } from "../guest/process.ts";

/** A directory on a tmpfs that has room for little. */
export interface SmallTmpfs extends AsyncDisposable {
  readonly path: string;
}

/**
 * Mounts a tmpfs on a directory.
 *
 * @returns Nothing where that is not allowed
 */
export async function mountTmpfs(path: string, bytes: number): Promise<SmallTmpfs | undefined> {
  const [mount, umount] = [findProgram("mount"), findProgram("umount")];
  if (mount === undefined || umount === undefined) return undefined;
  try {
    await run(mount, ["-t", "tmpfs", "-o", `size=${bytes}`, "vhostd-soak", path]);
  } catch {
    return undefined;
  }
  return {
    path,
    // Lazily: what still has a file open there is about to end.
    [Symbol.asyncDispose]: async () => void await run(umount, ["-l", path]),
  };
}
