/** A small tmpfs of one's own, to fill up. */
import { findProgram, run } from "../lib/process.ts";

/**
 * Mounts a tmpfs on a directory.
 *
 * @returns What unmounts it; nothing where that is not allowed
 */
export async function mountTmpfs(path: string, bytes: number): Promise<(() => void) | undefined> {
  const [mount, umount] = [findProgram("mount"), findProgram("umount")];
  if (mount === undefined || umount === undefined) return undefined;
  try {
    await run(mount, ["-t", "tmpfs", "-o", `size=${bytes}`, "vhostd-soak", path]);
  } catch {
    return undefined;
  }
  // Lazily: what still has a file open there is about to end.
  return () => void new Deno.Command(umount, { args: ["-l", path] }).outputSync();
}
