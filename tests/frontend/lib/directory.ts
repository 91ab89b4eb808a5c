/**
 * Temporary directories for tests.
 *
 * @module
 */

import { watchesEnded } from "../../../src/linux/mod.ts";

/** A directory that is removed at the end of the block, with everything in it. */
export function temporaryDirectory(): Disposable & { path: string } {
  // Short, as the path of a socket may have 107 bytes
  const path = Deno.makeTempDirSync({ prefix: "test-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** Runs a test with a directory, and waits until this thread watches nothing any more. */
export async function withDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  using directory = temporaryDirectory();
  await test(directory.path);
  await watchesEnded();
}
